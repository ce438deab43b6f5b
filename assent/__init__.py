"""assent trains language models on what people prefer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assent.errors import AssentError
    from assent.records import Completion, Preference, Prompt, Response
    from assent.rlhf import RLHF, Prompts, RewardModel

__all__ = ["RLHF", "AssentError", "Completion", "Preference", "Prompt", "Prompts", "Response", "RewardModel"]

_HOMES = {
    **dict.fromkeys(("RLHF", "Prompts", "RewardModel"), "assent.rlhf"),
    **dict.fromkeys(("Completion", "Preference", "Prompt", "Response"), "assent.records"),
    "AssentError": "assent.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then, so that `import assent` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'assent' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
