"""Rendering of untrusted text: harmless HTML, visible characters, redacted model names."""

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_server import HOSTILE, ParsedPage, is_harmless

from assent.records import Message, Prompt
from assent.web.text import Redactor, render, render_completion, render_turn, show_invisible

ALLOWED = {
    "p", "br", "em", "strong", "s", "del", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5",
    "h6", "hr", "a", "table", "thead", "tbody", "tr", "th", "td", "mark",
}  # fmt: skip


UNSEEN = [
    *"\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e",
    *"\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u206a\u206f\u3164\ufeff\uffa0\ufff9\ufffa\ufffb",
    *"\U0001d173\U000e0001\U000e0020\U000e0041\U000e007f",
]
"""Characters without a shape, or that turn the text around them; tags (U+E00xx) can hide whole sentences."""


def check_text(source: str) -> ParsedPage:
    """Assert that nothing in a text can run, load or hide."""
    html_text = render(source)
    read = ParsedPage(html_text)
    assert read.suspicious == []
    for tag, attributes in read.tags:
        assert tag in ALLOWED, html_text
        assert set(attributes) <= ({"href", "rel", "title"} if tag == "a" else set()), html_text
        if "href" in attributes:
            assert is_harmless(attributes["href"]), html_text
            assert "noopener" in attributes["rel"]
    words = "".join(read.texts)
    for unseen in UNSEEN:
        assert unseen not in words and unseen not in html_text, (hex(ord(unseen)), html_text)
    return read


@pytest.mark.parametrize("source", HOSTILE)
def test_render_makes_hostile_text_harmless(source: str) -> None:
    assert len(HOSTILE) >= 60
    check_text(source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("<b>bold</b> & <i>more</i>", "<b>bold</b> & <i>more</i>"),
        ("1 < 2 && 3 > 2", "1 < 2 && 3 > 2"),
        ("Use `<br>` there.", "Use <br> there."),
        ("![a picture](http://evil.example/x.png)", "a picture"),
        ("نص عربي", "نص عربي"),
        ("👩‍👩‍👧 क्‍ष", "👩‍👩‍👧 क्‍ष"),
    ],
)
def test_render_keeps_text_readable(source: str, words: str) -> None:
    assert words in "".join(check_text(source).texts)


FORMULAS = [
    r"The roots are \(x_1 = 2\) and \(x_2 = 3\).",
    "\\[ x = \\frac{-b \\pm \\sqrt{b^2 - 4ac}}{2a} \\]",
    "\\[\na * b\n- c * d\n\\]",
    r"In general $a_i * b_i * c_i$ and $\{1, 2\} \subset A_1$.",
    "$$\n\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}\n$$",
    r"Outside of a formula \{1, 2\}, \[0, 1\], 50\% and a \\ b.",
    "\\begin{align} a &= b \\\\ c &= d \\end{align}",
    "It costs $5 and then $6 * 2 * 3.",
]


@pytest.mark.parametrize("source", FORMULAS)
def test_render_keeps_formulas_as_written(source: str) -> None:
    shown = html.unescape(re.sub("<[^>]+>", "", render(source)))
    assert shown.strip() == source
    assert "<em>" not in render(source)


def test_render_keeps_markdown_escapes() -> None:
    assert render(r"\*not emphasis\* \_nor this\_ 1\. \# \`x\`") == "<p>*not emphasis* _nor this_ 1. # `x`</p>\n"


def test_render_turn_escapes_user_messages() -> None:
    written = "Use __init__:\n\n    indented  twice\n- dash &lt;b&gt; <b>"
    escaped = "Use __init__:\n\n    indented  twice\n- dash &amp;lt;b&amp;gt; &lt;b&gt;"
    assert render_turn(Message("user", written)) == render_turn(Message("text", written)) == escaped
    assert "<strong>" in render_turn(Message("assistant", written))
    assert render_completion(" and so on", Prompt.plain("He ran")) == " and so on"
    assert render_completion("*so*", Prompt.ask("Why?")) == "<p><em>so</em></p>\n"


def test_render_supports_markdown() -> None:
    read = check_text(
        "# Title\n\n**bold** *it*\n\n* one\n* two\n\n```python\nx = 1\n```\n\n[here](https://example.org)"
    )
    assert {"h1", "strong", "em", "ul", "li", "pre", "code", "a"} <= {tag for tag, _ in read.tags}
    assert [attributes["href"] for tag, attributes in read.tags if tag == "a"] == ["https://example.org"]


PLACES = ["a{}b", "`a{}b`", "**{}**", "[a{}b](http://example.org)", "[x](http://example.org/{})", "| {} |\n|--|\n| x |"]


@pytest.mark.parametrize("unseen", UNSEEN, ids=lambda unseen: f"U+{ord(unseen):04X}")
def test_render_shows_invisible_characters(unseen: str) -> None:
    for place in (*PLACES, "<http://example.org/{}>"):
        check_text(place.replace("{}", unseen))


