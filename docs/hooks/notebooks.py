"""Turn the notebooks of examples/ into pages: their text, their code, and the outputs that they were committed with."""

import base64
import json
from typing import Any, NamedTuple

import sources

FOLDER = sources.TOP / "examples"


class Page(NamedTuple):
    """A notebook as a page of the site."""

    markdown: str
    pictures: dict[str, bytes]
    """By their names beside the page."""


def pages() -> dict[str, Page]:
    """Return the pages by the names of their notebooks."""
    return {path.stem: page(path.stem) for path in sorted(FOLDER.glob("*.ipynb"))}


def page(name: str) -> Page:
    """Return the page of one notebook."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "raw":
            continue
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if output["output_type"] == "error" or output.get("name") == "stderr":
                raise ValueError(f"{name}.ipynb shows an error or a progress bar: run it again, and clear such outputs")
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![{data_text(data)}]({picture})")
            else:
                parts.append(f"```text\n{data_text(data) or text(output.get('text', ''))}\n```")
    title = f"This is the notebook `examples/{name}.ipynb`."
    heading, _, rest = "\n\n".join(parts).partition("\n\n")
    return Page(f"{heading}\n\n{title}\n\n{rest}\n", pictures)


def data_text(data: dict[str, Any]) -> str:
    """Return what an output shows where there are no pictures and no tables."""
    return text(data.get("text/plain", ""))


def text(lines: str | list[str]) -> str:
    """Return the text of a notebook's field."""
    return "".join(lines).rstrip()
