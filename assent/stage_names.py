"""Names of stages, read from the folders without importing a stage or an objective."""

from assent.registry import declared, names

POLICY_STAGES = ("pretrain", "sft")
"""Stages that prepare the policy before the first round, in order."""
PREPARATION = ("pretrain", "abstain", "sft", "generate", "label", "reward")
"""Stages before the policy is optimised, in the order of the loop."""
OBJECTIVE_STAGES = ("offline", "unpaired", "online")
"""Stages without a command of their own: each objective that they run is one, such as `dpo`, `kto`, `ppo`."""


def objectives_of(stage: str) -> list[str]:
    """Return the objectives that a stage runs, sorted."""
    return [name for name in names("objectives") if declared("objectives", name, "stage") == stage]


def policy_objectives() -> list[str]:
    """Return the objectives that are commands."""
    return [name for stage in OBJECTIVE_STAGES for name in objectives_of(stage)]


def policy_training_stages() -> list[str]:
    """Return the commands that train a policy in a round."""
    return [*policy_objectives(), "rejection_sampling"]


def policy_commands() -> list[str]:
    """Return the commands that improve responses: policy training, and the selection of the best of n."""
    return [*policy_training_stages(), "best_of_n"]
