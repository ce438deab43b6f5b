"""The result of a run in sentences: who won, and which targets are missed."""

from collections.abc import Mapping, Sequence
from typing import Any

from assent.report.formatting import display_name, interval, name_in_sentence, percent
from assent.report.rounds import Result, Round, is_judged, last_compared

WIN_TARGET = 0.6
"""The lower limit of a policy's win rate should be above it."""
REWARD_TARGET = 0.8
"""The reward model should agree with the judge at least as often."""


def headline(rounds: Sequence[Round], results: Mapping[str, Result]) -> str:
    """Return one sentence with the win rates of the last round that has any."""
    last = last_compared(rounds)
    agents = {name: result for name, result in results.items() if "true_return" in result}
    if last is None and agents:
        returns = " and ".join(f"{result['true_return']['mean']:,.0f}" for result in agents.values())
        return f"The agent reaches a true return of {returns} an episode."
    if last is None:
        finished = ", ".join(display_name(key) for key in results)
        return f"Finished: {finished}. No policy has been measured yet." if finished else "No stage has finished yet."
    num_prompts = last.evaluation["prompts"]
    held_out = [f"{num_prompts} held-out prompts against {name_in_sentence(last.evaluation['baseline'])}"]
    clauses: list[str] = []
    for name, policy in last.compared.items():
        if not is_judged(policy):
            clauses.append(f"{display_name(name)} was not judged")
            continue
        win = policy["win"]
        votes = [] if win["n"] == num_prompts else [f"{win['n']} votes"]
        counts = " on ".join(votes + held_out)
        share = f"{percent(win['rate'])} {interval(win)}{' of ' if counts else ''}{counts}"
        clauses.append(f"{display_name(name)} wins {share}{_caveat(win)}")
        held_out = []  # the first clause names them for all
    opening = f"After {last.number} rounds, " if last.number > 1 else ""
    return opening + "; ".join(clauses) + "."


def _caveat(win: Mapping[str, Any]) -> str:
    return ", which may be chance" if win["low"] <= 0.5 <= win["high"] else ""


def missed_targets(rounds: Sequence[Round]) -> list[str]:
    """Return one sentence for each target that the last measured round misses."""
    last = next((item for item in reversed(rounds) if item.compared or item.agreement), None)
    if last is None:
        return []
    missed: list[str] = []
    for name, policy in last.compared.items():
        low = policy["win"]["low"]
        if not is_judged(policy):
            missed.append(f"{display_name(name)} was not judged, so it has no win rate.")
        elif low <= WIN_TARGET:
            missed.append(
                f"{display_name(name)} misses the target: the lower limit of its win rate is {100 * low:.1f} %; "
                f"the target is above {percent(WIN_TARGET)}."
            )
    if last.agreement and last.agreement["accuracy"] < REWARD_TARGET:
        missed.append(
            f"The reward model misses the target: it agrees with the judge on "
            f"{100 * last.agreement['accuracy']:.1f} % of {last.agreement['n']} held-out pairs; "
            f"the target is {percent(REWARD_TARGET)}."
        )
    return missed
