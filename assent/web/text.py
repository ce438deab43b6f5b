"""Text of a model or of a stranger becomes HTML that can do nothing: Markdown without HTML or images, then a sieve."""

import html
import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import count
from typing import Any

from assent.models.tokenizer import REASONING
from assent.records import Message, Prompt

TAGS = {
    "p", "br", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "a", "table", "thead", "tbody", "tr", "th", "td", "mark", "span", "div",
}  # fmt: skip
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that show nothing, or turn the text around them."""
FLAG = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f"
"""A flag of a region, such as England's: a black flag and tags, Unicode Technical Standard 51, section 1.4.9."""
JOINERS = "\u200c\u200d"
JOINED = re.compile("[\u0590-\u1fff\ufb1d-\ufdff\ufe70-\ufefc]")
"""Scripts whose letters take joiners, even beside Latin ones, as Persian does after an abbreviation."""
MARKS = "\u061c\u200e\u200f"
RIGHT_TO_LEFT = re.compile("[\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
"""In texts with such letters the marks of direction are ordinary."""
SOFT_HYPHEN = "\u00ad"
VERSION = r"(?:[\s_\u2010\u2011-]?[rv]?\d[\d.]*b?)*(?:o|-turbo|-mini)*"
"""What may follow the name of a model: `-7b`, ` 2.5`, `-4o-mini`."""
CACHED = 20_000
"""Characters of the longest text that is kept rendered."""


def render(text: str) -> str:
    """Markdown as harmless HTML; formulas stand as written, and characters that nobody would see by their number."""
    return _rendered(text) if len(text) <= CACHED else _rendered.__wrapped__(text)


def readable(text: str, extra: Mapping[str, Any]) -> str:
    """A message as Markdown with its other keys: thoughts as a quotation in front, tool calls as JSON behind."""
    thoughts = "\n".join(f"> {line}" for key in REASONING if key in extra for line in str(extra[key]).splitlines())
    rest = {key: value for key, value in extra.items() if key not in REASONING}
    calls = f"```json\n{json.dumps(rest, ensure_ascii=False, indent=1)}\n```" if rest else ""
    return "\n\n".join(part for part in (thoughts, text, calls) if part) if extra else text


def render_turn(message: Message) -> str:
    """A turn of a conversation as HTML: Markdown if it is the assistant's; what people wrote stands as it is."""
    text = readable(message.content, message.extra)
    return render(text) if message.role == "assistant" else html.escape(show_invisible(text))


def render_answer(text: str, prompt: Prompt) -> str:
    """An answer as HTML: Markdown, but a continuation of plain text, whose spaces count, stands as it is."""
    plain = prompt.messages[-1].role == "text"
    return html.escape(show_invisible(text)) if plain else render(text)


@lru_cache(maxsize=1024)
def _rendered(text: str) -> str:
    import nh3

    dirty = _markdown().render(show_invisible(text))
    classes = {"span": {"math"}, "div": {"math"}}
    clean = nh3.clean(
        dirty,
        tags=TAGS,
        attributes={"a": {"href"}},
        allowed_classes=classes,
        url_schemes={"http", "https"},
        link_rel=REL,
    )
    return show_invisible(clean)  # those that were written as entities


REL = "noopener noreferrer nofollow"


def show_invisible(text: str) -> str:
    """Write characters without a shape by their number, but for those that a script or an emoji needs there."""
    right_to_left = RIGHT_TO_LEFT.search(text) is not None

    def number(match: re.Match[str]) -> str:
        char, before, after = match[0], text[: match.start()][-1:], text[match.end() :][:1]
        if len(char) > 1 or _needed(char, before, after, right_to_left):
            return char
        return f"⟦U+{ord(char):04X}⟧"

    return _HIDDEN.sub(number, text)


_HIDDEN = re.compile(f"{FLAG}|{INVISIBLE.pattern}")


def _needed(char: str, before: str, after: str, right_to_left: bool) -> bool:
    """Whether a character without a shape does its ordinary work between these two."""
    if char in JOINERS:
        apart = bool(before and after) and before >= "\u0590" and after >= "\u0590"
        return apart or any(JOINED.match(side) for side in (before, after))
    if char in MARKS:
        return right_to_left
    return char == SOFT_HYPHEN and before.isalpha() and after.isalpha()


class Cover:
    """Covers what names a model in a text, so that nobody judges an answer by its author, and uncovers it again.

    Args:
        names: the names to cover: those of the run's own models, and the project's list.
        whole: what the text is a part of, so that a name has the same sign in all of it; empty: the text itself.
    """

    def __init__(self, text: str, names: tuple[str, ...] = (), whole: str = "") -> None:
        whole = whole or text
        free = (sign for n in count(1) if (sign := f"⟦model {n}⟧") not in whole)
        present = dict.fromkeys(match[0] for match in _naming(names).finditer(whole)) if names else {}
        shown = show_invisible(text)
        numbers = {char: f"⟦U+{ord(char):04X}⟧" for char in INVISIBLE.findall(text)}
        self._unseen = {sign: char for char, sign in numbers.items() if sign in shown}
        self._names = dict(zip(present, free, strict=False))
        self.text = self.over(text)
        """The text with a sign for each name and for each character that nobody sees; no two are alike."""

    def over(self, text: str) -> str:
        """A text, which may quote the first one, without the names that stand there."""
        return _replaced(show_invisible(text), self._names)

    def off(self, text: str) -> str:
        """The same with the names."""
        return _replaced(text, self._unseen | {sign: name for name, sign in self._names.items()})


def _replaced(text: str, new: Mapping[str, str]) -> str:
    some = "|".join(re.escape(word) for word in sorted(new, key=len, reverse=True))
    return re.sub(some, lambda match: new[match[0]], text) if some else text


@cache
def _naming(names: tuple[str, ...]) -> re.Pattern[str]:
    """Whole words, in capitals or not, with a space, a hyphen or nothing between their parts, and with a version."""
    gap = r"[\s_\u2010\u2011-]?"
    words = (gap.join(map(re.escape, re.split(r"[\s_-]+", name))) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)}){VERSION}(?!\w)", re.IGNORECASE)


