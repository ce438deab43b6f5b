"""The figures of a run for programs: summary.json."""

from collections.abc import Mapping
from typing import Any

from assent.models import memory
from assent.report.rounds import Result, find_rounds, is_judged


def summarise(results: Mapping[str, Result]) -> dict[str, Any]:
    """Return win rates, KL, reward-model accuracy, time and memory; of several reward models the last counts."""
    rounds = find_rounds(results)
    agreement: Result = next((item.agreement for item in reversed(rounds) if item.agreement), {})
    compared = {name: policy for item in rounds for name, policy in item.compared.items()}
    return {
        "win_rate": {
            name: _select(policy["win"], "rate", "low", "high", "n")
            for name, policy in compared.items()
            if is_judged(policy)
        },
        "reward_model": _select(agreement, "accuracy", "n", "low", "high") if agreement else {},
        "kl": {name: policy["kl"] for name, policy in compared.items() if policy["kl"] is not None},
        "seconds": round(sum(result.get("seconds", 0.0) for result in results.values()), 1),
        "peak_gb": round(max([memory.peak() / 1e9, *(result.get("peak_gb", 0.0) for result in results.values())]), 2),
    }


def _select(result: Result, *keys: str) -> dict[str, Any]:
    return {key: result[key] for key in keys}
