"""OpenAssistant Conversations: trees of messages whose sibling replies volunteers ranked.

Köpf et al. 2023 (arXiv:2304.07327); card: https://huggingface.co/datasets/OpenAssistant/oasst2. Both layouts are read:
a message a row, with the id of its parent, and a tree a row, with `replies` in each message.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Row, TaskWithJudgements
from assent.formats.files.annotation import Annotation, Provenance, to_feedback
from assent.formats.files.fields import (
    chat_prompt,
    count_keys,
    read_number,
    read_text,
    require_object,
    require_objects,
)
from assent.formats.files.layout import Reply, lay_out, rank_replies
from assent.formats.files.rows import RawRow
from assent.records import Completion, Message, SkippedRow

ROLES = {"prompter": "user", "assistant": "assistant"}
POLICY = "human"
"""The policy of replies that no model wrote."""
MESSAGES = "messages"
"""The key under which `gather` puts the messages of a tree."""


@dataclass(frozen=True)
class OASST(Format):
    """The replies to a message with two ranks or more are a ranking; deleted and rejected messages are left out."""

    known_keys: ClassVar[frozenset[str]] = frozenset(
        (
            *("message_id", "parent_id", "text", "role", "rank", "deleted", "review_result", "synthetic"),
            *("model_name", "prompt", MESSAGES),
        )
    )

    def match_score(self, row: Row) -> int:
        is_tree = isinstance(row.get("prompt"), dict) or MESSAGES in row
        return count_keys(row, "message_id", "parent_id", "message_tree_id", "text", "role") or 5 * (
            is_tree and "message_tree_id" in row
        )

    def meta_keys(self, row: Row) -> dict[str, str]:
        return {key: key for key in ("message_tree_id", "lang") if key in row}

    def discarded_keys(self, row: Row) -> Collection[str]:
        return ("labels", "detoxify", "emojis")

    def gather(self, rows: Iterator[RawRow]) -> Iterator[RawRow]:
        """Join the rows of each tree, which stand together, into one."""
        tree: list[RawRow] = []
        for row in rows:
            is_message = row.row is not None and "message_id" in row.row
            if tree and not (is_message and _tree_id(row) == _tree_id(tree[0])):
                yield _join(tree)
                tree = []
            if is_message:
                tree.append(row)
            else:
                yield row
        if tree:
            yield _join(tree)

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | SkippedRow]:
        if MESSAGES in row:
            children, path_of = _link(require_objects(row, MESSAGES))
        else:
            children, path_of = _link(list(_walk(require_object(row, "prompt"))))
        if None not in children:
            raise AssentError("its tree does not begin before it: sort the rows by 'message_tree_id'")
        count = 0
        for parent, replies in children.items():
            ranked = [reply for reply in replies if reply.get("rank") is not None]
            if parent not in path_of or len(ranked) < 2:
                continue
            count += 1
            try:
                yield from _rank(path_of[parent], ranked, source)
            except AssentError as error:
                yield SkippedRow(f"replies to {parent}", str(error))
        if not count:
            raise AssentError("no message has two ranked replies")


def _tree_id(row: RawRow) -> Any:
    return (row.row or {}).get("message_tree_id")


def _join(rows: list[RawRow]) -> RawRow:
    messages = [dict(row.row) for row in rows if row.row is not None]
    tree = {"message_tree_id": messages[0].get("message_tree_id"), "lang": messages[0].get("lang"), MESSAGES: messages}
    return RawRow(rows[0].location, tree, "", tree, len(rows))


def _walk(root: Row) -> Iterator[Row]:
    """Yield the messages of a tree, each with the id of its parent, parents first."""
    waiting: list[tuple[Row, Any]] = [(root, None)]
    while waiting:
        message, parent = waiting.pop(0)
        yield {**message, "parent_id": parent}
        replies = require_objects(message, "replies") if message.get("replies") else []
        waiting += [(reply, message.get("message_id")) for reply in replies]


def _link(messages: list[Row]) -> tuple[dict[Any, list[Row]], dict[Any, tuple[Message, ...]]]:
    """Return the usable replies to each message by its id, and the conversation that ends with it."""
    children: dict[Any, list[Row]] = {}
    for message in messages:
        parent = message.get("parent_id")
        if not isinstance(parent, str | None) or not isinstance(message.get("message_id"), str):
            raise AssentError("a message without a text as 'message_id'")
        if not message.get("deleted") and message.get("review_result") is not False:
            children.setdefault(parent, []).append(message)
    paths: dict[Any, tuple[Message, ...]] = {}
    waiting: list[tuple[Any, tuple[Message, ...]]] = [(None, ())]
    while waiting:
        parent, path = waiting.pop()
        for message in children.get(parent, []):
            role = ROLES.get(read_text(message, "role"))
            if role is None:
                raise AssentError(f"no role '{message['role']}'; known: {', '.join(ROLES)}")
            if message["message_id"] in paths:
                raise AssentError(f"two messages have the id {message['message_id']}")
            turn = Message(role, read_text(message, "text"))
            paths[message["message_id"]] = (*path, turn)
            waiting.append((message["message_id"], (*path, turn)))
    prompts = {name: path for name, path in paths.items() if path[-1].role == "user"}
    return children, prompts


def _rank(path: tuple[Message, ...], replies: list[Row], source: str) -> Iterator[TaskWithJudgements]:
    """Yield the ranking of the replies to the last message of a conversation; rank 0 is the best."""
    ranked: list[tuple[float, Reply]] = []
    for message in replies:
        model = message.get("model_name") if message.get("synthetic") else ""
        reply = Reply(Completion(read_text(message, "text")), str(model or POLICY))
        ranked.append((read_number(message, "rank", 0), reply))
    named, tiers = rank_replies(ranked)
    yield from to_feedback(
        lay_out(chat_prompt({}, path), named), Annotation(tiers=tiers), Provenance(f"imported:{source}")
    )
