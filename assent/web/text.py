"""Text of a model or of a stranger becomes HTML that can do nothing: Markdown without HTML or images, then a sieve."""

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import count
from typing import Any

TAGS = {
    "p", "br", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "a", "table", "thead", "tbody", "tr", "th", "td", "mark",
}  # fmt: skip
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that show nothing, or turn the text around them; two of them join letters of some scripts."""
JOINERS = "\u200c\u200d"
MODELS = re.compile(
    r"(?<![a-z0-9])(?:chat[\s_-]?gpt|gpt[\s_\u2010\u2011-]?\d[\d.]*(?:o|-turbo|-mini)?|openai|claude|anthropic|gemini|"
    r"google[\s_-]?deepmind|llama|mi[sx]tral|qwen|qwq|deepseek|smollm|hugging[\s_-]?face|gemma|grok|copilot|"
    r"phi[\s_-]?\d|falcon[\s_-]?\d+b|o[134]-(?:mini|preview))(?:[\s_\u2010\u2011-]?[rv]?\d[\d.]*b?)*(?![a-z])",
    re.IGNORECASE,
)
"""Names by which a model might tell which one it is."""
CACHED = 20_000
"""Characters of the longest text that is kept rendered."""


def render(text: str) -> str:
    """Markdown as harmless HTML; characters that nobody would see stand there by their number."""
    return _rendered(text) if len(text) <= CACHED else _rendered.__wrapped__(text)


@lru_cache(maxsize=1024)
def _rendered(text: str) -> str:
    import nh3

    made = _markdown().render(show_invisible(text))
    safe = nh3.clean(made, tags=TAGS, attributes={"a": {"href"}}, url_schemes={"http", "https"}, link_rel=REL)
    return show_invisible(safe)  # those that were written as entities


REL = "noopener noreferrer nofollow"


def show_invisible(text: str) -> str:
    """Write characters without a shape by their number, but for joiners in scripts that need them, and in emoji."""

    def name(match: re.Match[str]) -> str:
        around = text[max(match.start() - 1, 0) : match.start()] + text[match.end() : match.end() + 1]
        if match[0] in JOINERS and len(around) == 2 and all(c >= "\u0590" for c in around):
            return match[0]
        return f"⟦U+{ord(match[0]):04X}⟧"

    return INVISIBLE.sub(name, text)


class Cover:
    """Covers what names a model in a text, so that nobody judges an answer by its author, and uncovers it again.

    Args:
        names: further names, of models of one's own.
    """

    def __init__(self, text: str, names: tuple[str, ...] = ()) -> None:
        free = (sign for n in count(1) if (sign := f"⟦model {n}⟧") not in text)
        found = dict.fromkeys(match[0] for match in _naming(names).finditer(text))
        unseen = {char: show_invisible(char) for char in INVISIBLE.findall(text) if char not in JOINERS}
        self._signs = {**unseen, **dict(zip(found, free, strict=False))}
        self.text = self.over(text)
        """The text with a sign for each name and for each character that nobody sees; no two are alike."""

    def over(self, text: str) -> str:
        """A text, which may quote the first one, without the names that stand there."""
        return _replaced(text, self._signs)

    def off(self, text: str) -> str:
        """The same with the names."""
        return _replaced(text, {sign: name for name, sign in self._signs.items()})


def _replaced(text: str, new: Mapping[str, str]) -> str:
    some = "|".join(re.escape(word) for word in sorted(new, key=len, reverse=True))
    return re.sub(some, lambda match: new[match[0]], text) if some else text


@cache
def _naming(names: tuple[str, ...]) -> re.Pattern[str]:
    own = sorted((name for name in names if re.search(r"[\d/_-]", name)), key=len, reverse=True)
    return re.compile("|".join([*(rf"(?<!\w){re.escape(name)}(?!\w)" for name in own), MODELS.pattern]), re.IGNORECASE)


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")
