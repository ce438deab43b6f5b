"""DAPO: GRPO that lets rare tokens rise and counts every token alike, with no penalty.

    A as in GRPO,  L = mean over all tokens of max(-A rho, -A clip(rho, 1 - .2, 1 + .28))

Yu et al. 2025, eq. 8 (arXiv:2503.14476). Its dynamic sampling and its charge on overlong answers act on the
rollout: `redraw` and `overlong` of the stage.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from assent.objectives.grpo import GRPO
from assent.types import NonNegativeFloat, PositiveFloat


@dataclass(frozen=True)
class DAPO(GRPO):
    """GRPO with other values."""

    stage: ClassVar[str] = "online"

    beta: NonNegativeFloat = 0.0
    """Weight of the KL penalty; the paper does without."""
    epsilon_high: PositiveFloat = 0.28
    """How far above 1 a ratio still counts; above 0."""
    loss_type: Literal["grpo", "dr_grpo", "dapo"] = "dapo"
    """Divide by the step's tokens."""
