"""assent trains language models on human preferences."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assent.api import Run
    from assent.errors import AssentError
    from assent.records import Completion, Preference, Prompt, Response
    from assent.rlhf import RLHF, ClipRewards, Environment, Prompts, RewardModel

__all__ = [
    "RLHF",
    "AssentError",
    "ClipRewards",
    "Completion",
    "Environment",
    "Preference",
    "Prompt",
    "Prompts",
    "Response",
    "RewardModel",
    "Run",
]

_MODULES = {
    "Run": "assent.api",
    **dict.fromkeys(("RLHF", "ClipRewards", "Environment", "Prompts", "RewardModel"), "assent.rlhf"),
    **dict.fromkeys(("Completion", "Preference", "Prompt", "Response"), "assent.records"),
    "AssentError": "assent.errors",
}


def __getattr__(name: str) -> Any:
    """Import a name on first use, so that `import assent` is fast."""
    if name == "__version__":
        from importlib.metadata import version

        return version("assent")
    if name not in _MODULES:
        raise AttributeError(f"module 'assent' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)
