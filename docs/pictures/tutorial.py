"""Run the commands of docs/tutorial.md, label in a real browser, and make the pictures of the page.

    python docs/pictures/tutorial.py [folder that keeps the run]

A script stands in for the reader. It prefers what the conciseness rubric prefers, and presses the keys that a person
would press. Everything happens in a temporary folder, in about five minutes on one core.
"""

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

from assent.rewards.conciseness_rubric import ConcisenessRubric
from assent.store.database import Store

PICTURES = Path(__file__).parent
DOCS = PICTURES.parent
RUN = Path("runs/tutorial")
BROWSERS = "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"
BEFORE_PICTURE = 20
"""Judgements before the pictures of the labelling page, which show the next clear choice."""


def commands() -> list[list[str]]:
    """Return the words of every command of the page, in its order."""
    blocks = re.findall(r"^```console\n(.*?)^```", (DOCS / "tutorial.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.startswith("assent ")]


@contextmanager
def started(words: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start a command, and stop it at the end of the block; yield its process and the file of its output."""
    log = folder / f"{words[1]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", *words], cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process, log
    finally:
        process.terminate()
        process.wait()


def read_until(log: Path, pattern: str) -> str:
    """Return the first group of a pattern in the output of a command, once it is there."""
    for _ in range(600):
        if match := re.search(pattern, log.read_text("utf-8")):
            return match[1]
        time.sleep(0.1)
    raise TimeoutError(f"no {pattern!r} in {log.read_text('utf-8')}")


def key_of(difference: float) -> str:
    """Return the key that says how much better the left response is, from the difference of two scores."""
    if not difference:
        return "4"
    strength = 1 + (abs(difference) >= 1 / 6) + (abs(difference) >= 1 / 3)
    return str(4 - strength if difference > 0 else 4 + strength)


def judge(page: Page, store: Store) -> str:
    """Press the key of the response on the page that the rubric prefers, and return the key."""
    items = page.eval_on_selector_all("#items .item", "nodes => nodes.map(node => node.dataset.item)")
    responses = {response.id: response for response in store.responses(ids=items)}
    (prompt,) = store.prompts(ids=[responses[items[0]].prompt])
    left, right = ConcisenessRubric().score([prompt, prompt], [responses[item] for item in items]).tolist()
    page.wait_for_selector("#controls:not([data-delayed])")
    key = key_of(left - right)
    page.keyboard.press(key)
    return key


def label(page: Page, folder: Path) -> None:
    """Answer every task, and take the pictures on the way."""
    store = Store.open(folder / RUN / "feedback.db")
    count, has_pictures = 0, False
    while True:
        page.wait_for_function(
            "() => !document.querySelector('#controls').hidden || !document.querySelector('#empty').hidden"
        )
        if page.locator("#controls").is_hidden():
            break
        shown = page.eval_on_selector_all("#items .item", "nodes => nodes.map(node => node.dataset.item).join()")
        key = judge(page, store)
        if count >= BEFORE_PICTURE and not has_pictures and key in "1267":
            page.screenshot(path=PICTURES / "tutorial-label.png")
            take_on_phone(page)
            has_pictures = True
        page.keyboard.press("Enter")
        count += 1
        page.wait_for_function(
            """(shown) => !document.querySelector('#empty').hidden
                || [...document.querySelectorAll('#items .item')].map(node => node.dataset.item).join() !== shown""",
            arg=shown,
        )
    store.close()
    print(f"{count} comparisons answered")


def take_on_phone(page: Page, name: str = "tutorial-phone.png") -> None:
    """Take a picture of the page at the width of a phone, in the dark theme."""
    size = page.viewport_size
    assert size
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 940})
    page.wait_for_timeout(300)
    page.screenshot(path=PICTURES / name)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(size)


def join(page: Page, link: str) -> None:
    """Become the owner of the server, once it listens."""
    address = urlsplit(link)
    while True:
        with socket.socket() as line:
            if not line.connect_ex((address.hostname or "", address.port or 0)):
                break
        time.sleep(0.1)
    page.goto(link)
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Continue").click()
    page.wait_for_load_state()


def run_page(folder: Path, browser_page: Page) -> None:
    """Run every command of the page in order; the server runs to the end."""
    first, last = list[list[str]](), list[list[str]]()
    serve: list[str] = []
    for words in commands():
        if words[1] == "serve":
            serve = words
        else:
            (last if serve else first).append(words)
    for words in first:
        run(words, folder)
    with started([*serve, "--port", "0"], folder) as (_, log):
        link = read_until(log, r"(http://\S+/join/\S+)")
        read_until(log, r"(serving .* at)")
        print(log.read_text("utf-8"))
        join(browser_page, link)
        with started(last[0], folder) as (asking, questions):
            read_until(questions, r"(judged|annotators label)")
            address = re.sub(r"/join/.*", f"/r/{RUN.name}/label", link)
            browser_page.goto(address)
            label(browser_page, folder)
            asking.wait(60)
            print(questions.read_text("utf-8"))
        for words in last[1:]:
            run(words, folder)
            if words[1] == "dpo":
                browser_page.goto(re.sub(r"/join/.*", f"/r/{RUN.name}/progress", link))
                browser_page.wait_for_selector("body[data-ready]")
                browser_page.wait_for_timeout(500)
                browser_page.screenshot(path=PICTURES / "tutorial-progress.png")
    browser_page.goto((folder / RUN / "report.html").as_uri())
    browser_page.set_viewport_size({"width": 1000, "height": 680})
    browser_page.screenshot(path=PICTURES / "tutorial-report.png")
    browser_page.get_by_role("heading", name="Responses side by side").evaluate("heading => heading.scrollIntoView()")
    browser_page.screenshot(path=PICTURES / "tutorial-responses.png")


def run(words: list[str], folder: Path) -> None:
    """Run one command to its end."""
    print(f"$ {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True)


def main() -> None:
    """Make the pictures."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        (folder / "examples").symlink_to(DOCS.parent / "examples")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 720}, reduced_motion="reduce")
        run_page(folder, context.new_page())
        if len(sys.argv) > 1:
            shutil.copytree(folder / RUN, sys.argv[1])
        browser.close()


if __name__ == "__main__":
    main()
