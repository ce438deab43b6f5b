"""Dr. GRPO: GRPO without its biases towards long completions and prompts of little variance.

    A_i = r_i - mean(group)
    L = mean over completions of sum_t max(-A rho, -A clip(rho, 1 - low, 1 + high)) / max_completion_length

Liu et al. 2025, "Understanding R1-Zero-like training" (arXiv:2503.20783).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from assent.objectives.grpo import GRPO
from assent.types import NonNegativeFloat


@dataclass(frozen=True)
class DrGRPO(GRPO):
    """GRPO with other defaults."""

    stage: ClassVar[str] = "online"

    beta: NonNegativeFloat = 0.0
    """Weight of the KL penalty; the paper has none."""
    scale_rewards: Literal["group", "none"] = "none"
    """Do not divide advantages by the group's standard deviation."""
    loss_type: Literal["grpo", "dr_grpo", "dapo"] = "dr_grpo"
    """Divide by `max_completion_length`."""
