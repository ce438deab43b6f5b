"""What the probes of an online stage say, in sentences."""

from collections.abc import Mapping
from typing import Any


def alarm_sentence(stage: str, probe: Mapping[str, Any]) -> str:
    """Return one sentence about the probes of a stage, for its last line and the report.

    Args:
        probe: the key `probe` of the stage's result.
    """
    points = {point["step"]: point for point in probe["points"]}
    best, last = points[probe["best_step"]], probe["points"][-1]
    if probe["fired_at"] is None:
        return (
            f"{stage}: {probe['judge']} raised no alarm in {len(points)} probes; "
            f"its mean score was {points[0]['score']:.2f} at the start, {last['score']:.2f} at the end."
        )
    now = points[probe["fired_at"]]
    fall = (
        f"{probe['judge']} fell from {best['score']:.2f} at step {best['step']} to {now['score']:.2f} at step "
        f"{now['step']}"
    )
    kept = f"training stopped there, and the policy of step {probe['kept_step']} is kept"
    end = kept if probe["stopped"] else "training went on"
    rewards = f"{best['reward']:.2f} to {now['reward']:.2f}"
    if now["reward"] > best["reward"]:
        return f"{stage}: the reward is over-optimised: {fall}, while the reward rose from {rewards}; {end}."
    reward = f"the reward too ({rewards})" if now["reward"] < best["reward"] else f"the reward did not rise ({rewards})"
    return f"{stage}: {fall}, and {reward}: training went wrong; {end}."


def alarm_sentences(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each stage whose alarm fired."""
    probes = {stage: result["probe"] for stage, result in results.items() if "probe" in result}
    return [alarm_sentence(stage, probe) for stage, probe in probes.items() if probe["fired_at"] is not None]
