"""Make the pictures of docs/control.md: somebody compares clips of a hopper in a real browser.

    python docs/pictures/agents.py [comparisons, 30]

A script stands in for the person: it prefers the clip in which the torso turns backwards further, as far as the lines
on the page show. It takes pictures in light and dark, and at the width of a phone.
"""

import math
import shutil
import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Page, sync_playwright
from tutorial import BROWSERS, DOCS, PICTURES, join, read_until, started, take_on_phone

RUN = Path("runs/mine")
RECIPE = "examples/backflip.toml"


def turned_back(clip: dict[str, Any]) -> float:
    """Return how far the torso, the accented line, turns backwards over a clip, in rad."""
    torsos = [next(shape for shape in shapes if "accent" in shape) for _, shapes in clip["frames"]]
    angles = [math.atan2(torso[2] - torso[0], torso[3] - torso[1]) for torso in torsos]
    turns = [(after - before + math.pi) % (2 * math.pi) - math.pi for before, after in pairwise(angles)]
    return -sum(turn for turn in turns if abs(turn) < 0.6)  # more in a step: it was stood up


def compare(page: Page, count: int) -> None:
    """Answer comparisons with the arrow keys, and take pictures of one of them."""
    clips: dict[str, Any] = {}
    page.on(
        "response", lambda answer: clips.update({answer.url.split("/")[-1]: answer}) if "/clip/" in answer.url else 0
    )
    page.reload()
    start = time.monotonic()
    for number in range(count):
        page.wait_for_selector("#controls:not([hidden]):not([data-delayed])")
        items = page.eval_on_selector_all("#items .item", "nodes => nodes.map(node => node.dataset.item)")
        left, right = (turned_back(clips[item].json()) for item in items)
        page.keyboard.press("ArrowLeft" if left > right else "ArrowRight")
        if number == count // 2:
            page.wait_for_timeout(600)  # the clips play on
            page.screenshot(path=PICTURES / "clips.png")
            take_on_phone(page, "clips-phone.png")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "items => [...document.querySelectorAll('#items .item')].map(node => node.dataset.item).join() !== items",
            arg=",".join(items),
        )
    print(f"{count} comparisons in {time.monotonic() - start:.0f} s")


def main() -> None:
    """Make the pictures."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        (folder / "examples").symlink_to(DOCS.parent / "examples")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        ask = ["assent", "control", RECIPE, "--run", str(RUN), "--annotator", "human", "--wait", "60"]
        with started(ask, folder) as (_, questions):
            print(read_until(questions, r"(.*annotators label.*|.*judged.*)"))
            with started(["assent", "serve", str(RUN), "--port", "0"], folder) as (_, log):
                link = read_until(log, r"(http://\S+/join/\S+)")
                read_until(log, r"(serving .* at)")
                join(page, link)
                page.goto(link.split("/join/")[0] + f"/r/{RUN.name}/label")
                compare(page, count)
        browser.close()


if __name__ == "__main__":
    main()
