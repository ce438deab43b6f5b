"""Fit a reward model to comparisons: a scalar head on the policy's body, measured on prompts it was not trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from assent.batch import Loss, Scores
from assent.errors import AssentError, did_you_mean
from assent.functional.statistics import accuracy
from assent.limits import Count
from assent.models.attention import pack
from assent.models.forward import scores
from assent.models.load import context, load_reward, new_reward, save
from assent.models.tokenization import Codec
from assent.objectives.bradley_terry import BradleyTerry
from assent.preferences.convert import examples, split
from assent.protocols import Reward as Scorer
from assent.records import Preference, Purpose
from assent.registry import names, resolve
from assent.rewards.model import Model
from assent.store.runs import Run
from assent.training.batching import batch, steps_of
from assent.training.comparisons import Compared, columns, compare, weight
from assent.training.loop import train
from assent.training.meter import Bar
from assent.training.optimizer import Trainee, Training
from assent.training.parts import by_tree, descend

PURPOSES: tuple[Purpose, ...] = ("train", "evaluate")
"""Answers to queries about held-out prompts are for evaluation; imported ones were all asked for training."""


@dataclass(frozen=True)
class Reward:
    """Train a reward model on the comparisons and rankings of the run."""

    policy: str = ""
    """Whose body it starts from: a checkpoint of the run, a folder or a hub id; empty: this round's base policy."""
    max_tokens: Count = 1024
    """Pairs with a longer side (prompt and completion) are left out and counted."""
    objective: BradleyTerry = BradleyTerry()
    training: Training = Training(lr=9e-6, tokens_per_pack=1024)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        language = new_reward(run.policy(self.policy or run.base), run.seed, device=run.device)
        codec = language.codec
        kept, held, too_long = comparisons(run, codec, min(self.max_tokens, context(language.model)))
        steps = steps_of(len(kept), self.training.batch_size, self.training.epochs)
        trainee = Trainee(language, self.training, steps, run.dtype)

        def step(number: int) -> dict[str, float]:
            chosen = batch(kept, self.training.batch_size, number, run.seed)
            total = weight(chosen)

            def loss(part: list[int]) -> Loss:
                return self._loss(trainee.model, [chosen[i] for i in part], run.device, total)

            return descend(trainee, number, [c.tree for c in chosen], loss)

        train(run.folder, key, {"reward": trainee}, steps, step, self.training.save_every)
        result = self._measure(run, trainee.model, held, kept, key)
        save(trainee.finished(), run.folder / key)
        return {"pairs": sum(len(c.pairs) for c in kept), "prompts": len(kept), "too_long": too_long} | result

    def _loss(self, model: torch.nn.Module, chosen: list[Compared], device: torch.device, total: float) -> Loss:
        scored = scores(model, pack([c.tree for c in chosen]).to(device))
        rows = columns(chosen, device)
        return self.objective(
            Scores(scored[rows.chosen], scored[rows.rejected], rows.p_chosen, rows.margin, rows.weight, total)
        )

    @torch.no_grad()
    def _measure(self, run: Run, model: Any, held: list[Compared], kept: list[Compared], key: str) -> dict[str, Any]:
        """Held-out accuracy on decided pairs, and the scale of the scores (kept in the model's own configuration)."""
        scale = score_all(model, kept[:64], run.device, self.training.tokens_per_pack, f"{key}: scale")
        seen = torch.cat(scale)
        if not bool(seen.isfinite().all()) or float(seen.std()) == 0:
            raise AssentError("the reward model scores every answer alike: it has learned nothing; try another lr")
        model.config.reward_mean, model.config.reward_std = float(seen.mean()), float(seen.std())
        right: list[float] = []
        about: list[str] = []
        scored = score_all(model, held, run.device, self.training.tokens_per_pack, f"{key}: held-out")
        for example, values in zip(held, scored, strict=True):
            for pair in example.pairs:
                if pair.p_chosen != 0.5:
                    gap = float(values[pair.chosen] - values[pair.rejected]) * (1 if pair.p_chosen > 0.5 else -1)
                    right.append(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0)
                    about.append(example.prompt)
        if not right:
            return {}
        measured = accuracy(right, about)
        return {"accuracy": measured.rate, "low": measured.low, "high": measured.high, "n": measured.n}


def scorer(run: Run, name: str, tokens_per_pack: int = 2048) -> Scorer:
    """What scores answers: a file of rewards/, or a reward model (a checkpoint of the run, a folder, a hub id).

    Raises:
        AssentError: there is nothing of that name.
    """
    files = [file for file in names("rewards") if file != "model"]
    if name in files:
        made: Scorer = resolve("rewards", name)()
        return made
    if "/" not in name and name not in run.models and not Path(name).is_dir():
        raise AssentError(f"no reward '{name}'{did_you_mean(name, [*files, *run.models])}")
    return Model(load_reward(run.policy(name), run.dtype, run.device), tokens_per_pack)


def comparisons(
    run: Run, codec: Codec, max_tokens: int, ties: bool = True
) -> tuple[list[Compared], list[Compared], int]:
    """The run's comparisons as trees: (to train on, held out, how many pairs were too long).

    Args:
        ties: whether pairs that nobody preferred a side of come along.

    Raises:
        AssentError: there are none.
    """
    store = run.store
    prompts = list(store.prompts())
    queries, responses = list(store.queries()), list(store.responses())
    said = [event for event in store.feedback() if not event.annotator.startswith("judge:")]
    made = [e for purpose in PURPOSES for e in examples(said, queries, prompts, responses, purpose=purpose)]
    preferences = [p for p in made if isinstance(p, Preference) and (ties or p.p_chosen != 0.5)]
    if not preferences:
        raise AssentError(
            f"{run.folder} holds no comparisons: 'assent label' makes some, 'assent import' reads a file of them"
        )
    sides = split(prompts, run.setup.held_out)
    kept, long_kept = compare((p for p in preferences if p.prompt.id in sides.train), codec, max_tokens)
    held, long_held = compare((p for p in preferences if p.prompt.id in sides.held_out), codec, max_tokens)
    if not kept:
        raise AssentError(
            f"all comparisons of {run.folder} are about held-out prompts: take another --run with a lower --held-out"
        )
    return kept, held, long_kept + long_held


@torch.no_grad()
def score_all(model: Any, examples: list[Compared], device: torch.device, tokens: int, name: str) -> list[torch.Tensor]:
    """The score of every completion, a tensor (K,) for each example."""
    with Bar(name, len(examples)) as bar:
        trees = [example.tree for example in examples]
        return by_tree(trees, tokens, lambda some: scores(model, pack(some).to(device)), bar.advance)
