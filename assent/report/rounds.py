"""The results in a run folder: what finished stages reported, round by round."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from assent.run import read_run_recipe
from assent.stage_files import read_result

Result = Mapping[str, Any]
"""What a finished stage reported: done/NAME.json."""


class StageKey(NamedTuple):
    """A stage and its round: `ppo-2` is `ppo` in round 2."""

    stage: str
    round: int

    def __str__(self) -> str:
        return self.stage if self.round == 1 else f"{self.stage}-{self.round}"


class Round(NamedTuple):
    """What was measured in one round."""

    number: int
    evaluation: Result
    """What `evaluate` reported; empty: it has not finished."""
    reward: Result
    """What `reward` reported; empty: it has not finished."""

    @property
    def policies(self) -> Mapping[str, Result]:
        """Every policy that was measured, the baseline first."""
        policies: Mapping[str, Result] = self.evaluation.get("policies", {})
        return policies

    @property
    def compared(self) -> dict[str, Result]:
        """Policies that were compared with the baseline, judged or not."""
        return {name: policy for name, policy in self.policies.items() if "win" in policy}

    @property
    def agreement(self) -> Result:
        """Agreement of the reward model with the judge; empty: not measured."""
        return self.evaluation.get("reward_model") or {}


def find_rounds(results: Mapping[str, Result]) -> list[Round]:
    """Return the rounds that measured something, in order."""
    keys = [parse_key(key) for key in results]
    numbers = sorted({key.round for key in keys if key.stage in ("evaluate", "reward")})
    return [
        Round(number, *(results.get(str(StageKey(stage, number)), {}) for stage in ("evaluate", "reward")))
        for number in numbers
    ]


def is_judged(policy: Result) -> bool:
    """Return whether a compared policy has a vote; it has no win rate without one."""
    return bool(policy["win"]["n"])


def last_compared(rounds: Iterable[Round]) -> Round | None:
    """Return the last round that compared policies."""
    return next((item for item in reversed(list(rounds)) if item.compared), None)


def last_measured(rounds: Iterable[Round], measure: str) -> Round | None:
    """Return the last round in which some policy has a measure, such as `calibration`."""
    return next((item for item in reversed(list(rounds)) if measured(item, measure)), None)


def measured(round_: Round, measure: str) -> dict[str, Result]:
    """Return a measure of every policy that has it, by the policy's name, the baseline first."""
    return {name: policy[measure] for name, policy in round_.policies.items() if policy.get(measure)}


def parse_key(key: str) -> StageKey:
    """Split the name of a stage in a round."""
    match = re.fullmatch(r"(.+)-(\d+)", key)
    return StageKey(match[1], int(match[2])) if match else StageKey(key, 1)


def read_results(folder: Path) -> dict[str, Result]:
    """Return what every finished stage reported, in the order in which the stages began."""
    results = {path.stem: read_result(path) for path in sorted((folder / "done").glob("*.json"))}
    begun = [key for key in read_run_recipe(folder) if key in results]
    return {key: results[key] for key in [*begun, *(key for key in results if key not in begun)]}
