"""What happened, on one page: report.html for people, summary.json for programs, a table for the terminal."""

import json
import math
import os
import platform
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assent.config import read_recipe, write_recipe
from assent.errors import AssentError
from assent.feedback.comparison import Comparison
from assent.files import write_atomically
from assent.functional.conciseness import Marks, marks
from assent.functional.finite import finite
from assent.models import memory
from assent.protocols import Tool
from assent.records import Prompt, Response, Task
from assent.registry import names, resolve
from assent.run import Run, read_result
from assent.stages.evaluate import held_out
from assent.training.logging import read_metrics
from assent.types import NonNegativeInt

FOLDER = Path(__file__).parent
WIN_MARK, REWARD_MARK = 0.6, 0.8
"""What a run should reach: the lower bound of a policy's win rate, and the reward model's agreement with the judge."""
POINTS = 300
"""Points of a curve; a longer one is drawn by the means of its stretches."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 150, 40, 8, 8, 22
"""A figure and its margins."""

ONLINE = (
    ("Score", "by the reward model; less the price of KL", {"score": "score", "reward": "reward"}),
    ("KL from the start", "nats an answer", {"kl": "k1", "kl_k3": "k3"}),
    ("Length", "tokens an answer", {"length": "tokens"}),
    ("Entropy", "nats a token", {"entropy": "entropy"}),
    ("Value loss", "half the squared miss", {"value_loss": "loss"}),
    ("Explained variance", "by the value model; 1 is all, 0 is nothing", {"explained_variance": "share"}),
)
OFFLINE = (
    ("Loss", "of a batch, before the step", {"loss": "loss"}),
    ("Accuracy", "comparisons ordered as they were chosen", {"accuracy": "accuracy"}),
    ("Margin", "reward of the chosen less the rejected", {"margin": "margin"}),
)
"""Figures: title, unit, and what each metric is called in the legend; a stage gets those that it measured."""
SPOKEN = {"start": "the start", "reward": "reward model"}


@dataclass(frozen=True)
class Report(Tool):
    """Write what a run found as a page that opens anywhere, and a summary for programs."""

    num_examples: NonNegativeInt = 8
    """Held-out prompts shown at least, as many of each mode, in the order of their ids."""
    num_regressions: NonNegativeInt = 3
    """How many of a policy's largest losses are shown."""

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        path, rounds = run.folder / "report.html", find_rounds(run.folder)
        answered = {r.number: gathered for r in rounds if r.compared and (gathered := _gather(run, r)).prompts}
        summary = _summary(run.folder)
        template = _environment().get_template("report.html.jinja")
        page = template.render(
            title=run.folder.resolve().name,
            headline=headline(run.folder, rounds),
            verdict=verdict(rounds),
            rounds=rounds[::-1],
            several=len([r for r in rounds if r.compared]) > 1,
            examples={n: choose(a, self.num_examples) for n, a in answered.items()},
            worst={n: _worst(a, self.num_regressions) for n, a in answered.items()},
            drift={n: _drift(a) for n, a in answered.items()},
            careful={r.number: careful(r, _drift(answered[r.number])) for r in rounds if r.number in answered},
            curves=curves(read_metrics(run.folder), _results(run.folder)),
            stages=_stages(run),
            made=_made(run),
            recipe=write_recipe(run.recipe),
            summary=summary,
            marks={"win": WIN_MARK, "reward": REWARD_MARK},
        )
        write_atomically(path, page)
        write_atomically(run.folder / "summary.json", json.dumps(finite(summary), indent=1, allow_nan=False) + "\n")
        return {"report": str(path), "summary": str(run.folder / "summary.json")}


# What a run folder holds


class Round(NamedTuple):
    """What was measured in one time round the loop."""

    number: int
    evaluation: dict[str, Any]
    """What `evaluate` reported; empty if it has not finished."""
    reward: dict[str, Any]
    """What `reward` reported."""

    @property
    def compared(self) -> dict[str, dict[str, Any]]:
        """Policies that were compared with what the evaluation names `against`."""
        return {name: found for name, found in self.evaluation.get("policies", {}).items() if "win" in found}

    @property
    def agreement(self) -> dict[str, Any]:
        """How often the reward model prefers the same as the judge."""
        return dict(self.evaluation.get("reward_model") or {})


