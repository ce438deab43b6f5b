"""A run is a folder: its recipe, its feedback, its checkpoints and its measurements.

It holds everything that a killed process needs to go on:

    recipe.toml      the resolved settings of every stage that ran here
    feedback.db      prompts, responses, tasks, feedback
    metrics.jsonl    one line a step: stage, step, seconds and the metrics
    done/NAME.json   what a finished stage reported
    NAME/            a checkpoint: a Hugging Face folder
    replaced/NAME/   the old result of a stage that `--overwrite` reruns, until the new one is complete
    state/NAME/      an unfinished stage: weights, optimizer, step
    tensorboard/     the same curves for TensorBoard
    report.html
"""

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval

from assent.config import override, read_recipe, settings, table, write_recipe
from assent.errors import AssentError
from assent.files import write_atomically
from assent.functional.finite import replace_nonfinite
from assent.legacy import MARK, rewrite_folder, translate_recipe
from assent.stage_files import StageFiles
from assent.stage_names import POLICY_STAGES, policy_training_stages
from assent.types import Fraction, PositiveInt

if TYPE_CHECKING:
    import torch

    from assent.models.rendering import Rendering
    from assent.store.database import Store

BASE = "base"
"""Name of the model that a run starts from."""


@dataclass(frozen=True)
class Setup:
    """Settings that all stages of a run share."""

    run: Path = Path("runs/default")
    """The run's folder, which is created or continued."""
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """The base model: a Hugging Face hub id, a folder, or a .gguf file."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Seed of every random draw: the same seed on the same machine gives the same run."""
    held_out: Fraction = 0.3
    """Fraction of prompts that nothing is trained on, selected by a hash of each prompt."""
    round: PositiveInt = 1
    """Round of the loop; from the second on, names end in `-2`, `-3`."""
    database: str = ""
    """Database of the feedback, such as postgresql+psycopg://user@host/name; empty: `feedback.db` in the run."""
    weight_annotators: bool = False
    """Weight the training examples by the estimated reliability of their annotators."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto: a GPU where there is one."""
    template_args: str = ""
    """Arguments of the chat template, separated by commas, such as `enable_thinking=false`."""
    date: str = ""
    """Date in chat templates, such as 2026-11-30; empty: the day on which the run began."""
    dtype: str = "auto"
    """float32, or bfloat16 with float32 master weights in training; auto: bfloat16 where the hardware multiplies it."""


@dataclass
class Run:
    """An open run folder."""

    setup: Setup
    recipe: dict[str, Any] = field(default_factory=dict)
    """The content of `recipe.toml`: the set-up, and a table for each stage."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.setup.run

    @property
    def round(self) -> int:
        """The round of the loop, from 1."""
        return self.setup.round

    @property
    def seed(self) -> int:
        """The seed of every draw."""
        return self.setup.seed

    def key(self, stage: str) -> str:
        """Return a stage's name in this round: `ppo`, then `ppo-2`, `ppo-3`."""
        return stage if self.round == 1 or stage in POLICY_STAGES else f"{stage}-{self.round}"

    @cached_property
    def store(self) -> "Store":
        """The run's database, open."""
        from assent.store.database import Store

        return Store.open(self.setup.database or self.folder / "feedback.db")

    @cached_property
    def rendering(self) -> "Rendering":
        """The arguments with which this run renders chat templates."""
        from assent.models.rendering import Rendering

        return Rendering.parse(self.setup.template_args, self.setup.date)

    @cached_property
    def device(self) -> "torch.device":
        """The device of this run's models."""
        from assent.devices import resolve_device

        return resolve_device(self.setup.device)

    @cached_property
    def dtype(self) -> "torch.dtype":
        """The number format of this run's models."""
        from assent.devices import resolve_dtype

        return resolve_dtype(self.setup.dtype, self.device)

    def claim(self, stage: str, table: Mapping[str, Any]) -> bool:
        """Write a stage's settings into the run's recipe before it starts; return whether they are new there.

        Raises:
            AssentError: the stage was started here with other settings.
        """
        key = self.key(stage)
        earlier = self.recipe.get(key)
        if earlier is not None:
            # Settings missing from the recipe are newer than it: their defaults apply.
            changed = next((name for name, value in earlier.items() if value != table.get(name)), "")
            if changed:
                raise AssentError(
                    f"{self.folder} holds '{key}' with {changed} = {earlier.get(changed)!r}, "
                    f"not {table.get(changed)!r}: use another --run, or rerun '{key}' with --overwrite"
                )
            return False
        self.recipe[key] = dict(table)
        self._write_recipe()
        return True

    def unclaim(self, stage: str) -> None:
        """Remove the settings of a failed attempt that left no files."""
        key = self.key(stage)
        if not StageFiles(self.folder, key).has_outputs:
            self.recipe.pop(key, None)
            self._write_recipe()

    def result(self, key: str) -> dict[str, Any] | None:
        """Return what a finished stage reported, or None if it has not finished."""
        return StageFiles(self.folder, key).read_result()

    def finish(self, stage: str, result: Mapping[str, Any]) -> None:
        """Mark a stage as finished; its resumable state is no longer needed."""
        text = json.dumps(replace_nonfinite(result), indent=1, allow_nan=False)
        StageFiles(self.folder, self.key(stage)).write_result(text + "\n")

    def move_aside(self, stage: str, table: Mapping[str, Any]) -> None:
        """Prepare a rerun of a stage with these settings; `restore` undoes it, `finish` makes it final.

        Settings, state, checkpoint, result and measurements are moved aside, so that a kill at any moment does no harm;
        feedback is never touched. A stopped attempt continues if the settings are the same.
        """
        key = self.key(stage)
        files = StageFiles(self.folder, key)
        if files.is_moved_aside and files.read_result() is None:
            # A stopped attempt left this: what it replaces is finished work, and stays aside.
            if self.recipe.get(key) != dict(table):
                files.delete_outputs()
        else:
            files.move_aside(self.recipe.get(key))
        self.recipe.pop(key, None)
        self._write_recipe()

    def restore(self, stage: str) -> bool:
        """Move back what a new attempt was to replace; return whether there was any."""
        key = self.key(stage)
        files = StageFiles(self.folder, key)
        restored = files.restore()
        if restored is None:
            return False
        self.recipe.pop(key, None)
        if restored.settings is not None:
            self.recipe[key] = restored.settings
        self._write_recipe()
        files.finish_restoring()
        return restored.has_files

    def _write_recipe(self) -> None:
        write_atomically(self.folder / "recipe.toml", write_recipe(self.recipe))

    def policy(self, name: str) -> str:
        """Return the path or hub id of a policy: of `base`, of a finished stage of this run, or the name itself.

        Raises:
            AssentError: a name that is neither a policy of the run, nor a folder, a file or a hub id.
        """
        if name == BASE:
            return self.setup.model
        if (self.folder / name / "config.json").exists():
            return str(self.folder / name)
        if "/" in name or Path(name).is_dir() or name.endswith(".gguf"):
            return name
        policies = ", ".join((BASE, *self.models))
        raise AssentError(f"no policy '{name}' in {self.folder} (it has: {policies}): train it, or name another")

    @property
    def models(self) -> list[str]:
        """The names of this run's checkpoints."""
        return sorted(path.parent.name for path in self.folder.glob("*/config.json"))

    @property
    def initial_policy(self) -> str:
        """The policy that the first round starts from."""
        return next((name for name in reversed(POLICY_STAGES) if self.result(name) is not None), BASE)

    @property
    def base_policy(self) -> str:
        """The policy that this round generates with and improves."""
        if self.round == 1:
            return self.initial_policy
        suffix = "" if self.round == 2 else f"-{self.round - 1}"
        policy_stage: str = self.recipe.get("policy_stage", "")
        if policy_stage:
            return f"{policy_stage}{suffix}"
        stages = [name for name in self.recipe if name.endswith(suffix)]
        improved = [name for name in stages if name.removesuffix(suffix) in policy_training_stages()]
        trained = [name for name in improved if (self.folder / name / "config.json").exists()]
        return trained[0] if trained else f"ppo{suffix}"


