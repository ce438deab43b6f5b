"""How a family of models is read: whole packs, or row by row; tried on a few tokens against transformers' own forward.

What counts is what training uses: log-probabilities (of a reward model, states) and their gradients. A family is taken
on the fast way only if both come out equal, and on the slow way, through its own forward with its own head, only if
they depend neither on the padding behind a row nor on the rows beside it. What does neither is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from assent.errors import AssentError, warn
from assent.models.attention import NAME, Cache, PackedBatch, SharedPrefix, pack, shares
from assent.models.forward import head, logits_in_rows, next_states, packed_states, states_in_rows
from assent.models.heads import RewardModel

if TYPE_CHECKING:
    from transformers import GenerationConfig

EQUAL = 1e-3
"""Share by which numbers may differ that are made in the same way."""
LARGE = 32.0
"""What states are multiplied by to see whether a head caps what it says."""


class Trial(NamedTuple):
    """What a model says of a pack, read in one way."""

    outputs: (
        Tensor  # (N, V) log-probabilities of the vocabulary where each branch token is chosen, or states there (N, H)
    )
    gradient: Tensor  # (S, H) of the branch tokens' log-probabilities, to the embedded tokens of the pack


def settle(model: Any, name: str) -> None:
    """Let a model read packs, if it can; otherwise rows, and say so.

    Args:
        model: a causal language model, or a reward model (with a `score`), where it is to compute.

    Raises:
        AssentError: it cannot be read in either way, naming the family and why.
    """
    kind = type(model.base_model if isinstance(model, RewardModel) else model).__name__
    family = f"{name} is a {kind} ({model.config.model_type})"
    single = next(model.parameters()).dtype == torch.float32  # in bfloat16, deep models round by a tenth
    try:
        with _frozen(model):
            if _reads_packs(model, EQUAL if single else 0.3):
                return
            flaw = _flaw_of_rows(model, EQUAL if single else 0.5)
    except Exception as error:  # noqa: BLE001 (a model is anybody's code, and may fail in any way)
        reason = str(error).strip().partition("\n")[0]
        raise AssentError(f"{family}, which fails on a few tokens: {type(error).__name__}: {reason}") from None
    if flaw:
        raise AssentError(f"{family}, {flaw}")
    if not hasattr(model, "score"):
        model.generation_config.use_cache = _draws_from_cache(model, EQUAL if single else 0.5)
    _say_that_it_reads_rows(family)


@cache
def _say_that_it_reads_rows(family: str) -> None:
    """Once, whoever loads it again: as policy, as reference, as reward model."""
    warn(
        f"{family}, which cannot read packs with shared prefixes: each sequence goes through it by itself, with equal "
        "results, more slowly"
    )


class Gap(NamedTuple):
    """The largest differences to transformers' own forward pass, on a few tokens."""

    logprobs: float  # nats
    gradients: float  # share of the largest gradient


def compared(model: Any, plain: Any) -> Gap:
    """How a policy as it is read here differs from the same model as transformers loads it.

    Args:
        model: a settled policy.
        plain: the same weights in a model of their own, in transformers' own attention.
    """
    a, b, c, d, e, f = _tokens(model, 7, 5, 3, 4, 8, 2)
    asked = _pack(model, SharedPrefix(a, (b, c)), SharedPrefix(d, (e, f)))
    read = _in_pack if shares(model.base_model) else _in_rows
    with _frozen(model), _frozen(plain):
        ours = _tried(model, asked, lambda: read(model, asked))
        own = _tried(plain, asked, lambda: _by_transformers(plain, asked))
    gradients = float((ours.gradient - own.gradient).abs().max() / own.gradient.abs().max())
    return Gap(float((ours.outputs - own.outputs).abs().max()), gradients)


def drawing(ends: frozenset[int], new_tokens: int) -> "GenerationConfig":
    """How transformers draws if nothing is cut off; what a model recommends would bend draws that are ours."""
    from transformers import GenerationConfig

    ids = {"eos_token_id": sorted(ends) or None, "pad_token_id": min(ends, default=0)}
    return GenerationConfig(max_new_tokens=new_tokens, use_cache=True, **ids)