def find_rounds(folder: Path) -> list[Round]:
    """The rounds of a run that measured something, in order."""
    done = _results(folder)
    numbers = {int(match[1] or 1) for key in done if (match := re.fullmatch(r"(?:evaluate|reward)(?:-(\d+))?", key))}
    suffixes = {n: "" if n == 1 else f"-{n}" for n in sorted(numbers)}
    return [Round(n, done.get(f"evaluate{end}", {}), done.get(f"reward{end}", {})) for n, end in suffixes.items()]


def _results(folder: Path) -> dict[str, dict[str, Any]]:
    paths = sorted((folder / "done").glob("*.json"))
    return {path.stem: read_result(path) for path in paths}


def _summary(folder: Path) -> dict[str, Any]:
    """The figures that programs ask for; of several reward models, the last."""
    rounds, done = find_rounds(folder), _results(folder)
    agreement: dict[str, Any] = next((r.agreement for r in reversed(rounds) if r.agreement), {})
    compared = {name: found for r in rounds for name, found in r.compared.items()}
    return {
        "win_rate": {n: {k: f["win"][k] for k in ("rate", "low", "high", "n")} for n, f in compared.items()},
        "reward_model": {k: agreement[k] for k in ("accuracy", "n", "low", "high")} if agreement else {},
        "kl": {name: found["kl"] for name, found in compared.items() if found["kl"] is not None},
        "seconds": round(sum(result.get("seconds", 0.0) for result in done.values()), 1),
        "peak_gb": round(max([memory.peak() / 1e9, *(result.get("peak_gb", 0.0) for result in done.values())]), 2),
    }


# In plain words


def headline(folder: Path, rounds: Sequence[Round]) -> str:
    """One sentence that says what came out."""
    last = next((r for r in reversed(rounds) if r.compared), None)
    if last is None:
        done = ", ".join(spoken(key) for key in _order(folder, _results(folder)))
        return f"Done so far: {done}. No policy has been measured yet." if done else "Nothing is finished here yet."
    said: list[str] = []
    for name, found in last.compared.items():
        win, against = found["win"], spoken(last.evaluation["against"])
        rate = f"win {percent(win['rate'])} of {win['n']} held-out prompts against {against}" if not said else ""
        chance = ", which may be chance" if win["low"] <= 0.5 <= win["high"] else ""
        said.append(
            f"{spoken(name)}'s {'answers ' + rate if rate else percent(win['rate'])} "
            f"[{100 * win['low']:.0f}, {100 * win['high']:.0f}]{chance}"
        )
    return (f"After {last.number} rounds, " if last.number > 1 else "") + "; ".join(said) + "."


def verdict(rounds: Sequence[Round]) -> list[str]:
    """What falls short of the marks in the last measured round, a sentence each."""
    last = next((r for r in reversed(rounds) if r.compared or r.agreement), None)
    if last is None:
        return []
    short = [
        f"{spoken(name)} falls short: the lower bound of its win rate is {100 * win['low']:.1f} %, "
        f"and it should be above {percent(WIN_MARK)}."
        for name, found in last.compared.items()
        if (win := found["win"])["low"] <= WIN_MARK
    ]
    if last.agreement and last.agreement["accuracy"] < REWARD_MARK:
        short.append(
            f"The reward model falls short: it agrees with the judge on {100 * last.agreement['accuracy']:.1f} % of "
            f"{last.agreement['n']} held-out pairs, and it should on {percent(REWARD_MARK)}."
        )
    return short


def spoken(key: str) -> str:
    """A stage or policy as people write it: `ppo-2` is PPO-2, `dr_grpo` is DrGRPO."""
    plain, number = _parted(key)
    for folder in ("objectives", "stages"):
        if plain in names(folder):
            name: str = SPOKEN.get(plain) or resolve(folder, plain).__name__
            name = name.lower() if name[1:].islower() else name
            return f"{name}-{number}" if number > 1 else name
    return SPOKEN.get(key, key)


