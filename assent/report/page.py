"""The report as one HTML page that needs no network: a frame, and the sections found in report/sections/."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from assent.protocols import ReportSection
from assent.registry import names, resolve
from assent.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH
from assent.report.data import ReportData
from assent.report.formatting import (
    display_name,
    duration,
    interval,
    name_in_sentence,
    no_break,
    optional,
    percent,
    rate_or_reason,
)
from assent.report.reward_card import MARGIN, SIZE
from assent.report.rounds import last_compared
from assent.report.verdict import REWARD_TARGET, WIN_TARGET, headline, missed_targets

FOLDER = Path(__file__).parent


class RenderedSection(NamedTuple):
    """A section of the page."""

    id: str
    title: str
    html: Markup


def render_page(data: ReportData) -> str:
    """Render the page; sections that return None are left out."""
    sections = {name: resolve("report/sections", name) for name in names("report/sections")}
    environment = _environment({Path(inspect.getfile(cls)).parent for cls in sections.values()})
    rendered: list[RenderedSection] = []
    for name, section in sorted(_instances(sections), key=lambda item: (item[1].order, item[0])):
        values = section(data)
        if values is not None:
            html = environment.get_template(f"{name}.html.jinja").render(values)
            rendered.append(RenderedSection(name.replace("_", "-"), section.title, Markup(html)))
    return environment.get_template("page.html.jinja").render(
        title=data.run.folder.resolve().name,
        headline=headline(data.rounds, data.results),
        missed=missed_targets(data.rounds),
        last=last_compared(data.rounds),
        sections=rendered,
    )


def _instances(sections: Mapping[str, type[ReportSection]]) -> list[tuple[str, ReportSection]]:
    return [(name, cls()) for name, cls in sections.items()]


def _environment(section_folders: set[Path]) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([FOLDER, *sorted(section_folders)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "display_name": display_name,
        "duration": duration,
        "interval": interval,
        "name_in_sentence": name_in_sentence,
        "no_break": no_break,
        "optional": optional,
        "percent": percent,
        "rate_or_reason": rate_or_reason,
    }
    environment.globals |= {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "diagram_size": SIZE,
        "diagram_margin": MARGIN,
        "win_target": WIN_TARGET,
        "reward_target": REWARD_TARGET,
    }
    return environment
