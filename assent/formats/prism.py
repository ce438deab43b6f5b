"""PRISM: conversations in which a person scores the replies of several models at each turn, and goes on with one.

Kirk et al. 2024 (arXiv:2404.16019); card: https://huggingface.co/datasets/HannahRoseKirk/prism-alignment. Its
`conversations.jsonl` is read, not `utterances.jsonl`, whose rows lack the turns before them.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import Annotation, Provenance, pseudonym, read_time, to_feedback
from assent.formats.files.fields import chat_prompt, count_keys, read_number, read_text, require_objects
from assent.formats.files.layout import Reply, lay_out, rank_replies
from assent.records import Completion, Message, SkippedRow

UTTERANCES = "PRISM's utterances lack the turns before them: import conversations.jsonl of the same set"
TIED = "the reply that the person went on with has the score of another one: they are tied"


@dataclass(frozen=True)
class PRISM(Format):
    """Each turn is a ranking by `score`; the replies with `if_chosen` are the history of later turns."""

    known_keys: ClassVar[frozenset[str]] = frozenset(
        ("conversation_id", "user_id", "opening_prompt", "conversation_history", "open_feedback", "generated_datetime")
    )

    def match_score(self, row: Row) -> int:
        return 2 * (
            count_keys(row, "conversation_history", "opening_prompt")
            or count_keys(row, "utterance_id", "interaction_id")
        )

    def meta_keys(self, row: Row) -> dict[str, str]:
        kept = ("conversation_id", "conversation_type", "included_in_balanced_subset")
        return {key: key for key in kept if key in self.unread_fields(row)}

    def unread_fields(self, row: Row) -> Row:
        read_keys = self.known_keys - {"conversation_id"}
        return {key: value for key, value in row.items() if key not in read_keys} if self.match_score(row) else {}

    def discarded_keys(self, row: Row) -> Collection[str]:
        return ("performance_attributes", "choice_attributes")

    def require_unambiguous(self, row: Row) -> None:
        if "utterance_id" in row and "conversation_history" not in row:
            raise AssentError(UTTERANCES)

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | SkippedRow | Remark]:
        turns = _split_turns(require_objects(row, "conversation_history"))
        timestamp = read_time(row, "generated_datetime")
        user = row.get("user_id")
        annotator = f"prism:{pseudonym(str(user))}" if user else f"imported:{source}"
        messages: tuple[Message, ...] = ()
        for number, (question, entries) in enumerate(turns, 1):
            is_last = number == len(turns)
            comment = read_text(row, "open_feedback") if is_last and row.get("open_feedback") else ""
            provenance = Provenance(
                annotator, timestamp.created_at, origin_id=f"{row.get('conversation_id', '')} turn {number}"
            )
            messages = (*messages, Message("user", question))
            try:
                yield from _rank(messages, entries, comment, provenance, source)
                yield from timestamp.remarks
            except AssentError as error:
                yield SkippedRow(f"turn {number}", str(error))
            chosen = [entry for entry in entries if entry.get("if_chosen")]
            if not chosen and not is_last:
                yield SkippedRow(f"turn {number}", "no reply with 'if_chosen', so later turns have no history")
                return
            messages = (*messages, *(Message("assistant", read_text(entry, "content")) for entry in chosen[:1]))


def _split_turns(history: list[Row]) -> list[tuple[str, list[Row]]]:
    """Return the person's message and the models' replies of each turn."""
    turns: list[tuple[str, list[Row]]] = []
    for entry in history:
        if entry.get("role") == "user":
            turns.append((read_text(entry, "content"), []))
        elif not turns:
            raise AssentError("'conversation_history' does not begin with the user")
        else:
            turns[-1][1].append(entry)
    return turns


def _rank(
    messages: tuple[Message, ...], entries: list[Row], comment: str, provenance: Provenance, source: str
) -> Iterator[TaskWithJudgements | Remark]:
    """Yield the ranking of a turn's replies, the highest score first; equal replies have the higher of their scores."""
    scored = [entry for entry in entries if entry.get("score") is not None]
    replies, tiers = rank_replies((-read_number(entry, "score", 0), _reply(entry, source)) for entry in scored)
    if len(replies) < 2:
        raise AssentError("fewer than two replies with a score")
    chosen = [read_text(entry, "content") for entry in scored if entry.get("if_chosen")]
    texts = [reply.completion.text for reply in replies.values()]
    if any(len(tier) > 1 and texts[index] in chosen for tier in tiers for index in tier):
        yield Remark(TIED)
    layout = lay_out(chat_prompt({}, messages), replies)
    yield from to_feedback(layout, Annotation(tiers=tiers, comment=comment), provenance)


def _reply(entry: Row, source: str) -> Reply:
    model: Any = entry.get("model_name")
    return Reply(Completion(read_text(entry, "content")), str(model or f"imported:{source}"))