def _parted(key: str) -> tuple[str, int]:
    """A stage and its round."""
    match = re.fullmatch(r"(.+)-(\d+)", key)
    return (match[1], int(match[2])) if match else (key, 1)


def percent(share: float) -> str:
    """A share as people write it."""
    return f"{100 * share:.0f} %"


def whole(sentence: str) -> str:
    """A sentence that breaks neither between a number and its sign nor inside a name."""
    return re.sub(r"(?<=\w)-(?=\w)", "\u2011", sentence.replace(" %", "\u00a0%"))


def clock(seconds: float) -> str:
    """Time as people say it: 8.2 s, 6 min 12 s, 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


# Answers side by side


class Shown(NamedTuple):
    """An answer as the page shows it."""

    policy: str
    text: str
    finished: bool
    outcome: str
    """won, tied, lost, or empty where nothing was judged."""
    utility: float | None
    marks: Marks | None


class Case(NamedTuple):
    """A prompt with the answers of some policies."""

    prompt: Prompt
    answers: tuple[Shown, ...]


class Answers(NamedTuple):
    """Everything that a round's policies answered to the held-out prompts."""

    against: str
    prompts: tuple[Prompt, ...]
    shown: dict[str, dict[str, Shown]]
    """By policy, then by prompt; what they are compared with comes first."""


def _gather(run: Run, r: Round) -> Answers:
    against, judge = r.evaluation["against"], r.evaluation["judge"]
    drawn: dict[str, dict[str, Response]] = {}
    for name in (against, *r.compared):
        first = drawn.setdefault(name, {})
        for response in run.store.responses(policy=r.evaluation["policies"][name]["answers"]):
            first.setdefault(response.prompt, response)
    prompts = tuple(p for p in held_out(run) if all(p.id in first for first in drawn.values()))
    said = {event.task: event.judgement for event in run.store.feedback(annotator=f"judge:{judge}")}
    shown: dict[str, dict[str, Shown]] = {}
    for name, first in drawn.items():
        made = [first[p.id] for p in prompts]
        outcomes = ["" if name == against else _outcome(said, drawn[against][a.prompt], a) for a in made]
        rows = zip(made, outcomes, _utilities(judge, prompts, made), _marks(judge, prompts, made), strict=True)
        shown[name] = {a.prompt: Shown(name, a.text, a.finished, o, u, m) for a, o, u, m in rows}
    return Answers(against, prompts, shown)


def _outcome(said: Mapping[str, Any], old: Response, new: Response) -> str:
    """What the judge said about an answer, from the store."""
    if old.id == new.id:
        return "tied"
    match said.get(Task("comparison", old.prompt, (old.id, new.id), "evaluate").id):
        case Comparison(preferred=better) if better:
            return "won" if better == new.id else "lost"
        case Comparison():
            return "tied"
    return ""


def _utilities(judge: str, prompts: Sequence[Prompt], made: Sequence[Response]) -> Sequence[float | None]:
    """What a rule gives each answer; a judge that is a model is not asked again."""
    if judge in names("rewards") and judge != "model" and made:
        from assent.functional.ensemble import combine

        found: list[float] = combine(resolve("rewards", judge)().score(prompts, made)).tolist()
        return found
    return [None] * len(made)


def _marks(judge: str, prompts: Sequence[Prompt], made: Sequence[Response]) -> Sequence[Marks | None]:
    if judge != "conciseness_rubric":
        return [None] * len(made)
    return [marks(p.text, r.text, r.finished) for p, r in zip(prompts, made, strict=True)]


def choose(answers: Answers, count: int) -> list[Case]:
    """At least `count` prompts if there are as many, evenly by mode, in the order of their ids: nobody picked them."""
    by_mode: dict[str, list[Prompt]] = {}
    for prompt in sorted(answers.prompts, key=lambda prompt: (prompt.category, prompt.id)):
        by_mode.setdefault(prompt.category, []).append(prompt)
    chosen: list[Prompt] = []
    for row in zip_longest(*by_mode.values()):
        if len(chosen) >= count:
            break
        chosen += [prompt for prompt in row if prompt]
    return [_case(answers, prompt, answers.shown) for prompt in chosen]


