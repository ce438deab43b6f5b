"""Supervised fine-tuning: learn to answer like the demonstrations; only the answers are trained on."""

from dataclasses import dataclass
from typing import Any

from assent.errors import AssentError, warn
from assent.formats.files.exchange import load
from assent.labelling.quality import reliabilities
from assent.models.attention import SharedPrefix
from assent.models.load import context, load_policy
from assent.models.tokenizer import Unrenderable
from assent.objectives.cross_entropy import CrossEntropy
from assent.preferences.convert import about, examples
from assent.records import SFTExample
from assent.run import Run
from assent.split import split
from assent.training.batching import steps_of
from assent.training.distributed import on_rank0
from assent.training.left_out import LeftOut
from assent.training.replicated import Training, TrainState
from assent.training.stage import PolicyStage
from assent.training.supervised import TokenizedExample, measure, train_supervised
from assent.types import PositiveInt


@dataclass(frozen=True)
class SFT(PolicyStage):
    """Fine-tune the policy on demonstrations."""

    data: str = ""
    """A file of demonstrations (prompt and completion, or messages), read into the run first; empty: those it holds."""
    policy: str = ""
    """What it starts from: a checkpoint of the run, a folder, a hub id; empty: `pretrain` if there, else the model."""
    max_length: PositiveInt = 1024
    """Demonstrations with more tokens (prompt and answer) are left out and counted."""
    objective: CrossEntropy = CrossEntropy()
    training: Training = Training(lr=2e-5, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        if self.data:
            reading = on_rank0(lambda: load(self.data, run.store))
            if reading.rejected:
                warn(f"{self.data}: {reading}")
        start = self.policy or ("pretrain" if run.result("pretrain") is not None else "start")
        language = load_policy(run.policy(start), device=run.device, rendering=run.rendering)
        codec = language.codec
        store, limit = run.store, min(self.max_length, context(language.model))
        weights = reliabilities(store) if run.setup.weight_annotators else None
        made = examples(store.feedback(), store.tasks(), store.prompts(), store.responses(), weights)
        shown = [(about(example), example) for example in made if isinstance(example, SFTExample)]
        held = split((prompt for prompt, _ in shown), run.setup.held_out).held_out
        sides: tuple[list[TokenizedExample], list[TokenizedExample]] = ([], [])
        left_out = LeftOut()
        for decides, example in shown:
            try:
                prompt, completion = codec.encode(example.prompt, example.completion)
            except Unrenderable as error:
                left_out.refuse(example.prompt, str(error))
                continue
            left_out.too_long += len(prompt) + len(completion) > limit
            if len(prompt) + len(completion) <= limit:
                sides[decides.id in held].append(TokenizedExample(SharedPrefix(prompt, (completion,)), example.weight))
        if not sides[0]:
            why = f"{left_out.too_long} are longer than {limit} tokens, {len(sides[1])} held out"
            why += f", {left_out.refused} cannot be encoded; the first, {left_out.first}" if left_out.refused else ""
            raise AssentError(
                f"{run.folder} holds no demonstrations to train on: " + (why if shown else "name a file with --data")
            )
        steps = steps_of(len(sides[0]), self.training.batch_size, self.training.epochs)
        trainee = TrainState(language, self.training, steps, run.dtype)
        train_supervised(run.folder, key, trainee, sides[0], self.objective, run.seed)
        measured = measure(key, trainee.model, sides[1], self.objective, self.training.max_tokens_per_batch)
        trainee.save(run.folder / key)
        return {"demonstrations": len(sides[0]), "held_out": len(sides[1]), **left_out.report()} | measured
