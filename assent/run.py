"""A run is a folder: its recipe, its feedback, its checkpoints, what it measured.

It holds everything that a killed process needs to go on:

    recipe.toml      the resolved settings of every stage that ran here
    feedback.db      prompts, responses, queries, feedback
    metrics.jsonl    one line a step: stage, step, seconds and the metric words
    done/NAME.json   what a finished stage reported
    NAME/            a checkpoint: a Hugging Face folder
    replaced/NAME/   what `--overwrite` does afresh, until the new one is there
    state/NAME/      an unfinished stage: weights, optimiser, step
    tensorboard/     the same curves for TensorBoard
    report.html
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval

from assent.config import read_recipe, write_recipe
from assent.errors import AssentError
from assent.files import write_atomically
from assent.functional.finite import finite
from assent.registry import names
from assent.types import Fraction, PositiveInt

if TYPE_CHECKING:
    import torch

    from assent.models.tokenizer import Rendering
    from assent.store.database import Store

POLICY_STAGES = ("pretrain", "sft")
"""Stages that prepare the policy before the first round, in order."""


def policy_optimisers() -> tuple[str, ...]:
    """Names of what improves the policy in a round: objectives, and a stage of its own."""
    return (*names("objectives"), "rejection")


@dataclass(frozen=True)
class Setup:
    """What all stages of a run share."""

    run: Path = Path("runs/default")
    """The run's folder: made if missing, continued if there."""
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """The model to start from: a Hugging Face hub id, a folder, or a .gguf file."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Decides every draw: the same seed on the same machine gives the same run."""
    held_out: Fraction = 0.3
    """Share of prompts that nothing is trained on; decided by each prompt's own content."""
    round: PositiveInt = 1
    """Which time round the loop this is: names end in `-2`, `-3` from the second on."""
    database: str = ""
    """Where the feedback lies, postgresql+psycopg://user@host/name for instance; empty: `feedback.db` in the run."""
    weight_annotators: bool = False
    """In training, let each annotator's answers weigh as much as they are found reliable, instead of all alike."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""
    template_args: str = ""
    """Arguments of the chat template, such as `enable_thinking=false`; commas part several."""
    date: str = ""
    """The date that chat templates write, such as 2026-11-30; empty: the day on which the run began."""
    dtype: str = "auto"
    """float32, bfloat16 (with float32 master weights in training); auto: bfloat16 where the processor multiplies it."""


@dataclass
class Run:
    """An open run folder."""

    setup: Setup
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.setup.run

    @property
    def round(self) -> int:
        return self.setup.round

    @property
    def seed(self) -> int:
        return self.setup.seed

    def key(self, stage: str) -> str:
        """A stage's name in this round: `ppo`, then `ppo-2`, `ppo-3`."""
        return stage if self.round == 1 or stage in POLICY_STAGES else f"{stage}-{self.round}"

    @cached_property
    def store(self) -> "Store":
        from assent.store.database import Store

        return Store.open(self.setup.database or self.folder / "feedback.db")

    @cached_property
    def rendering(self) -> "Rendering":
        """How chat templates are rendered in this run."""
        from assent.models.tokenizer import Rendering

        return Rendering.parse(self.setup.template_args, self.setup.date)

    @cached_property
    def device(self) -> "torch.device":
        import torch

        if self.setup.device != "auto":
            try:
                if self.setup.device.split(":")[0] not in ("cpu", "cuda", "mps"):
                    raise RuntimeError("it can be auto, cpu, cuda, cuda:1 or mps")
                return torch.empty(0, device=self.setup.device).device
            except (RuntimeError, AssertionError) as error:
                raise AssentError(f"no device '{self.setup.device}' here: {str(error).splitlines()[0]}") from None
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # torchrun numbers its processes
        return torch.device("cpu")

    @cached_property
    def dtype(self) -> "torch.dtype":
        import torch

        if self.setup.dtype != "auto":
            if self.setup.dtype not in ("float32", "bfloat16"):
                raise AssentError(f"dtype is '{self.setup.dtype}'; it can be auto, float32 or bfloat16")
            return torch.float32 if self.setup.dtype == "float32" else torch.bfloat16
        if self.device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
        fast = self.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32

    def claim(self, stage: str, table: Mapping[str, Any]) -> bool:
        """Write a stage's settings into the run's recipe before it starts; whether they are new there.

        Raises:
            AssentError: the stage was started here with other settings.
        """
        key = self.key(stage)
        before = self.recipe.get(key)
        # a setting that the run does not know came with a later version, whose default is what was done before
        changed = next((name for name, value in (before or {}).items() if value != table.get(name)), "")
        if before is not None and changed:
            raise AssentError(
                f"{self.folder} holds '{key}' made with {changed} = {before.get(changed)!r}, "
                f"not {table.get(changed)!r}: use another --run, or start '{key}' afresh with --overwrite"
            )
        if before is None:
            self.recipe[key] = dict(table)
            write_atomically(self.folder / "recipe.toml", write_recipe(self.recipe))
        return before is None

    def unclaim(self, stage: str) -> None:
        """Forget the settings of an attempt that failed and left nothing that they describe."""
        key = self.key(stage)
        if not any(path.exists() for path in self._left(key).values()):
            self.recipe.pop(key, None)
            write_atomically(self.folder / "recipe.toml", write_recipe(self.recipe))

    def _left(self, key: str) -> dict[str, Path]:
        """What a stage leaves; its result last, for it is what says that the stage is done."""
        return {
            "model": self.folder / key,
            "state": self.folder / "state" / key,
            "result": self.folder / "done" / f"{key}.json",
        }

    def result(self, key: str) -> dict[str, Any] | None:
        """What a finished stage reported, or None if it has not finished."""
        path = self.folder / "done" / f"{key}.json"
        return read_result(path) if path.exists() else None

    def finish(self, stage: str, result: Mapping[str, Any]) -> None:
        """Mark a stage as finished; its resumable state is no longer needed."""
        import shutil

        key = self.key(stage)
        shutil.rmtree(self.folder / "replaced" / key, ignore_errors=True)
        text = json.dumps(finite(result), indent=1, allow_nan=False)
        write_atomically(self.folder / "done" / f"{key}.json", text + "\n")
        shutil.rmtree(self.folder / "state" / key, ignore_errors=True)

    def move_aside(self, stage: str, table: Mapping[str, Any]) -> None:
        """Make room for a stage to be done afresh with these settings; `bring_back` undoes it, `finish` seals it.

        Settings, state, checkpoint, result and measurements are put aside, so that a kill at any moment does no harm;
        feedback is never touched. An attempt that was stopped goes on if it is asked for with the same settings.
        """
        import shutil

        key = self.key(stage)
        aside = self.folder / "replaced" / key
        if aside.exists() and self.result(key) is None:  # what a stopped attempt replaces is worth more than it
            if self.recipe.get(key) != dict(table):
                for path in self._left(key).values():
                    shutil.rmtree(path, ignore_errors=True)
        else:
            aside.mkdir(parents=True, exist_ok=True)
            there = {name: path for name, path in self._left(key).items() if path.exists()}
            if not (aside / "before.json").exists():
                before = {
                    "settings": self.recipe.get(key),
                    "left": list(there),
                    "metrics": self._metrics(key, mine=True),
                }
                write_atomically(aside / "before.json", json.dumps(before))
                write_atomically(self.folder / "metrics.jsonl", "".join(self._metrics(key, mine=False)))
            for name, path in there.items():
                path.rename(aside / name)
        self.recipe.pop(key, None)
        write_atomically(self.folder / "recipe.toml", write_recipe(self.recipe))

    def restore(self, stage: str) -> bool:
        """Put in place what a new attempt was to replace; whether there was any."""
        import shutil

        key = self.key(stage)
        aside = self.folder / "replaced" / key
        if not (aside / "before.json").exists():
            return False
        before = read_result(aside / "before.json")
        for name, path in self._left(key).items():
            kept = aside / name
            if kept.exists() or name not in before["left"]:
                shutil.rmtree(path, ignore_errors=True)
            if kept.exists():
                kept.rename(path)
        self.recipe.pop(key, None)
        if before["settings"] is not None:
            self.recipe[key] = before["settings"]
        write_atomically(self.folder / "recipe.toml", write_recipe(self.recipe))
        write_atomically(self.folder / "metrics.jsonl", "".join(self._metrics(key, mine=False) + before["metrics"]))
        shutil.rmtree(aside)
        return bool(before["left"])

    def _metrics(self, key: str, mine: bool) -> list[str]:
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        own = f'{{"stage": "{key}",', f'{{"stage": "{key}/'  # and of the members of an ensemble
        return [line for line in lines if line.startswith(own) == mine]

    def policy(self, name: str) -> str:
        """Where a policy lies: `start`, a finished stage of this run, or else a folder or hub id as given.

        Raises:
            AssentError: a name that is neither.
        """
        if name == "start":
            return self.setup.model
        if (self.folder / name / "config.json").exists():
            return str(self.folder / name)
        if "/" in name or Path(name).is_dir() or name.endswith(".gguf"):
            return name
        have = ["start", *self.models]
        raise AssentError(f"no policy '{name}' in {self.folder} (there: {', '.join(have)}): train it, or name another")

    @property
    def models(self) -> list[str]:
        """Checkpoints of this run."""
        return sorted(path.parent.name for path in self.folder.glob("*/config.json"))

    @property
    def base(self) -> str:
        """The policy that this round generates with and improves."""
        if self.round > 1:
            before = "" if self.round == 2 else f"-{self.round - 1}"
            trained = [
                name
                for name in self.recipe
                if name.endswith(before) and name.removesuffix(before) in policy_optimisers()
            ]
            trained = [name for name in trained if (self.folder / name / "config.json").exists()]
            carried: str = self.recipe.get("carry", "")
            return f"{carried}{before}" if carried else trained[0] if trained else f"ppo{before}"
        return next((name for name in reversed(POLICY_STAGES) if self.result(name) is not None), "start")


