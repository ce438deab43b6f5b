"""Names and numbers as the report writes them."""

import re
from collections.abc import Mapping
from typing import Any

from assent.registry import describe, names
from assent.report.rounds import parse_key

DISPLAY_NAMES = {"base": "base model", "reward": "reward model", "sft": "SFT"}


def display_name(key: str) -> str:
    """Return the name of a stage or policy: `ppo-2` is PPO-2, `dr_grpo` is Dr. GRPO, `best_of_n` is best of n."""
    stage, number = parse_key(key)
    if stage in names("objectives"):
        name = describe("objectives", stage).partition(":")[0]
    elif stage in names("stages"):
        name = DISPLAY_NAMES.get(stage, stage.replace("_", " "))
    else:
        return DISPLAY_NAMES.get(key, key)
    return f"{name}-{number}" if number > 1 else name


def name_in_sentence(key: str) -> str:
    """Return the display name with its article: `the base model`, `PPO`."""
    name = display_name(key)
    return f"the {name}" if " " in name else name


def name_at_start(key: str) -> str:
    """Return the display name as it begins a sentence: `The base model`, `PPO`."""
    name = name_in_sentence(key)
    return f"The {name[4:]}" if name.startswith("the ") else name


def percent(share: float) -> str:
    """Return a share in percent: 0.8 is `80 %`."""
    return f"{100 * share:.0f} %"


def interval(rate: Mapping[str, Any]) -> str:
    """Return the 95 % limits of a rate in percent: `[72, 86]`."""
    return f"[{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"


def rate_or_reason(controlled: Mapping[str, Any]) -> str:
    """Return a win rate at equal length with its limits, or why there is none."""
    if controlled["is_controllable"] and controlled["low"] is not None:
        return f"{percent(controlled['rate'])} {interval(controlled)}"
    return controlled["reason"] or "one prompt"


def duration(seconds: float) -> str:
    """Return a duration: 8.2 s, 6 min 12 s, 2 h 05 min."""
    minutes, remainder = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{minutes} min {remainder:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def no_break(sentence: str) -> str:
    """Return a sentence that breaks neither between a number and its sign nor inside a name or an interval."""
    sentence = re.sub(r"(\[[\d.]+), (?=[\d.]+\])", "\\1,\u00a0", sentence.replace(" %", "\u00a0%"))
    return re.sub(r"(?<=\w)-(?=\w)", "\u2011", sentence)


def optional(value: float | None, digits: int = 2) -> str:
    """Return a number with so many digits after the point; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"