def _reads_packs(model: Any, close: float) -> bool:
    """Turn a model to packs, and back if it does not say of them what it says of rows.

    Some cannot be told which tokens may look at which: they mix tokens by other means than attention (Mamba), number
    positions themselves, or add biases of their own (ALiBi). Some do with their logits what is unknown here.
    """
    config = model.config
    if "chunked_attention" in (getattr(config.get_text_config(), "layer_types", None) or ()):
        return False
    a, b, c, d, e, f, other = _tokens(model, 7, 5, 5, 4, 8, 8, 5)
    asked = _pack(model, SharedPrefix(a, (b, c)), SharedPrefix(d, (e, f)))  # rows of one length
    own = _tried(model, asked, lambda: _by_transformers(model, asked))
    parts = {"": config, **{name: getattr(config, name) for name in config.sub_configs}}
    usual = {name: part._attn_implementation for name, part in parts.items() if part and part._attn_implementation}
    causal = not hasattr(model, "score")
    try:
        if not causal or _head_is_known(model, d):
            model.set_attn_implementation(NAME)
        if config._attn_implementation == NAME:
            packed = _tried(model, asked, lambda: _in_pack(model, asked))
            # what is said of a branch is the same to the digit, in half precision too, whatever stands beside it
            beside = _in_pack(model, _pack(model, SharedPrefix(a, (other, c)), SharedPrefix(d, (e, f))))
            after = own.outputs[[1, len(b) + len(c) + 1]]  # a branch's first token: what may follow it
            if (
                _alike(beside[len(b) :], packed.outputs[len(b) :], EQUAL)
                and _alike(packed.outputs, own.outputs, close)
                and _alike(packed.gradient, own.gradient, close)
                and (not causal or _alike(_drawn(model, (a, d), (b[0], e[0])), after, close))
            ):
                return True
    except Exception:  # noqa: BLE001 (as above: then it does not read packs)
        pass
    model.set_attn_implementation(usual)
    return False


def _flaw_of_rows(model: Any, close: float) -> str:
    """Why a model cannot be read by padded rows either; empty if it can."""
    a, b, c, d = _tokens(model, 7, 5, 3, 4)
    asked = _pack(model, SharedPrefix(a, (b, c)), SharedPrefix(d, (a, b)))
    own = _tried(model, asked, lambda: _by_transformers(model, asked))
    early = _by_transformers(model, _pack(model, SharedPrefix(a, (b[:2],))))
    if not _alike(early, own.outputs[: len(early)], close):
        return "which looks at later tokens: it is no causal language model"
    rows = _tried(model, asked, lambda: _in_rows(model, asked))
    if _alike(rows.outputs, own.outputs, close) and _alike(rows.gradient, own.gradient, close):
        return ""
    return "whose numbers for a row depend on the padding behind it or on the rows beside it"


@torch.no_grad()
def _draws_from_cache(model: Any, close: float) -> bool:
    """Whether what is drawn with what a family keeps of the tokens before is what its forward says of all of them."""
    ids = torch.tensor(_tokens(model, 5, 5), device=model.device)
    usual, model.generation_config = model.generation_config, drawing(frozenset(), 4)
    try:
        drawn = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        again = model(input_ids=drawn.sequences, use_cache=False).logits[:, ids.shape[1] - 1 : -1]
    except Exception:  # noqa: BLE001 (as above)
        return False
    finally:
        model.generation_config = usual
    return _alike(torch.stack(drawn.logits, 1).float().log_softmax(-1), again.float().log_softmax(-1), close)


def _tokens(model: Any, *lengths: int) -> list[tuple[int, ...]]:
    """Some rows of tokens, none of them the pad token, whose embedding may be zero, where no gradient is."""
    config = model.config.get_text_config()
    order = torch.randperm(int(config.vocab_size), generator=torch.Generator().manual_seed(0)).tolist()
    ids = cycle(token for token in order if token != config.pad_token_id)
    return [tuple(next(ids) for _ in range(length)) for length in lengths]


