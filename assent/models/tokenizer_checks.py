"""The contract of a tokenizer: a template that would train wrongly is refused before anything is trained.

Five conditions are checked on a short conversation, or on plain text without a template:

    (a) the rendering with a completion begins with the prompt
    (b) a trained completion ends with an end token
    (c) the sequence begins with exactly one BOS token if the model expects one
    (d) no padding token is encoded
    (e) the whole completion is trained
"""

from collections.abc import Sequence
from typing import NamedTuple

from assent.errors import AssentError, warn
from assent.models.chat_template import PROBE, PROBE_COMPLETION
from assent.models.tokenizer import NO_END_TOKEN, ChatTokenizer
from assent.records import Completion, Prompt

PLAIN_PROBE = Prompt.plain("Name a bird:")


class CheckResult(NamedTuple):
    """The result of one check of the contract."""

    name: str
    passed: bool | None
    """None: not checked, because another check failed."""
    detail: str
    """What was checked; if it failed, what to do."""


def probe_prompt(tokenizer: ChatTokenizer) -> Prompt:
    """Return a prompt to try a tokenizer on: a conversation, or plain text where there is no template."""
    return PLAIN_PROBE if tokenizer.tokenizer.chat_template is None else Prompt(PROBE)


def require_valid(tokenizer: ChatTokenizer, model: str) -> None:
    """Refuse a tokenizer that fails the contract, and warn about settings that its template does not read.

    Raises:
        AssentError: naming the model and the failed checks.
    """
    if failures := [
        f"{result.name}: {result.detail}" for result in check_tokenizer(tokenizer) if result.passed is False
    ]:
        raise AssentError(f"the tokenizer of {model} fails the contract: {'; '.join(failures)}")
    arguments = tokenizer.template.arguments
    for argument in tokenizer.rendering.arguments:
        if argument not in arguments:
            valid = f" (it reads {', '.join(sorted(arguments))})" if arguments else ""
            warn(f"the chat template of {model} has no argument '{argument}'{valid}: it is ignored")
    if tokenizer.tokenizer.chat_template is not None and "strftime_now(" in tokenizer.template.text():
        warn(f"the chat template of {model} asks for the time in a way of its own: prompts change with the clock")


def check_tokenizer(tokenizer: ChatTokenizer) -> list[CheckResult]:
    """Return the results of the five checks."""
    probe = probe_prompt(tokenizer)
    pad = _check_pad(tokenizer)
    prefix, end, bos, trained = (CheckResult(name, None, "not checked") for name in ("prefix", "end", "bos", "trained"))
    if tokenizer.tokenizer.eos_token_id is None and not tokenizer.stop_ids:
        return [prefix, CheckResult("end", False, NO_END_TOKEN), bos, pad, trained]
    try:
        prompt_ids, added_ids = tokenizer.encode_untrimmed(probe, Completion(PROBE_COMPLETION))
    except AssentError as error:
        detail = f"{str(error).removesuffix('; use another template')}; use another template"
        return [CheckResult("prefix", False, detail), end, bos, pad, trained]
    return [
        CheckResult("prefix", True, _describe_prefix(tokenizer, probe)),
        _check_end(tokenizer, added_ids),
        _check_bos(tokenizer, (*prompt_ids, *added_ids)),
        pad,
        _check_trained(tokenizer, probe),
    ]


def _describe_prefix(tokenizer: ChatTokenizer, probe: Prompt) -> str:
    if probe.is_plain:
        return "prompt and completion are tokenized apart"
    template = tokenizer.template
    if template.render(probe, Completion(PROBE_COMPLETION)).startswith(template.render(probe)):
        return "with a completion the rendering begins with the prompt's ids"
    if template.turn_format.lead is None:
        return "the prompt opens thoughts: a completion without any closes them at once, one with thoughts stays whole"
    return "with a completion the template writes the prompt differently: completions follow the prompt as it is"


def _check_end(tokenizer: ChatTokenizer, added_ids: Sequence[int]) -> CheckResult:
    names = tokenizer.control_tokens.names
    if letters := [token for token in tokenizer.stop_ids if len(names.get(token, "")) == 1]:
        detail = f"the end token {names[letters[0]]!r} is an ordinary character, at which completions would break off"
        return CheckResult("end", False, detail)
    if ends := [token for token in added_ids if token in tokenizer.stop_ids]:
        others = sorted(tokenizer.stop_ids - {ends[0]})
        also = f"; {', '.join(_quote(tokenizer, token) for token in others)} would end one too" if others else ""
        return CheckResult("end", True, f"{_quote(tokenizer, ends[0])} closes a trained completion{also}")
    return CheckResult(
        "end",
        False,
        "nothing ends a turn: the trained completion holds no end token, the policy would never stop; "
        f"let the template write {_quote(tokenizer, tokenizer.eos_id)} after a completion",
    )


def _check_bos(tokenizer: ChatTokenizer, ids: Sequence[int]) -> CheckResult:
    bos = tokenizer.tokenizer.bos_token_id
    if bos is None:
        return CheckResult("bos", True, "the tokenizer has no BOS token, and none is written")
    name = _quote(tokenizer, bos)
    if list(ids[:2]) == [bos, bos]:
        return CheckResult(
            "bos", False, f"the conversation begins with two BOS tokens {name}; take one out of the template"
        )
    if list(ids[:1]) == [bos]:
        return CheckResult("bos", True, f"{name} stands once at the head")
    if bos in tokenizer.tokenizer("")["input_ids"]:
        missing = f"the conversation does not begin with the BOS token {name} that the model was trained with"
        return CheckResult("bos", False, f"{missing}; write it at the head of the template")
    return CheckResult("bos", True, "none, and none is expected")


def _check_pad(tokenizer: ChatTokenizer) -> CheckResult:
    pad = tokenizer.tokenizer.pad_token_id
    name = "the tokenizer has none" if pad is None else f"the tokenizer's is {_quote(tokenizer, pad)}"
    ends = ", which also ends a completion" if pad in tokenizer.stop_ids else ""
    return CheckResult("pad", True, f"rows are padded by position, no token is spent on it; {name}{ends}")


def _check_trained(tokenizer: ChatTokenizer, probe: Prompt) -> CheckResult:
    ids = tokenizer.encode_completion(probe, Completion(PROBE_COMPLETION))
    if ids and PROBE_COMPLETION in tokenizer.decode_visible(ids):
        return CheckResult("trained", True, f"all of the completion is trained, {len(ids)} tokens with its end")
    missing = "the completion is not in what follows the prompt" if ids else "no token of the completion is trained"
    return CheckResult("trained", False, f"{missing}; let the template write a message's content as it is")


def _quote(tokenizer: ChatTokenizer, token: int) -> str:
    return f"'{tokenizer.tokenizer.convert_ids_to_tokens(token)}'"
