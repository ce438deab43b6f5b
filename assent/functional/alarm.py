"""Alarm of over-optimisation: the gold reward has fallen significantly below its best probe, several probes in a row.

Each probe scores the same M held-out prompts, so that a prompt's difficulty cancels in the paired differences between
the best probe so far and the present one. The best is a maximum of noisy means, which alone makes a single significant
fall at z = 2 a false alarm in two runs of three. By simulation (M = 64, 20 probes, sampling noise of 1, the gold reward
rises for 6 probes): z = 2.5 twice in a row has 2 to 4 % false alarms where the reward then stays, and reports a fall of
0.1 a probe 6 probes after the peak. tests/test_alarm.py repeats it.

That noise is of the completions alone. A policy also goes up and down from step to step, most visibly near the maximum,
where all completions score alike. So a fall has to cost a tenth of what training has gained, too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class AlarmState(NamedTuple):
    """The state of an alarm; that it fired is final, while the best probe is still updated."""

    step: int | None = None
    """Step of the last probe; None: no probe yet."""
    first_mean: float = 0.0
    """Mean of the first probe, from which the gain is measured."""
    best_step: int | None = None
    """Step of the probe with the highest mean, whose checkpoint to keep."""
    best_scores: tuple[float, ...] = ()  # (M,)
    fall: float = 0.0
    """Mean of best - present over prompts at the last probe, in units of the scores; below 0: a new best."""
    fall_se: float = 0.0
    """Standard error of `fall`."""
    falls: int = 0
    """Number of significant falls in a row, up to the last probe."""
    fired_at: int | None = None
    """Step at which the alarm fired; None: it has not."""

    @property
    def fired(self) -> bool:
        """Return whether the alarm ever fired."""
        return self.fired_at is not None

    @property
    def z_now(self) -> float:
        """Return the last probe's fall in standard errors; inf where every prompt fell by the same amount."""
        if self.fall_se > 0:
            return self.fall / self.fall_se
        return math.copysign(math.inf, self.fall) if self.fall else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the state as finite numbers, lists and None, for JSON; `from_dict` restores it exactly."""
        return {**self._asdict(), "best_scores": list(self.best_scores)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "AlarmState":
        """Return the state that `to_dict` wrote.

        Raises: ValueError if a field is missing or unknown.
        """
        if set(fields) != set(cls._fields):
            raise ValueError(f"a state has the fields {', '.join(cls._fields)}, not {', '.join(map(str, fields))}")
        return cls(**{**fields, "best_scores": tuple(fields["best_scores"])})


@dataclass(frozen=True)
class Alarm:
    """A one-sided paired test against the best probe, repeated at every probe."""

    z: float = 2.5
    """A fall is significant if its mean exceeds this many standard errors."""
    patience: int = 2
    """Number of significant falls in a row at which the alarm fires."""
    min_fall: float = 0.1
    """Smallest fall that counts, as a fraction of the gain from the first probe to the best."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.z) and self.z >= 0):
            raise ValueError(f"z is {self.z}: choose 0 or more")
        if self.patience < 1:
            raise ValueError(f"patience is {self.patience}: choose 1 or more")
        if not (math.isfinite(self.min_fall) and self.min_fall >= 0):
            raise ValueError(f"min_fall is {self.min_fall}: choose 0 or more")

    def update(self, state: AlarmState, step: int, scores: ArrayLike) -> AlarmState:
        """Return the state after one more probe; a new best mean resets the falls in a row.

        Where the differences are equal for all prompts, the standard error is 0: any such fall is significant, and no
        difference at all is not.

        Args:
            step: the training step of the probe, after that of the last.
            scores: (M,), M >= 2, gold rewards of the same prompts in the same order at every probe.
        Raises: ValueError for other shapes, scores that are not finite, or a step that is not after the last.
        """
        present = np.asarray(scores, dtype=np.float64)
        if present.ndim != 1 or len(present) < 2:
            raise ValueError(f"scores have shape {present.shape}: give (M,), one for each of two prompts or more")
        if not np.isfinite(present).all():
            raise ValueError(f"scores at step {step} have a value that is not finite: score every prompt")
        if state.step is not None and step <= state.step:
            raise ValueError(f"step {step} is not after step {state.step}: give probes in their order")
        if state.best_step is None:
            return state._replace(
                step=step, first_mean=float(present.mean()), best_step=step, best_scores=tuple(present.tolist())
            )
        if len(present) != len(state.best_scores):
            raise ValueError(f"{len(present)} scores after {len(state.best_scores)}: give the same prompts every time")
        difference = np.asarray(state.best_scores) - present  # (M,)
        fall = float(difference.mean())
        fall_se = float(difference.std(ddof=1)) / math.sqrt(len(difference))
        compared = state._replace(step=step, fall=fall, fall_se=fall_se)
        if fall < 0:
            return compared._replace(best_step=step, best_scores=tuple(present.tolist()), falls=0)
        gain = float(np.mean(state.best_scores)) - state.first_mean
        is_significant = fall > self.z * fall_se and fall >= self.min_fall * gain
        falls = state.falls + 1 if is_significant else 0
        fires = falls >= self.patience and not state.fired
        return compared._replace(falls=falls, fired_at=step if fires else state.fired_at)
