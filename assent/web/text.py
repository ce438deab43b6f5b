"""Untrusted text as harmless HTML: Markdown without HTML or images, then an allow-list sanitiser."""

import html
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import count
from typing import Any

from assent.feedback import WrittenJudgement, default_question, describe
from assent.records import Judgement, Message, Prompt, Response, Task, show_item, show_message
from assent.segments import ENVIRONMENT, is_behaviour

TAGS = {
    "p", "br", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "a", "table", "thead", "tbody", "tr", "th", "td", "mark", "span", "div",
}  # fmt: skip
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that are invisible, or that change the direction of the text around them."""
FLAG = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f"
"""A regional flag, such as England's: a black flag and tag characters. Unicode Technical Standard 51, section 1.4.9."""
JOINERS = "\u200c\u200d"
JOINING_SCRIPTS = re.compile("[\u0590-\u1fff\ufb1d-\ufdff\ufe70-\ufefc]")
"""Scripts that use joiners, even next to Latin letters, as Persian does after an abbreviation."""
DIRECTION_MARKS = "\u061c\u200e\u200f"
RIGHT_TO_LEFT = re.compile("[\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
"""Right-to-left letters. In texts with such letters, direction marks are ordinary."""
SOFT_HYPHEN = "\u00ad"
VERSION = r"(?:[\s_\u2010\u2011-]?[rv]?\d[\d.]*b?)*(?:o|-turbo|-mini)*"
"""Version suffix of a model name: `-7b`, ` 2.5`, `-4o-mini`."""
MAX_CACHED_CHARS = 20_000
"""Characters of the longest text whose HTML is cached."""


def render(text: str) -> str:
    """Return Markdown as harmless HTML. Formulas stay as written; invisible characters appear as their code point."""
    return _rendered(text) if len(text) <= MAX_CACHED_CHARS else _rendered.__wrapped__(text)


def render_turn(message: Message) -> str:
    """Return a turn of a conversation as HTML: Markdown for the assistant, plain text for all other roles."""
    text = show_message(message).text
    return render(text) if message.role == "assistant" else html.escape(show_invisible(text))


def render_completion(text: str, prompt: Prompt) -> str:
    """Return a completion as HTML: Markdown, or plain text if it continues a plain prompt, whose spaces matter."""
    return html.escape(show_invisible(text)) if prompt.is_plain else render(text)


def render_item(response: Response, prompt: Prompt) -> str:
    """Return a response as HTML: with its reasoning and tool calls, or a canvas on which `clip.js` plays a clip."""
    if is_behaviour(prompt):
        return f'<canvas class="clip" data-clip="{response.id}" role="img" aria-label="Clip"></canvas>'
    return render_completion(show_item(response).text, prompt)


def render_turns(prompt: Prompt) -> list[tuple[str, str]]:
    """Return (role, HTML) of the messages that people see: all but the one that names an environment."""
    return [(message.role, render_turn(message)) for message in prompt.messages if message.role != ENVIRONMENT]


def noun_of(prompt: Prompt) -> str:
    """Return what people see of the items of a task: a clip of an agent, or a response."""
    return "clip" if is_behaviour(prompt) else "response"


def instruction_of(task: Task, prompt: Prompt) -> str:
    """Return the instruction of a task; the default question of its kind asks about clips if the items are clips."""
    if not is_behaviour(prompt):
        return task.instruction or default_question(task.kind)
    question = default_question(task.kind)
    return question.replace("answer", "clip") if task.instruction in ("", question) else task.instruction


def summary_of(judgement: Judgement, task: Task, prompt: Prompt) -> str:
    """Return a judgement in words; items are named by what they are and their position in the task."""
    summary = describe(judgement, task)
    return summary.replace("response", noun_of(prompt)) if judgement.items else summary


def text_of(judgement: Judgement) -> str:
    """Return the text of a written judgement, such as a correction; empty for other kinds."""
    return judgement.text if isinstance(judgement, WrittenJudgement) else ""


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
    return show_invisible(clean)  # again, for characters that were written as entities


REL = "noopener noreferrer nofollow"


def show_invisible(text: str) -> str:
    """Replace invisible characters by their code point, except where a script or an emoji needs them."""
    right_to_left = RIGHT_TO_LEFT.search(text) is not None

    def code_point(match: re.Match[str]) -> str:
        char = match[0]
        before = text[: match.start()][-1:]
        after = text[match.end() :][:1]
        if len(char) > 1 or _is_needed(char, before, after, right_to_left):
            return char
        return f"⟦U+{ord(char):04X}⟧"

    return _INVISIBLE_OR_FLAG.sub(code_point, text)


_INVISIBLE_OR_FLAG = re.compile(f"{FLAG}|{INVISIBLE.pattern}")


def _is_needed(char: str, before: str, after: str, right_to_left: bool) -> bool:
    """Return whether an invisible character is legitimate between these two characters."""
    if char in JOINERS:
        is_between_scripts = bool(before and after) and before >= "\u0590" and after >= "\u0590"
        return is_between_scripts or any(JOINING_SCRIPTS.match(side) for side in (before, after))
    if char in DIRECTION_MARKS:
        return right_to_left
    return char == SOFT_HYPHEN and before.isalpha() and after.isalpha()


class Redactor:
    """A redactor of model names in a text, so that no labeller judges a completion by its author. It can undo itself.

    Args:
        names: the names to redact: those of the run's own models, and the list in the settings.
        whole: the text that `text` is a part of, so that a name has the same placeholder everywhere; empty: `text`.
    """

    def __init__(self, text: str, names: tuple[str, ...] = (), whole: str = "") -> None:
        whole = whole or text
        unused = (placeholder for i in count(1) if (placeholder := f"⟦model {i}⟧") not in whole)
        present = dict.fromkeys(match[0] for match in _name_pattern(names).finditer(whole)) if names else {}
        visible = show_invisible(text)
        code_points = {char: f"⟦U+{ord(char):04X}⟧" for char in INVISIBLE.findall(text)}
        self._invisible = {placeholder: char for char, placeholder in code_points.items() if placeholder in visible}
        self._names = dict(zip(present, unused, strict=False))
        self.text = self.redact(text)
        """The text with a unique placeholder for each name and for each invisible character."""

    def redact(self, text: str) -> str:
        """Return a text, which may quote the first one, with placeholders for the names."""
        return _replaced(show_invisible(text), self._names)

    def restore(self, text: str) -> str:
        """Return a text with the names and invisible characters in place of the placeholders."""
        return _replaced(text, self._invisible | {placeholder: name for name, placeholder in self._names.items()})


def _replaced(text: str, replacements: Mapping[str, str]) -> str:
    pattern = "|".join(re.escape(word) for word in sorted(replacements, key=len, reverse=True))
    return re.sub(pattern, lambda match: replacements[match[0]], text) if pattern else text


@cache
def _name_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern of whole words, in any case, with a space, a hyphen or nothing between parts, and a version."""
    gap = r"[\s_\u2010\u2011-]?"
    words = (gap.join(map(re.escape, re.split(r"[\s_-]+", name))) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)}){VERSION}(?!\w)", re.IGNORECASE)


MARKDOWN = frozenset("*_`#+-.!>|~<")
"""Characters that a backslash escapes in Markdown; before any other a backslash is LaTeX, and stays."""
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
    """Return a rule that shows a formula as written, so that a faulty one does not look correct."""

    def rule(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        number = f" ({token.info})" if token.type == "math_block_eqno" else ""
        written = f"{token.markup}{token.content}{CLOSING.get(token.markup, token.markup)}{number}"
        return f'<{tag} class="math">{html.escape(written)}</{tag}>'

    return rule


def _backslash(state: Any, silent: bool) -> bool:
    """Keep a backslash before any character that Markdown does not escape (an inline rule of markdown-it)."""
    following = state.src[state.pos + 1 : state.pos + 2]
    if state.src[state.pos] != "\\" or not following or following in MARKDOWN or following.isspace():
        return False
    if not silent:
        state.pending += "\\" + following
    state.pos += 2
    return True
