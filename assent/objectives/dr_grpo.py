"""Dr. GRPO: GRPO without its two biases, towards long wrong answers and towards prompts that are all but decided.

    A_i = r_i - mean(group),  L = mean over completions of sum_t max(-A rho, -A clip(rho, 1 - low, 1 + high)) / length

Liu et al. 2025, "Understanding R1-Zero-like training" (arXiv:2503.20783).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from assent.objectives.grpo import GRPO
from assent.types import NonNegativeFloat


@dataclass(frozen=True)
class DrGRPO(GRPO):
    """GRPO with other values."""

    stage: ClassVar[str] = "online"

    beta: NonNegativeFloat = 0.0
    """Weight of the KL penalty; the paper does without."""
    scale_rewards: Literal["std", "none"] = "none"
    """Leave the scores of a group as they are."""
    loss_type: Literal["grpo", "dr_grpo", "dapo"] = "dr_grpo"
    """Divide by the constant `length`."""
