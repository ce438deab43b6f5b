"""Supervised fine-tuning: train on the completions of demonstrations, not on their prompts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from assent.errors import AssentError, warn
from assent.formats.files.importing import import_file
from assent.labelling.quality import annotator_weights
from assent.models.load import context_length, load_policy
from assent.models.packing import SharedPrefix
from assent.models.rendering import Unrenderable
from assent.models.tokenizer import ChatTokenizer
from assent.objectives.cross_entropy import CrossEntropy
from assent.preferences.convert import load_examples, prompt_for_split
from assent.records import SFTExample
from assent.run import BASE, Run
from assent.split import split
from assent.training.batching import count_steps
from assent.training.distributed import on_rank0
from assent.training.left_out import LeftOut
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from assent.training.stage import PolicyStage
from assent.training.supervised import TokenizedExample, evaluate, train_supervised
from assent.types import PositiveInt


class Demonstrations(NamedTuple):
    """Tokenized demonstrations."""

    train: list[TokenizedExample]
    held_out: list[TokenizedExample]
    left_out: LeftOut


@dataclass(frozen=True)
class SFT(PolicyStage):
    """Fine-tune the policy on demonstrations."""

    aim: ClassVar[str] = "the model imitates demonstrations"
    data: str = ""
    """File of demonstrations (prompt and completion, or messages) to import first; empty: those of the run."""
    policy: str = ""
    """Policy to train: a checkpoint of the run, a folder, a hub id; empty: `pretrain` if it has run, else the model."""
    max_length: PositiveInt = 1024
    """Maximum tokens of prompt and completion; longer ones are left out and counted."""
    objective: CrossEntropy = CrossEntropy()
    training: Training = Training(lr=2e-5, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        if self.data:
            reading = on_rank0(lambda: import_file(self.data, run.store))
            if reading.skipped:
                warn(f"{self.data}: {reading}")
        policy = self.policy or ("pretrain" if run.result("pretrain") is not None else BASE)
        language = load_policy(run.policy(policy), device=run.device, rendering=run.rendering)
        max_length = min(self.max_length, context_length(language.model))
        train, held_out, left_out = self._load_data(run, language.chat_tokenizer, max_length)

        steps = count_steps(len(train), self.training.batch_size, self.training.epochs)
        state = ReplicatedState(language, self.training, steps, run.dtype)
        train_supervised(run.folder, key, state, train, self.objective, run.seed)
        metrics = evaluate(key, state.model, held_out, self.objective, self.training.max_tokens_per_batch)
        state.save(run.folder / key)
        return {"demonstrations": len(train), "held_out": len(held_out), **left_out.report()} | metrics

    def _load_data(self, run: Run, tokenizer: ChatTokenizer, max_length: int) -> Demonstrations:
        weights = annotator_weights(run.store) if run.setup.weight_annotators else None
        examples = [example for example in load_examples(run.store, weights) if isinstance(example, SFTExample)]
        if not examples:
            raise AssentError(f"{run.folder} holds no demonstrations to train on: name a file with --data")
        data = _tokenize(examples, tokenizer, max_length, run.setup.held_out)
        if not data.train:
            raise AssentError(_explain_no_data(run, data, max_length))
        return data


def _tokenize(
    examples: Iterable[SFTExample], tokenizer: ChatTokenizer, max_length: int, held_out_fraction: float
) -> Demonstrations:
    train: list[TokenizedExample] = []
    held_out: list[TokenizedExample] = []
    left_out = LeftOut()
    for example in examples:
        try:
            ids = tokenizer.encode(example.prompt, example.completion)
        except Unrenderable as error:
            left_out.add_unrenderable(example.prompt, str(error))
            continue
        if len(ids.prompt_ids) + len(ids.completion_ids) > max_length:
            left_out.too_long += 1
            continue
        tokens = SharedPrefix(ids.prompt_ids, (ids.completion_ids,))
        is_held_out = split([prompt_for_split(example)], held_out_fraction).held_out
        (held_out if is_held_out else train).append(TokenizedExample(tokens, example.weight))
    return Demonstrations(train, held_out, left_out)


def _explain_no_data(run: Run, data: Demonstrations, max_length: int) -> str:
    """Return an error message that says why there is no training data."""
    reasons = [
        f"{data.left_out.too_long} are longer than {max_length} tokens (--max-length, or the model's context)",
        f"{len(data.held_out)} are held out",
    ]
    if data.left_out.unrenderable:
        reasons.append(f"{data.left_out.unrenderable} cannot be encoded; the first, {data.left_out.first}")
    return f"{run.folder} holds no demonstrations to train on: {', '.join(reasons)}"
