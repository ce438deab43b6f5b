"""Adapt the Markdown of GitHub to the site: links to files of the repository, consoles, papers."""

import logging
import posixpath
import re
from collections.abc import Callable

import sources

TOP_PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
"""Files of the repository's root, and their pages."""


def adapt(markdown: str, page: str) -> str:
    """Return the Markdown of a page with links that work on the site.

    Args:
        page: its path on the site.
    """
    markdown = re.sub(r"^```console\n(?!\$)", "```sh\n", markdown, flags=re.MULTILINE)
    return outside_code(markdown, lambda text: link_papers(relink(text, page)))


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Return the Markdown with everything changed but fenced and indented code."""
    pieces = re.split(r"(^```.*?^```$|^(?: {4}[^\n]*\n)+)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(piece if i % 2 else change(piece) for i, piece in enumerate(pieces))


def relink(text: str, page: str) -> str:
    """Return text whose links to files of the repository lead to their pages, or are code."""
    if page.startswith("notebooks/"):
        folder = "examples"
    else:
        folder = "" if page in TOP_PAGES.values() and page != "index.md" else "docs"
    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", lambda match: target(match, folder, page), text)


def target(match: re.Match[str], folder: str, page: str) -> str:
    """Return a link for the site."""
    picture, text, link = match.groups()
    address, _, anchor = link.partition("#")
    if picture or not address or re.match(r"[a-z]+:", address) or page.startswith(("methods/", "reference/")):
        return match[0]
    path = posixpath.normpath(posixpath.join(folder, address))
    anchor = f"#{anchor}" if anchor else ""
    top = "../" * page.count("/")
    if not path.startswith("docs/") and not (sources.TOP / path).exists():
        logging.getLogger("mkdocs.hooks").warning("'%s' links to '%s', which does not exist.", page, link)
    if path in TOP_PAGES:
        return f"[{text}]({top}{TOP_PAGES[path]}{anchor})"
    if path.startswith("docs/"):
        return f"[{text}]({top}{path.removeprefix('docs/')}{anchor})"
    if recipe := re.fullmatch(r"examples/(\w+)\.toml", path):
        return f"[{text}]({top}recipes.md#{recipe[1]})"
    if notebook := re.fullmatch(r"examples/(\w+)\.ipynb", path):
        return f"[{text}]({top}notebooks/{notebook[1]}.md{anchor})"
    if objective := re.fullmatch(r"assent/objectives/(\w+)\.py", path):
        return f"[{text}]({top}methods/{objective[1]}.md)"
    return f"`{path}`" if text == posixpath.basename(path) else f"{text} (`{path}`)"


def link_papers(text: str) -> str:
    """Return text with a link for every arXiv id outside code."""
    return re.sub(r"(`[^`]*`)|(?<!\[)arXiv:(\d{4}\.\d{5})", paper, text)


def paper(match: re.Match[str]) -> str:
    """Return a link to a paper; code stays."""
    return match[1] or f"[arXiv:{match[2]}](https://arxiv.org/abs/{match[2]})"
