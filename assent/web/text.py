"""Text of a model or of a stranger becomes HTML that can do nothing: Markdown without HTML or images, then a sieve."""

import html
import re
from functools import cache, lru_cache
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
    r"\b(?:chat\s?gpt|gpt-?[2-9](?:\.\d)?(?:o|-turbo|-mini)?|openai|claude|anthropic|gemini|google deepmind|"
    r"llama(?:-?\d(?:\.\d)?)?|mi[sx]tral|qwen(?:\d(?:\.\d)?)?|deepseek|smollm\d?|hugging ?face|gemma|grok|copilot)\b",
    re.IGNORECASE,
)
"""Names by which a model might tell which one it is."""
HIDDEN = "[a model's name]"


@lru_cache(maxsize=4096)
def render(text: str) -> str:
    """Markdown as harmless HTML; characters that nobody would see stand there by their number."""
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


def scrub(text: str, names: tuple[str, ...] = ()) -> str:
    """Take out what names a model, so that nobody judges an answer by its author."""
    return _naming(names).sub(HIDDEN, text)


@cache
def _naming(names: tuple[str, ...]) -> re.Pattern[str]:
    own = sorted((re.escape(name) for name in names if len(name) > 3), key=len, reverse=True)
    return re.compile("|".join([*own, MODELS.pattern]), re.IGNORECASE)


def restore(text: str, original: str, names: tuple[str, ...] = ()) -> str:
    """Put the names back that were taken out of an answer, where somebody quotes or mends it."""
    if HIDDEN not in text:
        return text
    taken = [match[0] for match in _naming(names).finditer(original)]
    shown = scrub(original, names)
    first = shown[: shown.index(text)].count(HIDDEN) if text in shown else 0
    parts = text.split(HIDDEN)
    back = [*taken[first:], *[HIDDEN] * len(parts)]
    return "".join(word for pair in zip(parts, [*back[: len(parts) - 1], ""], strict=True) for word in pair)


def plain(text: str) -> str:
    """Text as it is, escaped, for places without Markdown."""
    return html.escape(show_invisible(text))


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")