def control_folder(folder: Path) -> Path:
    """Return the folder of a run's negative control."""
    return folder.with_name(f"{folder.name}-control")


def open_store(folder: Path) -> "Store":
    """Open the store of a run folder, wherever its recipe says that it is."""
    from assent.store.database import Store

    return Store.open(read_run_recipe(folder).get("database") or folder / "feedback.db")


def read_run_recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe of a run folder with today's names; empty: it has none."""
    path = folder / "recipe.toml"
    return translate_recipe(read_recipe(path)) if path.exists() else {}


def continue_setup(setup: Setup, given: Iterable[str]) -> tuple[Setup, dict[str, Any]]:
    """Return a set-up with the run's own settings for those that are not given, and the recipe of the run's folder."""
    earlier = read_run_recipe(setup.run)
    kept = {key: value for key, value in earlier.items() if key in settings(setup) and key not in {"run", *given}}
    return override(setup, kept, str(setup.run / "recipe.toml")), earlier


@contextmanager
def open_run(setup: Setup) -> Iterator[Run]:
    """Create or continue a run folder and lock it: one process at a time writes there.

    Raises:
        AssentError: the folder belongs to a run with other settings, is in use, or cannot be written.
    """
    _ = Run(setup).rendering  # a mistyped date is refused before a folder is created for it
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
        saved = read_recipe(path) if path.exists() else {}
        recipe = translate_recipe(saved)
        if not setup.date:
            setup = replace(setup, date=recipe.get("date") or datetime.now(UTC).date().isoformat())
        run = Run(setup, _merge_setup(setup, recipe))
        if MARK in saved:  # a folder of version 0.1; its recipe is written last
            rewrite_folder(setup.run)
        run._write_recipe()
        yield run


def _merge_setup(setup: Setup, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's recipe together with the set-up.

    Raises:
        AssentError: a stage has run in this folder with another set-up.
    """
    has_begun = any(isinstance(value, dict) for value in recipe.values())  # an import alone fixes no setting
    setup_table = {name: value for name, value in table(setup).items() if name not in ("run", "round")}
    if not has_begun:
        return {**recipe, **setup_table}
    for name, value in setup_table.items():
        if name in recipe and recipe[name] != value and name not in ("device", "dtype"):
            raise AssentError(
                f"{setup.run} is a run with {name} = {recipe[name]!r}, not {value!r}: "
                f"use another --run, or leave {name} out"
            )
    return {**recipe, **setup_table, **recipe}