def _worst(answers: Answers, count: int) -> dict[str, list[Case]]:
    """Each policy's largest losses beside the answers they lost to."""
    found: dict[str, list[Case]] = {}
    for name in list(answers.shown)[1:]:
        cases = [_case(answers, prompt, (answers.against, name)) for prompt in answers.prompts]
        lost = sorted((case for case in cases if case.answers[1].outcome == "lost"), key=_gain)
        if lost:
            found[name] = lost[:count]
    return found


def _gain(case: Case) -> tuple[float, str]:
    before, after = (shown.utility or 0.0 for shown in case.answers)
    return after - before, case.prompt.id


def _case(answers: Answers, prompt: Prompt, policies: Iterable[str]) -> Case:
    return Case(prompt, tuple(answers.shown[name][prompt.id] for name in policies))


# Drift


class Drift(NamedTuple):
    """How a policy writes, whatever the judge thinks of it."""

    words: float
    """Mean words of an answer."""
    opening: str
    """The three words with which most answers begin..."""
    opening_share: float
    """... and the share of answers that do."""
    distinct: float
    """Distinct-2: different pairs of neighbouring words, as a share of all pairs (Li et al. 2016, arXiv:1510.03055)."""
    repeated: float
    """Share of answers that are word for word the answer to another prompt too."""


def measure_drift(texts: Sequence[str]) -> Drift:
    """Measure the answers of one policy, one to each prompt."""
    words = [re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)*", text.lower()) for text in texts]
    pairs = [pair for some in words for pair in pairwise(some)]
    opening, count = Counter(" ".join(some[:3]) for some in words).most_common(1)[0]
    copies = Counter(text.strip() for text in texts)
    return Drift(
        words=sum(len(text.split()) for text in texts) / len(texts),
        opening=opening,
        opening_share=count / len(texts),
        distinct=len(set(pairs)) / max(1, len(pairs)),
        repeated=sum(count for count in copies.values() if count > 1) / len(texts),
    )


def _drift(answers: Answers) -> dict[str, Drift]:
    return {name: measure_drift([s.text for s in shown.values()]) for name, shown in answers.shown.items()}


def careful(r: Round, drift: Mapping[str, Drift]) -> list[str]:
    """What moved so far that a person should look before trusting the win rate, a sentence each."""
    found: list[str] = []
    policies = r.evaluation["policies"]
    before, start = drift[r.evaluation["against"]], policies[r.evaluation["against"]]
    for name in r.compared:
        after, who = drift[name], spoken(name)
        if not 0.8 <= after.words / max(before.words, 1e-9) <= 1.25:
            how = "longer" if after.words > before.words else "shorter"
            found.append(f"{who}'s answers are {how} than before: {before.words:.1f} words became {after.words:.1f}.")
        if after.opening_share >= before.opening_share + 0.1:
            found.append(
                f"{percent(after.opening_share)} of {who}'s answers begin with “{after.opening}”; "
                f"before, the commonest opening had {percent(before.opening_share)}."
            )
        if after.distinct <= 0.9 * before.distinct:
            found.append(
                f"{who} varies its words less: distinct-2 was {before.distinct:.2f} and is {after.distinct:.2f}."
            )
        if after.repeated >= before.repeated + 0.02:
            found.append(f"{percent(after.repeated)} of {who}'s answers serve more than one prompt word for word.")
        if policies[name]["finished"] <= start["finished"] - 0.05:
            found.append(f"{who}'s answers are cut at the length limit more often than before.")
        if (policies[name]["kl"] or 0) < 0:
            found.append(f"{who}'s KL is below 0, which a distance cannot be: too few answers, or a fault.")
    return found


# Curves


class Line(NamedTuple):
    """One curve of a figure, in its coordinates."""

    name: str
    last: str
    path: str
    dots: tuple[tuple[float, float], ...]
    tone: int
    """Which colour: one for each round, or of a single round one for each metric."""
    dashed: bool