# Markdown


MARKDOWN = frozenset("*_`#+-.!>|~<")
"""Signs of Markdown that a backslash takes the meaning from; before others it is LaTeX, and stays."""
CLOSING = {"\\(": "\\)", "\\[": "\\]"}


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.amsmath import amsmath_plugin
    from mdit_py_plugins.dollarmath import dollarmath_plugin
    from mdit_py_plugins.texmath import texmath_plugin

    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")
    markdown.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    markdown.use(texmath_plugin, delimiters="brackets").use(amsmath_plugin)
    markdown.inline.ruler.before("escape", "backslash", _backslash)
    for name in ("math_inline", "math_inline_double"):
        markdown.add_render_rule(name, _formula("span"))
    for name in ("math_block", "math_block_eqno", "amsmath"):
        markdown.add_render_rule(name, _formula("div"))
    return markdown


def _formula(tag: str) -> Any:
    """A rule that shows a formula as it was written: a faulty one must not look like a right one."""

    def rule(renderer: Any, tokens: Any, place: int, options: Any, env: Any) -> str:
        token = tokens[place]
        number = f" ({token.info})" if token.type == "math_block_eqno" else ""
        written = f"{token.markup}{token.content}{CLOSING.get(token.markup, token.markup)}{number}"
        return f'<{tag} class="math">{html.escape(written)}</{tag}>'

    return rule


def _backslash(state: Any, silent: bool) -> bool:
    """An inline rule: a backslash stays before all that is no sign of Markdown."""
    following = state.src[state.pos + 1 : state.pos + 2]
    if state.src[state.pos] != "\\" or not following or following in MARKDOWN or following.isspace():
        return False
    if not silent:
        state.pending += "\\" + following
    state.pos += 2
    return True
