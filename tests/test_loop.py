"""The whole loop, twice: responses, judgements in a real browser, a reward model and PPO."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import processes
import pytest
import tiny
from browsing import PATIENCE

from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.run import open_store
from assent.tools.doctor import find_browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WORDS = ["duck", "cat", "dog", "king", "queen", "ball", "hat", "cake", "tree", "boat", "moon", "frog", "bird", "fish"]
SHORT = ["--max-new-tokens", "6", "--temperature", "1"]
HUMAN_FLAGS = ["--annotator", "human", "--wait", "0"]


def assent(run: Path, *words: str, status: int = 0) -> str:
    return processes.assent(*words, "--run", str(run), status=status)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with responses of a tiny model."""
    folder = tmp_path_factory.mktemp("loop")
    prompts = folder / "prompts.jsonl"
    rows = [{"prompt": f"Tell me of the {word} in the {place}."} for word in WORDS for place in ("garden", "house")]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ["--model", str(tiny.make(folder / "model")), "--dtype", "float32"]
    assent(folder / "run", "generate", *model, "--prompts", str(prompts), "--n", "4", "--n-held-out", "2", *SHORT)
    return folder / "run"


@pytest.fixture(scope="module")
def page(run: Path) -> Iterator[Page]:
    """Return the page of the owner, who has signed in by the set-up link."""
    from playwright.sync_api import sync_playwright

    server = processes.command("serve", str(run), "--port", "0", log=run.with_name("log"))
    try:
        until = time.monotonic() + PATIENCE
        while not (link := re.search(r"http\S+/join/\S+(?=\s)", server.output)):
            assert time.monotonic() < until and server.status is None, f"no set-up link: {server.output}"
            time.sleep(0.02)
        with sync_playwright() as playwright:
            flags = ["--no-sandbox", "--disable-quic"]
            browser = playwright.chromium.launch(executable_path=find_browser(), args=flags)
            page = browser.new_page(base_url=link[0].partition("/join/")[0])
            page.goto(link[0])
            page.fill("[name=name]", "Ada")
            page.fill("[name=password]", "correct horse")
            page.click("button.main")
            page.wait_for_url("**/")
            yield page
            browser.close()
    finally:
        server.kill()


def judge_tasks(page: Page, run: Path, count: int) -> int:
    """Judge up to `count` tasks by keyboard, while the page shows one; return the number of judgements."""
    page.goto(f"/r/{run.name}/label")
    page.wait_for_selector("body[data-ready]")
    for done in range(count):
        if page.locator("#controls").is_hidden():
            return done
        left = page.locator("#items .item").first.get_attribute("data-item")
        lengths = page.eval_on_selector_all("#items .item .text", "nodes => nodes.map((node) => node.innerText.length)")
        if page.locator(".ranking").count():
            order = sorted(range(len(lengths)), key=lambda i: lengths[i])
            for i in order:
                page.keyboard.press(str(i + 1))
        else:
            page.keyboard.press("2" if lengths[0] <= lengths[1] else "6")  # the shorter response is better
        text = page.locator("#prompt").inner_text() + page.locator("#items").inner_text()
        page.wait_for_function("() => !document.querySelector('#controls[data-delayed]')")
        page.keyboard.press("Enter")
        page.wait_for_function(
            """([before, item]) => !document.querySelector("#empty").hidden
              || (!document.querySelector("#controls").hidden
                  && (["#prompt", "#items"].map((name) => document.querySelector(name).innerText).join("") !== before
                      || document.querySelector("#items .item").dataset.item !== item))""",
            arg=[text, left],
        )
    return count


def wait_until_saved(page: Page) -> None:
    page.wait_for_function("() => document.querySelector('#state').dataset.state === 'saved'")


def stored_judgements(run: Path) -> list[Any]:
    with open_store(run) as store:
        assert store.verify() == store.counts().feedback
        return [event.judgement for event in store.feedback() if event.annotator.startswith("person-")]


def test_labelling_reward_and_ppo_close_the_loop(run: Path, page: Page) -> None:
    output = assent(run, "label", "--tasks-per-prompt", "2", *HUMAN_FLAGS, status=3)
    match = re.search(r"0 of (\d+) tasks judged; annotators label at (http://\S+), then rerun this command", output)
    assert match and page.url.startswith(match[2])
    num_tasks = int(match[1])
    assert judge_tasks(page, run, 30) == 30
    wait_until_saved(page)
    assert re.search(rf"30 of {num_tasks} tasks judged", assent(run, "label", *HUMAN_FLAGS, status=3))
    judge_tasks(page, run, 200)
    wait_until_saved(page)
    assert "done in" in assent(run, "label", *HUMAN_FLAGS)

    assent(run, "label", "--overwrite", "--kind", "ranking", "--tasks-per-prompt", "1", *HUMAN_FLAGS, status=3)
    assert judge_tasks(page, run, 200) >= 5
    wait_until_saved(page)
    assent(run, "label", *HUMAN_FLAGS)
    judgements = stored_judgements(run)
    assert sum(isinstance(judgement, Comparison) for judgement in judgements) >= 30
    assert sum(isinstance(judgement, Ranking) for judgement in judgements) >= 5

    assent(run, "reward", "--lr", "1e-3")
    assent(run, "ppo", "--ungated", "--steps", "2", "--n", "2", "--batch-size", "4", "--lr", "1e-4", *SHORT)
    assent(run, "arena", *SHORT, *HUMAN_FLAGS, status=3)
    assert judge_tasks(page, run, 200) >= 1
    wait_until_saved(page)
    assert "done in" in assent(run, "arena", *SHORT, *HUMAN_FLAGS)
    arena = json.loads((run / "done" / "arena.json").read_text())
    assert set(arena["policies"]) == {"base", "ppo"}

    page.goto(f"/r/{run.name}/progress")
    page.wait_for_selector("body[data-ready]")
    table = page.locator("section:has(#arena-title)").inner_text()
    assert "base" in table and "ppo" in table
    assert page.locator("#stage option").all_inner_texts() == ["reward", "ppo"]
    assert page.locator("#curves svg").count() >= 5


def test_chat_uses_the_newest_policy(run: Path, page: Page) -> None:
    page.goto(f"/r/{run.name}/chat")
    page.wait_for_selector("body[data-ready]")
    assert page.locator("#policy option").all_inner_texts() == ["ppo", "base"]
    before = len(stored_judgements(run))
    page.fill("#message", "Tell me of the duck.")
    page.keyboard.press("Enter")
    page.locator(".thumbs button").first.click()
    wait_until_saved(page)
    assert len(stored_judgements(run)) == before + 1
    with open_store(run) as store:
        assert any(response.policy == "chat:ppo" for response in store.responses())