class Figure(NamedTuple):
    """A small chart, ready to be drawn."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    levels: tuple[tuple[float, str], ...]
    """Where the horizontal lines are, and what stands beside them."""
    first: str
    last: str


class Curves(NamedTuple):
    """A stage's figures over all rounds."""

    name: str
    note: str
    figures: tuple[Figure, ...]


def curves(lines: Iterable[Mapping[str, Any]], done: Mapping[str, Mapping[str, Any]]) -> list[Curves]:
    """Figures of every stage that measured steps, its rounds on top of each other."""
    stages: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for line in lines:
        plain, number = _parted(line["stage"])
        stages.setdefault(plain, {}).setdefault(number, []).append(line)
    found = []
    for plain, rounds in stages.items():
        kind = ONLINE if any("score" in line for lines in rounds.values() for line in lines) else OFFLINE
        figures = [f for title, unit, metrics in kind if (f := _figure(title, unit, metrics, rounds))]
        held = [f"{k.removeprefix('held_out_')} {v:.3g}" for k, v in done.get(plain, {}).items() if _held(k, v)]
        note = "On held-out comparisons: " + ", ".join(held) + "." if held else ""
        if figures:
            found.append(Curves(spoken(plain), note, tuple(figures)))
    return found


def _held(key: str, value: Any) -> bool:
    return key in ("held_out_loss", "held_out_accuracy", "held_out_margin") and isinstance(value, float)


def _figure(
    title: str, unit: str, metrics: Mapping[str, str], rounds: Mapping[int, Sequence[Mapping[str, Any]]]
) -> Figure | None:
    points = {
        (number, metric): thin([(line["step"], line[metric]) for line in lines if _finite(line.get(metric))])
        for number, lines in sorted(rounds.items())
        for metric in metrics
    }
    every = [point for some in points.values() for point in some]
    if not every:
        return None
    steps, values = [x for x, _ in every], [y for _, y in every]
    levels = ticks(min(values), max(values))
    x0, x1, y0, y1 = min(steps), max(steps), levels[0], levels[-1]

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across, up = (point[0] - x0) / ((x1 - x0) or 1), (point[1] - y0) / (y1 - y0)
        return round(LEFT + across * (WIDTH - LEFT - RIGHT), 1), round(TOP + (1 - up) * (HEIGHT - TOP - BOTTOM), 1)

    drawn = []
    for (number, metric), some in points.items():
        if some:
            dots = tuple(map(place, some))
            name = metrics[metric] if len(rounds) == 1 else f"{metrics[metric]}, round {number}"
            path = "M" + "L".join(f"{x} {y}" for x, y in dots)
            rank = list(metrics).index(metric)
            tone = rank + 1 if len(rounds) == 1 else number % 4
            drawn.append(Line(name, _short(some[-1][1]), path, dots if len(dots) <= 30 else (), tone, rank > 0))
    places = tuple((place((x0, level))[1], _short(level, 6)) for level in levels)
    return Figure(title, unit, tuple(drawn), places, f"step {x0:.0f}", f"{x1:.0f}" if x1 > x0 else "")


