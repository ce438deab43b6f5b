"""DAPO: GRPO with a higher upper clip, a mean over all tokens, and no KL penalty.

    A as in GRPO,  L = mean over all tokens of max(-A rho, -A clip(rho, 1 - .2, 1 + .28))

Yu et al. 2025, eq. 8 (arXiv:2503.14476). Its dynamic sampling and its penalty on overlong completions act on
the rollout: `dynamic_sampling` and `overlong_buffer` of the stage.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from assent.objectives.grpo import GRPO
from assent.types import NonNegativeFloat, PositiveFloat


@dataclass(frozen=True)
class DAPO(GRPO):
    """GRPO with other defaults."""

    stage: ClassVar[str] = "online"

    beta: NonNegativeFloat = 0.0
    """Weight of the KL penalty; the paper has none."""
    epsilon_high: PositiveFloat = 0.28
    """Clip of the ratio above 1; above 0."""
    loss_type: Literal["grpo", "dr_grpo", "dapo"] = "dapo"
    """Divide by the tokens of the step."""
