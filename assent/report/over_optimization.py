"""Over-optimisation in sentences and pictures: best-of-n beside trained policies, and the probes of a training.

As in Gao et al. 2022 (arXiv:2210.10760), the judge's score and the reward model's share the distance d = sqrt(KL), each
with its own axis, because they have different units.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from assent.report.charts import HEIGHT, LEFT, MAX_DOTS, RIGHT, WIDTH, Axes, Tick, short_number, ticks
from assent.report.formatting import display_name, interval, name_at_start, name_in_sentence, percent

NUM_ERRORS = 2
"""Standard errors beyond which a difference counts, and the half-length of an error bar."""
POLICY_COLOURS = (2, 3, 0)
"""Colours of the policies' points; best-of-n has colour 1."""
FIT_POINTS = 40
"""Points of the fitted curve."""
TITLE_HEIGHT, LABEL_HEIGHT, LETTER_WIDTH, LABEL_GAP = 14, 11, 5.6, 6
"""Room above a panel, size of a label and of its letters, and its distance from its point, in SVG units."""


class Row(NamedTuple):
    """The scores of best-of-n, or of a trained policy."""

    name: str
    distance: float | None
    """sqrt(KL) to the baseline; None: not known."""
    gold: float
    gold_se: float | None
    gain: float | None
    """Of gold over the baseline, in standard deviations of the baseline's responses; None: they are all equal."""
    proxy: float | None


class Estimate(NamedTuple):
    """A value with its standard error, which may not be known."""

    across: float
    value: float | None
    error: float | None = None


class Track(NamedTuple):
    """Estimates that one line joins."""

    estimates: Sequence[Estimate]
    label: str = ""
    """Text beside the last estimate."""
    colour: int = 1
    style: str = "solid"
    """solid, dashed, or thin, which has no dots."""


class Label(NamedTuple):
    """A text of a picture, in SVG units."""

    x: float
    y: float
    text: str
    anchor: str
    colour: int = 1

    @property
    def left(self) -> float:
        """Return where the text begins, roughly."""
        return self.x - (self.width if self.anchor == "end" else 0)

    @property
    def width(self) -> float:
        """Return the width of the text, roughly."""
        return LETTER_WIDTH * len(self.text)

    def overlaps(self, other: "Label") -> bool:
        """Return whether both texts share some x."""
        return self.left < other.left + other.width and other.left < self.left + self.width


class Trace(NamedTuple):
    """A track in the coordinates of its panel."""

    path: str
    bars: str
    """Path of the error bars."""
    dots: tuple[tuple[float, float], ...]
    colour: int
    style: str


class Panel(NamedTuple):
    """One score over the axis that all panels of a picture share."""

    title: str
    ticks: tuple[Tick, ...]
    traces: tuple[Trace, ...]
    labels: tuple[Label, ...]


class Mark(NamedTuple):
    """A step that a picture marks."""

    x: float
    text: str
    is_alarm: bool


class Picture(NamedTuple):
    """Panels above each other, ready to be drawn."""

    description: str
    """What it shows, for those who cannot see it."""
    panels: tuple[Panel, ...]
    across: tuple[Label, ...]
    """Labels of the shared axis, their y in the last panel."""
    marks: tuple[Mark, ...] = ()

    @property
    def height(self) -> int:
        """Return the height in SVG units."""
        return TITLE_HEIGHT + HEIGHT * len(self.panels)


def sentences(draws: Mapping[str, Any], baseline: str) -> list[str]:
    """Return what several responses to one prompt say, the most important first.

    Args: draws: the key `draws` of the result of `evaluate`. baseline: the policy that best-of-n samples from.
    """
    best = draws["best_of_n"]
    lines = [_policy_sentence(name, policy, best, baseline) for name, policy in best["policies"].items()]
    lines += [_curve_sentence(best)] if len(best["curve"]) > 1 else []
    return list(filter(None, [*lines, _card_sentence(draws["cards"])]))