def _pack(model: Any, *trees: SharedPrefix) -> PackedBatch:
    return pack(trees).to(model.device)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """While it lasts no weight asks for gradients, so that none of their size is made."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in trained:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def _tried(model: Any, asked: PackedBatch, read: Callable[[], Tensor]) -> Trial:
    """What is read, and its gradient: of a branch token's log-probability, or of a state in some fixed direction."""
    embedded: list[Tensor] = []

    def keep(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        embedded.append(out.detach().requires_grad_())
        return embedded[-1] + 0  # which may be changed in place

    hook = model.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad():
            outputs = read()
            if hasattr(model, "score"):
                direction = torch.randn(outputs.shape[1], generator=torch.Generator().manual_seed(0))
                value = outputs @ direction.to(outputs.device)
            else:
                value = outputs.gather(1, asked.targets[:, None])
            gradients = torch.autograd.grad(value.sum(), embedded)
    finally:
        hook.remove()
    return Trial(outputs.detach(), _on_pack(asked, gradients))


def _on_pack(asked: PackedBatch, gradients: tuple[Tensor, ...]) -> Tensor:
    """Gradients to the tokens of a pack, (S, H), of those to the pack, to rows one by one, or to padded rows."""
    if len(gradients) == 1 and len(gradients[0]) == 1:
        return gradients[0][0].float()
    rows = [row for part in gradients for row in part]
    flat = torch.cat([row[:seen] for row, seen in zip(rows, asked.seen, strict=True)]).float()
    return flat.new_zeros(asked.tokens.shape[1], flat.shape[1]).index_add(0, asked.looks, flat)


def _by_transformers(model: Any, asked: PackedBatch) -> Tensor:
    """As transformers reads rows without padding, in the family's own attention, with its own head."""
    rows = asked.tokens[0][asked.looks].split(asked.seen)
    batches = [torch.stack(rows)] if len(set(asked.seen)) == 1 else [row[None] for row in rows]
    parts = [part for ids in batches for part in _outputs(model, ids)]
    lengths = asked.lengths.tolist()
    return torch.cat([part[-length - 1 : -1] for part, length in zip(parts, lengths, strict=True)])


def _outputs(model: Any, ids: Tensor) -> Tensor:
    """Log-probabilities, or states, at every token of (R, L)."""
    if hasattr(model, "score"):
        states: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return states.float()
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float().log_softmax(-1)


def _in_rows(model: Any, asked: PackedBatch) -> Tensor:
    if hasattr(model, "score"):
        return states_in_rows(model.base_model, asked)[asked.sources].float()
    return logits_in_rows(model, asked).float().log_softmax(-1)


def _in_pack(model: Any, asked: PackedBatch) -> Tensor:
    hidden = packed_states(model.base_model, asked)[asked.sources]
    return hidden.float() if hasattr(model, "score") else head(model)(hidden).float().log_softmax(-1)


@torch.no_grad()
def _drawn(model: Any, prompts: tuple[tuple[int, ...], ...], tokens: tuple[int, ...]) -> Tensor:
    """What may follow a token that was drawn after each prompt, which are kept in a cache; (prompts, V)."""
    cache = Cache.empty([len(ids) for ids in prompts], 1, 1, model.device)
    packed_states(model.base_model, _pack(model, *(SharedPrefix(ids, ((),)) for ids in prompts)), cache)
    hidden = next_states(model.base_model, torch.tensor(tokens, device=model.device), cache)
    return head(model)(hidden).float().log_softmax(-1)


@torch.no_grad()
def _head_is_known(model: Any, tokens: tuple[int, ...]) -> bool:
    """Whether the model makes the logits of its states that we make of them, of large ones too."""
    states: list[Tensor] = []

    def enlarge(module: nn.Module, args: Any, out: Any) -> Any:
        out.last_hidden_state = out.last_hidden_state * LARGE
        states.append(out.last_hidden_state[0])
        return out

    hook = model.base_model.register_forward_hook(enlarge)
    try:
        own = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits[0]
    finally:
        hook.remove()
    # where the body is not called as a whole, what the head does shows in the log-probabilities alone
    return not states or _alike(head(model)(states[0]).float(), own.float(), 10 * EQUAL)


def _alike(ours: Tensor, theirs: Tensor, close: float) -> bool:
    """Whether two are equal but for rounding, each row measured by how far it goes from its mean."""
    theirs = theirs.float()
    return bool((ours.float() - theirs).norm() <= close * (theirs - theirs.mean(-1, keepdim=True)).norm())
