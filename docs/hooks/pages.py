"""The hooks of mkdocs: add the generated pages, and adapt the Markdown of GitHub to the site."""

from collections.abc import Iterator
from typing import Any

import links
import methods
import notebooks
import reference
import sources
from mkdocs.structure.files import File, Files


def on_config(config: Any) -> Any:
    """Add a page for each objective to the navigation, below the headings of objectives.md."""
    for entry in config.nav:
        if "Methods" in entry:
            for heading, names in methods.groups().items():
                entry["Methods"].append({heading: [{name: f"methods/{name}.md"} for name in names]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not files of docs/."""
    generated = {f"methods/{name}.md": methods.page(name) for name in sources.objective_names()}
    generated |= {f"reference/{name}.md": text for name, text in reference.pages().items()}
    for source, page in links.TOP_PAGES.items():
        if page != "index.md":
            generated[page] = (sources.TOP / source).read_text(encoding="utf-8")
    for name, notebook in notebooks.pages().items():
        generated[f"notebooks/{name}.md"] = notebook.markdown
        for picture, content in notebook.pictures.items():
            files.append(File.generated(config, f"notebooks/{picture}", content=content))
    for path, text in generated.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Adapt what GitHub renders differently."""
    path = page.file.src_uri
    if path in ("index.md", "tutorial.md"):
        page.meta["hide"] = ["navigation"]
    if path.startswith("reference/") and path != "reference/commands.md":
        page.meta["search"] = {"boost": 0.3}  # prose comes first
    if path == "objectives.md":
        markdown = methods.overview(markdown)
    if path == "recipes.md":
        markdown += "\n\n".join(["", *recipes()])
    return links.adapt(markdown, path)


def recipes() -> Iterator[str]:
    """Yield the section of each recipe: the file itself."""
    for path in sorted((sources.TOP / "examples").glob("*.toml")):
        yield f"## {path.stem}\n\n```toml\n{path.read_text(encoding='utf-8').rstrip()}\n```"
