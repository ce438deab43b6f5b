"""The result of a run in the terminal: policies, reward model, cost, missed targets, alarms."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assent.report.alarm import alarm_sentences
from assent.report.formatting import display_name, duration, interval, optional, percent, rate_or_reason
from assent.report.rounds import Result, Round, find_rounds, is_judged, read_results
from assent.report.summary import summarise
from assent.report.verdict import missed_targets
from assent.run import control_folder

TITLES = ("win rate", "W / T / L", "judge score", "words", "KL")
"""Columns of the table, after the policy; the last one is for the win rates of the negative control."""


def has_evaluation(folder: Path) -> bool:
    """Return whether `evaluate` has finished in some round of the run."""
    return any(item.evaluation for item in find_rounds(read_results(folder)))


def summary_table(folder: Path) -> RenderableType:
    """Return what a command prints at its end: policies, reward model, cost, the report's path, missed targets."""
    results = read_results(folder)
    rounds, summary = find_rounds(results), summarise(results)
    parts: list[RenderableType] = []
    table = _policy_table(rounds, find_rounds(read_results(control_folder(folder))))
    if table.row_count:
        parts += [table, ""]
    parts += [Text(line) for item in rounds if (line := _equal_length_line(item, len(rounds) > 1))]
    parts += [Text(line) for item in rounds if (line := _reward_model_line(item, len(rounds) > 1))]
    parts.append(Text(f"total time {duration(summary['seconds'])}, peak memory {summary['peak_gb']:.1f} GB"))
    if (folder / "report.html").exists():
        parts.append(Text(f"report: {folder / 'report.html'}"))
    parts += [Text(sentence, style="bold") for sentence in (*missed_targets(rounds), *alarm_sentences(results))]
    return Group(*parts)


def _policy_table(rounds: Sequence[Round], control: Sequence[Round]) -> Table:
    """Return a row for each policy; a baseline that several rounds share has one.

    Args:
        control: of the negative control; empty: the run has none.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("policy", no_wrap=True)
    controlled = {name: policy for item in control for name, policy in item.compared.items()}
    for title in (*TITLES, *(("random labels",) if controlled else ())):
        table.add_column(title, justify="right", no_wrap=True)
    baselines: set[str] = set()
    for item in rounds:
        for name, policy in item.policies.items():
            if "win" in policy:
                of_control = (_win_rate(controlled[name]),) if name in controlled else ()
                table.add_row(Text(display_name(name)), *_cells(policy), *of_control)
            elif name not in baselines:
                baselines.add(name)
                score, words = optional(policy["judge_score"]), f"{policy['mean_words']:.1f}"
                table.add_row(Text(display_name(name)), "", "", score, words, "")
    return table


def _cells(policy: Result) -> tuple[str, ...]:
    win = policy["win"]
    return (
        _win_rate(policy),
        f"{win['wins']} / {win['ties']} / {win['losses']}" if is_judged(policy) else "",
        optional(policy["judge_score"]),
        f"{policy['mean_words']:.1f}",
        optional(policy["kl"]),
    )


def _win_rate(policy: Result) -> str:
    win = policy["win"]
    return f"{percent(win['rate'])} {interval(win)}" if is_judged(policy) else "not judged"


def _equal_length_line(item: Round, has_several_rounds: bool) -> str:
    """Return the length-controlled win rates of a round; empty if none was measured."""
    rates: list[str] = []
    for name, policy in item.compared.items():
        controlled = policy.get("length_controlled")
        if controlled and is_judged(policy):
            rates.append(f"{display_name(name)} {rate_or_reason(controlled)}")
    title = f"at equal length, round {item.number}" if has_several_rounds else "at equal length"
    return f"{title}: {'; '.join(rates)}" if rates else ""


def _reward_model_line(item: Round, has_several_rounds: bool) -> str:
    """Return a sentence about the reward model of a round; empty if it was not measured."""
    title = f"reward model, round {item.number}" if has_several_rounds else "reward model"
    if item.agreement:
        rate = f"{percent(item.agreement['accuracy'])} {interval(item.agreement)}"
        return f"{title}: agrees with the judge on {rate} of {item.agreement['n']} pairs"
    if "accuracy" in item.reward:
        rate = f"{percent(item.reward['accuracy'])} {interval(item.reward)}"
        return f"{title}: accuracy {rate} on {item.reward['n']} held-out comparisons"
    return ""