NAMED = ["&ZeroWidthSpace;", "&lrm;", "&rlm;", "&NoBreak;", "&InvisibleTimes;", "&af;"]
NUMBERED = [
    form.format(number) for number in (0x200B, 0x202E, 0x2066, 0xFEFF) for form in ("&#{};", "&#x{:x};", "&#X0{:X};")
]


@pytest.mark.parametrize("entity", NAMED + NUMBERED)
def test_render_shows_invisible_characters_of_entities(entity: str) -> None:
    for place in PLACES:
        check_text(place.replace("{}", entity))


@pytest.mark.parametrize("place", ["http://example.org/%E2%80%AEgnp.exe", "http://example.org/%E2%80%8Bx"])
def test_render_shows_invisible_characters_of_autolinks(place: str) -> None:
    check_text(f"<{place}>")


@pytest.mark.parametrize(
    "text",
    ["Die Donau\u00addampf\u00adschiff.", "من از API\u200cها و نرم\u200cافزار", "\u200fשלום!\u200f וגם C#\u200e.",
     "क्\u200dष", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
     "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"],
    ids=["soft hyphens", "Persian beside Latin", "marks in Hebrew", "Hindi", "a family", "England's flag"],
)  # fmt: skip
def test_show_invisible_keeps_needed_characters(text: str) -> None:
    assert show_invisible(text) == text == Redactor(text).text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("pass\u00ad", "pass⟦U+00AD⟧"), ("a\u200fb", "a⟦U+200F⟧b"),
     ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4⟦U+E0067⟧⟦U+E007F⟧"),
     ("\U0001f600\u200da", "\U0001f600⟦U+200D⟧a"), ("שלום\u202eabc", "שלום⟦U+202E⟧abc")],
    ids=["at the end", "no Hebrew about", "no flag", "joins nothing", "an override"],
)  # fmt: skip
def test_show_invisible_replaces_unneeded_characters(text: str, shown: str) -> None:
    assert show_invisible(text) == shown
    assert Redactor(text).restore(Redactor(text).text) == text


def test_render_shows_joiners_between_latin_letters() -> None:
    assert "\u200d" not in render("pass\u200dword") and "\u200c" not in render("pass\u200cword")
    assert "\u200d" not in render("pass&zwj;word") and "\u200c" not in render("pass&zwnj;word")


PIECES = [
    "<",
    ">",
    '"',
    "'",
    "`",
    "&",
    "#",
    ";",
    "x",
    ":",
    "/",
    "(",
    ")",
    "[",
    "]",
    "!",
    "*",
    "_",
    "\\",
    "\n",
    " ",
    "=",
]
PIECES += [
    "<script>",
    "</script>",
    "<img src=x onerror=alert(1)>",
    "javascript:",
    "data:",
    "http://a",
    "&#x6a;",
    "\u202e",
]
PIECES += ["&#x202e;", "<!--", "-->", "<![CDATA[", "|", "-", "~~~", "\t", "\x00", "<svg", "onload=", "&colon;", "1."]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=60))
def test_render_makes_any_text_harmless(source: str) -> None:
    html_text = render(source)
    read = ParsedPage(html_text)
    assert read.suspicious == []
    for tag, attributes in read.tags:
        assert tag in ALLOWED
        assert set(attributes) <= ({"href", "rel", "title"} if tag == "a" else set())
        assert is_harmless(attributes.get("href", ""))


LISTED = ("ChatGPT", "GPT-3", "GPT-4", "Claude", "Llama", "Qwen", "DeepSeek", "Phi-4", "QwQ", "o3-mini", "Falcon",
          "SmolLM", "Command R+", "Moonshot AI", "Yi-34B", "acme/none-1b")  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["ChatGPT4", "GPT-35", "GPT\u20114", "Claude_3", "claude-3.5", "Llama_3", "Qwen_2", "Qwen2.5-7B", "DeepSeekR1",
     "Phi-4", "QwQ-32B", "o3-mini", "Falcon-40b", "SmolLM2", "GPT-4o-mini", "Command R+", "MOONSHOT AI", "MoonshotAI",
     "yi 34b", "acme/none-1b"],
)  # fmt: skip
def test_redactor_covers_spellings_of_model_names(name: str) -> None:
    text = f"I am {name}, of course."
    cover = Redactor(text, LISTED)
    assert cover.text == "I am ⟦model 1⟧, of course." and cover.restore(cover.text) == text


@pytest.mark.parametrize("text", ["A llamasoft game.", "Nonetheless, clauded skies.", "Use 3 or 4 of them."])
def test_redactor_keeps_similar_words(text: str) -> None:
    assert Redactor(text, LISTED).text == text