def _policy_sentence(name: str, policy: Mapping[str, Any], best: Mapping[str, Any], baseline: str) -> str:
    """Return which best of n a trained policy equals, or between which it is."""
    score = f"{name_at_start(name)}'s responses score {policy['gold']:.2f} with the judge"
    source, curve = name_in_sentence(baseline), best["curve"]
    if not curve:
        return f"{score}, those of {source} {best['gold_mean']:.2f}."
    margins = {margin["n"]: margin for margin in policy.get("margins", ())}
    sides = [_compare(policy, point, margins.get(point["n"])) for point in curve]
    single = f"one response of {source}"
    if sides[0] < 0:
        return f"{score}, less than {single} ({curve[0]['gold']:.2f}): it was not worth training."
    if sides[0] == 0:
        prompts = f"{best['prompts']} prompt{'s' if best['prompts'] > 1 else ''}"
        return f"{score}, {single} {curve[0]['gold']:.2f}: no difference that {prompts} can show."
    sizes = [point["n"] for point in curve]
    rank = sizes.index(policy["equivalent_n"] or _peak(curve)["n"])
    if sides[rank] < 0 and sides[rank - 1] == 0:
        rank -= 1
    chosen = f"the best of {sizes[rank]} responses of {source}, chosen by the reward model" if rank else single
    if sides[rank] == 0:
        return f"{score}, as much as {chosen}."
    if sides[rank] > 0:
        most = "the most that was measured" if sizes[rank] == best["n"] else f"the highest of up to {best['n']}"
        return f"{score}, more than {chosen}, {most}."
    below = f"the best of {sizes[rank - 1]}" if rank > 1 else "one response"
    return f"{score}, more than {below} and less than {chosen}."


def _curve_sentence(best: Mapping[str, Any]) -> str:
    """Return whether the judge's score rises with n or turns over."""
    curve = best["curve"]
    first, last, peak = curve[0], curve[-1], _peak(curve)
    change = f"{first['gold']:.2f} for one response, {last['gold']:.2f} for the best of {last['n']}"
    proxy = f"the reward model's own goes from {first['proxy']:.2f} to {last['proxy']:.2f}"
    if last["gold_se"] is None:
        return f"The judge's score is {change}; one prompt cannot show whether it rises with n."
    has_fallen = _compare(peak, last, best.get("fall")) > 0
    if peak is first and has_fallen:
        return f"The judge's score falls with n: {change}, while {proxy}. The reward model chooses the worse responses."
    if has_fallen:
        return (
            f"The judge's score turns over: {peak['gold']:.2f} for the best of {peak['n']}, but {last['gold']:.2f} for "
            f"the best of {last['n']}, while {proxy}. Beyond that n the reward model is over-optimised."
        )
    if _compare(last, first, best.get("rise")) > 0:
        return f"The judge's score rises with n: {change}."
    return f"The judge's score is flat within its error: {change}, while {proxy}."


