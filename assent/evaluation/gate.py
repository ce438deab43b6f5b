"""The gate before policy optimisation: it refuses a reward model of which nothing shows that it learned something.

Optimising such a model produces text that scores high and means nothing (Gao et al. 2022, arXiv:2210.10760). The limits
are those of a 95 % interval: of models that learned from random labels about one in forty passes.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from assent.errors import AssentError
from assent.run import Run

LENGTH_CORRELATION = 0.6
"""Correlation of score and length within prompts above which a model must beat the rule that the longer one wins."""

MIN_RATINGS = 4
"""Ratings below which a correlation has no interval."""


def check_gate(run: Run, rewards: Iterable[str]) -> None:
    """Check the report cards of reward models that this run trained; others have none.

    Raises:
        AssentError: one is refused; the message says why.
    """
    for name in rewards:
        result = run.result(name) if name.partition("-")[0] == "reward" else None
        if result is not None and (reason := refusal(result)):
            raise AssentError(
                f"the reward model '{name}' is not fit to train a policy: {reason}; label more prompts, or go on with "
                "--ungated (in a recipe: ungated = true)"
            )


def refusal(result: Mapping[str, Any]) -> str:
    """Return why the result of a reward model speaks against it; empty if it does not."""
    if "ratings" in result:
        low = _correlation_low(result.get("spearman") or 0.0, result.get("n", 0))
        return "" if low > 0 else "nothing shows that its scores rise with the ratings of held-out prompts"
    if "accuracy" not in result:
        return "no held-out prompt was compared, so nothing shows what it learned"
    card = result.get("report_card", {})
    accuracy = card.get("accuracy", {"rate": result["accuracy"], **result})  # an earlier version had no card
    rate = f"{accuracy['rate']:.0%} [{100 * accuracy['low']:.0f}, {100 * accuracy['high']:.0f}]"
    if accuracy["low"] <= 0.5:
        return f"its accuracy of {rate} on {accuracy['n']} held-out judgements may be chance"
    if "longer_wins" not in card:
        return ""
    longer_wins, within = card["longer_wins"]["rate"], card["length_correlation"]["within_prompts"]
    if within is not None and within > LENGTH_CORRELATION and accuracy["low"] <= longer_wins:
        return f"it is no better than the rule that the longer response wins ({rate} against {longer_wins:.0%})"
    return ""


def _correlation_low(correlation: float, n: int) -> float:
    """Return the lower 95 % limit of a rank correlation of n ratings, by Fisher's z (Bonett & Wright 2000)."""
    if n < MIN_RATINGS:
        return -1.0
    spread = math.sqrt((1 + correlation**2 / 2) / (n - 3))
    return math.tanh(math.atanh(min(correlation, 1 - 1e-9)) - 1.96 * spread)