def _short(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}".replace("-", "\u2212")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def thin(points: list[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most so many points: the means of equal stretches; the first and the last step stay."""
    if len(points) <= most:
        return points
    edges = [round(i * len(points) / most) for i in range(most + 1)]
    stretches = [points[a:b] for a, b in pairwise(edges)]
    means = [(sum(x for x, _ in some) / len(some), sum(y for _, y in some) / len(some)) for some in stretches]
    return [(points[0][0], means[0][1]), *means[1:-1], (points[-1][0], means[-1][1])]


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers, the first at or below `low`, the last at or above `high`."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - (abs(low) / 10 or 1.0), high + (abs(high) / 10 or 1.0)
    raw = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    return [round(step * i, 12) for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


# How it was made


class Stage(NamedTuple):
    """A finished stage: how long it took, and the plain numbers that it reported."""

    name: str
    seconds: float
    facts: str


def _stages(run: Run) -> list[Stage]:
    found, done = [], _results(run.folder)
    for key in _order(run.folder, done):
        facts = [
            f"{name.replace('_', ' ')} {f'{value:.3g}' if isinstance(value, float) else value}"
            for name, value in done[key].items()
            if name not in ("seconds", "peak_gb") and isinstance(value, int | float | str)
        ]
        found.append(Stage(key, float(done[key].get("seconds", 0.0)), ", ".join(facts)))
    return found


def _order(folder: Path, done: Mapping[str, Any]) -> list[str]:
    """Finished stages in the order in which they were begun."""
    path = folder / "recipe.toml"
    begun = read_recipe(path) if path.exists() else {}
    return [*(key for key in begun if key in done), *(key for key in done if key not in begun)]


def _made(run: Run) -> dict[str, str]:
    """What one needs to know to make the run again; versions and device are of the process that writes this."""
    try:
        device, dtype = str(run.device), str(run.dtype).removeprefix("torch.")
    except AssentError:
        device, dtype = run.setup.device, run.setup.dtype
    versions = [f"Python {platform.python_version()}"]
    for package in ("assent", "torch", "transformers", "numpy"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} from its sources")
    program = Path(sys.argv[0]).name
    again = shlex.join(["assent", "run", str(run.folder / "recipe.toml"), "--run", f"{run.folder}-again"])
    return {
        "model": run.setup.model,
        "seed": str(run.seed),
        "held out": percent(run.setup.held_out) + " of the prompts",
        "device": f"{device}, {os.cpu_count()} processor cores, {platform.machine()} {platform.system()}",
        "dtype": dtype,
        "versions": ", ".join(versions),
        "this command": shlex.join(["assent" if program in ("cli.py", "__main__.py") else program, *sys.argv[1:]]),
    } | ({"to do it again": again} if "stages" in run.recipe else {})


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"spoken": spoken, "percent": percent, "whole": whole, "clock": clock}
    made.globals |= {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "floor": HEIGHT - BOTTOM}
    return made


# In the terminal


def summary_table(folder: Path) -> RenderableType:
    """What came out of a run, for the end of a command: policies, reward model, cost, the report, the verdict."""
    rounds, summary = find_rounds(folder), _summary(folder)
    parts: list[RenderableType] = []
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("policy")
    for title in ("win rate", "W / T / L", "utility", "words", "KL"):
        table.add_column(title, justify="right", no_wrap=True)
    for r in rounds:
        for name, found in r.evaluation.get("policies", {}).items():
            if "win" in found:
                table.add_row(Text(spoken(name)), *_cells(found))
            elif r is next(other for other in rounds if other.evaluation.get("against") == name):
                table.add_row(Text(spoken(name)), "", "", f"{found['utility']:.2f}", f"{found['words']:.1f}", "")
    if table.row_count:
        parts += [table, ""]
    for r in rounds:
        which = f" of round {r.number}" if len(rounds) > 1 else ""
        if r.agreement:
            rate = f"{percent(r.agreement['accuracy'])} {_limits(r.agreement)}"
            parts.append(Text(f"reward model{which}: agrees with the judge on {rate} of {r.agreement['n']} pairs"))
        elif "accuracy" in r.reward:
            rate = f"{percent(r.reward['accuracy'])} {_limits(r.reward)}"
            parts.append(Text(f"reward model{which}: right on {rate} of {r.reward['n']} held-out comparisons"))
    parts.append(Text(f"{clock(summary['seconds'])} in all, {summary['peak_gb']:.1f} GB of memory at the most"))
    if (folder / "report.html").exists():
        parts.append(Text(f"report: {folder / 'report.html'}"))
    parts += [Text(line, style="bold") for line in verdict(rounds)]
    return Group(*parts)


def _cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    win = found["win"]
    return (
        f"{percent(win['rate'])} {_limits(win)}",
        f"{win['wins']} / {win['ties']} / {win['losses']}",
        f"{found['utility']:.2f}",
        f"{found['words']:.1f}",
        distance(found),
    )


def distance(found: Mapping[str, Any]) -> str:
    """A policy's KL in nats, if it is known."""
    return "" if found["kl"] is None else f"{found['kl']:.2f}"


def _limits(interval: Mapping[str, Any]) -> str:
    return f"[{100 * interval['low']:.0f}, {100 * interval['high']:.0f}]"