def _peak(curve: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return max(curve, key=lambda point: float(point["gold"]))


def _compare(first: Mapping[str, Any], second: Mapping[str, Any], paired: Mapping[str, Any] | None) -> int:
    """Return 1 if the first gold score is greater beyond error, -1 if it is less, else 0.

    Args: paired: their difference over the same prompts; None: an older result, whose two errors are a cautious one.
    """
    if paired is None:
        errors = first["gold_se"], second["gold_se"]
        error = None if None in errors else math.hypot(*errors)
        paired = {"difference": first["gold"] - second["gold"], "se": error}
    if paired["se"] is None or abs(paired["difference"]) <= NUM_ERRORS * paired["se"]:
        return 0
    return 1 if paired["difference"] > 0 else -1


def _card_sentence(cards: Mapping[str, Any]) -> str:
    """Return how well the reward model tells each policy's responses apart; empty: no pair was measured."""
    measured = {name: card for name, card in cards.items() if card_rate(card)}
    if not measured:
        return ""
    shares = [f"{percent(card['accuracy'])} {interval(card)} of {_own(name)}" for name, card in measured.items()]
    shares[0] += " pairs"
    chance = [_own(name) for name, card in measured.items() if card["low"] <= 0.5 <= card["high"]]
    wrong = [_own(name) for name, card in measured.items() if card["high"] < 0.5]
    clauses = [f"it cannot tell better from worse among {_list(chance)}"] if chance else []
    clauses += [f"it prefers the worse among {_list(wrong)}"] if wrong else []
    return (
        "Of two responses of one policy to a prompt, the reward model prefers the one that the judge prefers in "
        f"{_list(shares)}{': ' if clauses else ''}{'; '.join(clauses)}."
    )


def card_rate(card: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the accuracy of a card as a rate with its limits; None: no pair was measured."""
    if card.get("accuracy") is None or card["low"] is None:
        return None
    return {"rate": card["accuracy"], "low": card["low"], "high": card["high"]}


def fit_note(best: Mapping[str, Any]) -> str:
    """Return the fitted curve in words; empty without a fit."""
    fit = best["fit"]
    if not _has_fit(best):
        return ""
    sign = "+" if fit["beta"] < 0 else "\u2212"
    formula = f"d ({short_number(fit['alpha'])} {sign} {short_number(abs(fit['beta']))} d)"
    farthest, peak = _distance(best["curve"][-1]), fit["peak_distance"]
    if peak is None:
        words = "it has no peak"
    elif peak > farthest:
        words = f"its peak, at d = {peak:.1f}, is extrapolated, since the best of {best['n']} is at {farthest:.1f}"
    else:
        words = f"its peak is at d = {peak:.1f}"
    return f"Thin line: the judge's gain fitted by {formula}, the form of Gao et al. (arXiv:2210.10760); {words}."


def rows(best: Mapping[str, Any]) -> list[Row]:
    """Return the table of best-of-n, with the trained policies below."""
    points = {f"Best of {p['n']}" if p["n"] > 1 else "One response": p for p in best["curve"]}
    points |= {display_name(name): policy for name, policy in best["policies"].items()}
    deviation = best["gold_sd"]
    return [
        Row(
            name,
            _distance(point),
            point["gold"],
            point["gold_se"],
            (point["gold"] - best["gold_mean"]) / deviation if deviation else None,
            point["proxy"],
        )
        for name, point in points.items()
    ]


def draw_best_of_n(best: Mapping[str, Any]) -> Picture | None:
    """Draw both scores over the distance from the baseline; None: nothing is away from it."""
    curve, policies = best["curve"], best["policies"]
    distances = [d for point in (*curve, *policies.values()) if (d := _distance(point)) is not None]
    if not curve or max(distances) == 0:
        return None
    levels = ticks(0, max(distances))
    last = f"best of {curve[-1]['n']}" if len(curve) > 1 else "one response"
    panels: list[Panel] = []
    for title, score, error, style in (
        ("Judge's score", "gold", "gold_se", "solid"),
        ("Reward model's score", "proxy", "", "dashed"),
    ):
        tracks = [Track([_estimate(point, score, error) for point in curve], last, style=style)]
        tracks += [
            Track([_estimate(policy, score, error)], display_name(name), colour=POLICY_COLOURS[rank % 3])
            for rank, (name, policy) in enumerate(policies.items())
            if policy["kl"] is not None
        ]
        tracks += [_fitted(best)] if score == "gold" and _has_fit(best) else []
        panels.append(_panel(title, tracks, levels[0], levels[-1]))
    scores = [f"{row.name}: {row.gold:.2f} at distance {row.distance:.1f}" for row in rows(best) if row.distance]
    description = f"Judge's score. One response: {curve[0]['gold']:.2f}; {'; '.join(scores)}"
    axes = Axes(levels[0], levels[-1], 0, 1)
    across = tuple(Label(axes.place((d, 0))[0], HEIGHT - 5, short_number(d), "middle") for d in levels)
    return Picture(description, tuple(panels), across)


def draw_probes(probe: Mapping[str, Any]) -> Picture:
    """Draw the judge's score and the reward over the training steps, with the best probe and the alarm.

    Args: probe: the key `probe` of a stage's result.
    """
    points = probe["points"]
    first, last = points[0]["step"], points[-1]["step"]
    judge = [Estimate(point["step"], point["score"], point["score_se"]) for point in points]
    reward = [Estimate(point["step"], point["reward"]) for point in points]
    panels = (
        _panel("Judge's score", [Track(judge)], first, last),
        _panel("Reward in training", [Track(reward, style="dashed")], first, last),
    )
    marked = {"best probe": probe["best_step"], "alarm": probe["fired_at"]}
    axes = Axes(first, last, 0, 1)
    marks = tuple(
        Mark(axes.place((step, 0))[0], f"{name}, step {step}", name == "alarm")
        for name, step in marked.items()
        if step is not None
    )
    description = f"Judge's score: {points[0]['score']:.2f} at step {first}, {points[-1]['score']:.2f} at step {last}"
    across = (
        Label(LEFT, HEIGHT - 5, f"step {first}", "start"),
        Label(WIDTH - RIGHT, HEIGHT - 5, str(last) if last > first else "", "end"),
    )
    return Picture("; ".join([description, *(mark.text for mark in marks)]), panels, across, marks)


def _panel(title: str, tracks: Sequence[Track], first: float, last: float) -> Panel:
    """Draw tracks over the range from `first` to `last`; estimates without a value are left out."""
    known = [
        track._replace(estimates=kept)
        for track in tracks
        if (kept := [estimate for estimate in track.estimates if estimate.value is not None])
    ]
    limits = [limit for track in known for estimate in track.estimates for limit in _limits(estimate)]
    levels = ticks(min(limits, default=0), max(limits, default=1))
    axes = Axes(first, last, levels[0], levels[-1])
    return Panel(
        title,
        tuple(Tick(axes.place((first, level))[1], short_number(level, 6)) for level in levels),
        tuple(_trace(track, axes) for track in known),
        tuple(_spread(_label(track, axes) for track in known if track.label)),
    )


def _trace(track: Track, axes: Axes) -> Trace:
    dots = tuple(axes.place((estimate.across, estimate.value or 0)) for estimate in track.estimates)
    bars = [[axes.place((e.across, limit)) for limit in _limits(e)] for e in track.estimates if e.error]
    return Trace(
        path="M" + "L".join(f"{x} {y}" for x, y in dots),
        bars="".join(f"M{x} {low}V{high}" for (x, low), (_, high) in bars),
        dots=dots if len(dots) <= MAX_DOTS and track.style != "thin" else (),
        colour=track.colour,
        style=track.style,
    )


def _limits(estimate: Estimate) -> tuple[float, float]:
    """Return both ends of an error bar."""
    value, length = estimate.value or 0, NUM_ERRORS * (estimate.error or 0)
    return value - length, value + length


def _label(track: Track, axes: Axes) -> Label:
    """Place a label beside the last estimate: on the right if there is room, else on the side that its line leaves."""
    dots = [axes.place((estimate.across, estimate.value or 0)) for estimate in track.estimates]
    x, y = dots[-1]
    label = Label(x + LABEL_GAP, y + 3.5, track.label, "start", track.colour)
    if label.x + label.width <= WIDTH - RIGHT:
        return label
    is_falling = len(dots) > 1 and dots[-2][1] < y
    return label._replace(x=x - LABEL_GAP, y=y + (LABEL_HEIGHT if is_falling else -LABEL_GAP), anchor="end")


def _spread(labels: Iterable[Label]) -> list[Label]:
    """Move labels down until none covers another."""
    placed: list[Label] = []
    for label in sorted(labels, key=lambda label: label.y):
        below = [other.y + LABEL_HEIGHT for other in placed if label.overlaps(other)]
        placed.append(label._replace(y=round(max([label.y, *below]), 1)))
    return placed


def _fitted(best: Mapping[str, Any]) -> Track:
    """Return the fitted curve as far as best-of-n was measured."""
    fit, start, farthest = best["fit"], best["curve"][0]["gold"], _distance(best["curve"][-1]) or 0
    distances = [farthest * i / FIT_POINTS for i in range(FIT_POINTS + 1)]
    return Track([Estimate(d, start + d * (fit["alpha"] - fit["beta"] * d)) for d in distances], style="thin")


def _has_fit(best: Mapping[str, Any]) -> bool:
    return best["fit"] is not None and None not in (best["fit"]["alpha"], best["fit"]["beta"])


def _estimate(point: Mapping[str, Any], score: str, error: str) -> Estimate:
    return Estimate(_distance(point) or 0, point[score], point.get(error))


def _distance(point: Mapping[str, Any]) -> float | None:
    """Return sqrt(KL); an estimate of KL below 0 is 0."""
    return None if point["kl"] is None else math.sqrt(max(0.0, point["kl"]))


def _own(policy: str) -> str:
    return f"{name_in_sentence(policy)}'s"


def _list(words: Sequence[str]) -> str:
    """Return words as in a sentence: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