def store_of(folder: Path) -> "Store":
    """The store of a run folder, wherever its recipe says that it lies."""
    from assent.store.database import Store

    path = folder / "recipe.toml"
    recipe = read_recipe(path) if path.exists() else {}
    return Store.open(recipe.get("database") or folder / "feedback.db")


def read_result(path: Path) -> dict[str, Any]:
    """What a finished stage reported.

    Raises:
        AssentError: the file is broken.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise AssentError(f"{path} is broken: delete it to do this stage again") from None
    return found


@contextmanager
def open_run(setup: Setup) -> Iterator[Run]:
    """Make or continue a run folder and hold it: one process at a time writes there.

    Raises:
        AssentError: the folder belongs to a run with another set-up, is in use, or cannot be written.
    """
    from assent.config import table

    _ = Run(setup).rendering  # a mistyped date is refused before a folder is made for it
    try:
        (setup.run / "done").mkdir(parents=True, exist_ok=True)
        lock = open(setup.run / ".lock", "a+")  # noqa: SIM115 (held as long as the run is)
    except OSError as error:
        raise AssentError(f"cannot make the run folder {setup.run}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AssentError(f"another process works in {setup.run}: wait for it, or use another --run") from None
        path = setup.run / "recipe.toml"
        recipe = read_recipe(path) if path.exists() else {}
        if not setup.date:
            setup = replace(setup, date=recipe.get("date") or datetime.now(UTC).date().isoformat())
        begun = any(isinstance(value, dict) for value in recipe.values())  # an import alone decides nothing
        mine = {name: value for name, value in table(setup).items() if name not in ("run", "round")}
        for name, value in mine.items():
            if begun and name in recipe and recipe[name] != value and name not in ("device", "dtype"):
                raise AssentError(
                    f"{setup.run} is a run with {name} = {recipe[name]!r}, not {value!r}: "
                    f"use another --run, or leave {name} out"
                )
        run = Run(setup, recipe={**recipe, **mine, **(recipe if begun else {})})
        write_atomically(path, write_recipe(run.recipe))
        yield run
