"""The documentation site builds strictly, asks no other host for anything, and has a page for each objective."""

from __future__ import annotations

import html
import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assent.config import settings
from assent.registry import ROOT, names, resolve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

TOP = ROOT.parent
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, and return its folder."""
    if importlib.util.find_spec("mkdocs") is None:
        reason = "needs mkdocs: pip install 'assent[docs]'"
        if os.environ.get("ASSENT_CI"):
            pytest.fail(f"with ASSENT_CI the site must be built: {reason}")
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("site")
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=TOP,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "WARNING" not in process.stderr
    return folder


class Addresses(HTMLParser):
    """What a page requests when it is opened, and where its links lead."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.requested: list[str] = []
        self.links: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        addresses = [values[name] for name in ("src", "href", "srcset", "poster", "data", "action") if name in values]
        (self.links if tag == "a" else self.requested).extend(addresses)


def pages(site: Path) -> list[Path]:
    """Return all pages but the one for unknown addresses, which only a server shows."""
    found = sorted(set(site.rglob("*.html")) - {site / "404.html"})
    assert len(found) > 40
    return found


def text_of(page: Path) -> str:
    """Return the text of a page without its tags."""
    body = page.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", body)).split())


@pytest.mark.parametrize("name", names("objectives"))
def test_objective_has_a_page_with_its_settings(name: str, site: Path) -> None:
    text = text_of(site / "methods" / f"{name}.html")
    for setting in settings(resolve("objectives", name)()).values():
        value = str(setting.value).lower() if isinstance(setting.value, bool) else str(setting.value)
        help_text = setting.help.replace("`", "")
        assert re.search(rf'\b{setting.name} = "?{re.escape(value)}"? {re.escape(help_text)}', text), setting.name
    for heading in ("When to use it", "What to watch", "Command", "Measured"):
        assert re.search(rf"{heading}¶ \S", text), heading


def test_every_page_of_docs_is_on_the_site(site: Path) -> None:
    expected = {path.stem for path in (TOP / "docs").glob("*.md")} | {"contributing", "changelog"}
    assert expected <= {page.stem for page in site.glob("*.html")}


def test_no_page_requests_another_host(site: Path) -> None:
    remote = re.compile(r"(https?:)?//", re.IGNORECASE)
    offenders = [
        f"{page.relative_to(site)}: {address}"
        for page in pages(site)
        for address in Addresses(page).requested
        if remote.match(address)
    ]
    offenders += [
        f"{sheet.relative_to(site)}: {address}"
        for sheet in site.rglob("*.css")
        for address in re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", sheet.read_text(encoding="utf-8"))
        if remote.match(address)
    ]
    assert offenders == []


def test_no_link_leads_to_a_file_that_the_site_lacks(site: Path) -> None:
    offenders = [
        f"{page.relative_to(site)}: {link}"
        for page in pages(site)
        for link in Addresses(page).links
        if not re.match(r"[a-z]+:", link) and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert offenders == []


def test_pictures_of_the_tutorial_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (TOP / "docs" / "pictures").glob("tutorial-*.png")}
    assert len(sizes) >= 3
    assert {name: size for name, size in sizes.items() if size > 150_000} == {}


# In a browser, opened from the disk


@pytest.fixture
def page(chromium: Browser, site: Path) -> Page:
    """Return a page of a browser that refuses every request but those for files of the site."""
    context = chromium.new_context(viewport=PHONE)  # type: ignore[arg-type]
    context.route(lambda address: not address.startswith((site.as_uri(), "data:")), lambda route: route.abort())
    return context.new_page()


@pytest.mark.browser
def test_pages_fit_a_phone_and_request_files_alone(page: Page, site: Path) -> None:
    foreign: list[str] = []
    errors: list[str] = []
    page.on("requestfailed", lambda request: foreign.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    too_wide = []
    for path in pages(site):
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
            too_wide.append(path.name)
    assert (too_wide, foreign, errors) == ([], [], [])


@pytest.mark.browser
def test_search_works_without_a_server(page: Page, site: Path) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto((site / "index.html").as_uri())
    page.get_by_role("textbox", name="Search").fill("explained_variance")
    result = page.locator(".md-search-result__link").first
    result.wait_for()
    result.click()
    page.wait_for_url(re.compile(r"/(metrics|methods/ppo|reference/\w+)\.html"))
