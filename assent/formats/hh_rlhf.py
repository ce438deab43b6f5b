"""Transcripts of Human and Assistant, chosen and rejected: the files of hh-rlhf, Bai et al. 2022 (arXiv:2204.05862)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import PAIR, Format, Row, mode, pair, said, soft, text
from assent.records import Completion, Message, Preference, Prompt

ASKED, TOLD = "\n\nHuman:", "\n\nAssistant:"
SPEAKERS = {"user": ASKED, "assistant": TOLD}


@dataclass(frozen=True)
class HHRLHF(Format):
    """The prompt is all up to the last turn of the assistant, and the same on both sides."""

    holds: ClassVar[tuple[type, ...]] = (Preference,)
    reads: ClassVar[frozenset[str]] = PAIR - {"prompt", "tools"}

    def fits(self, row: Row) -> int:
        # Two keys and what stands in them: more than the two keys alone would tell.
        return 3 * ("prompt" not in row and ASKED in str(row.get("chosen")) and TOLD in str(row.get("rejected")))

    def decode(self, row: Row, source: str) -> Iterable[Preference]:
        chosen, rejected = text(row, "chosen"), text(row, "rejected")
        before, mark, reply = chosen.rpartition(TOLD)
        other, _, rival = rejected.rpartition(TOLD)
        if not mark or not chosen.startswith(ASKED):
            raise AssentError("'chosen' is no transcript of Human and Assistant")
        if not rejected.startswith(before + mark):
            raise AssentError("no shared prompt")
        if before != other:
            raise AssentError("'rejected' goes on for another turn, so that the two replies answer different prompts")
        parts = re.split(r"\n\n(Human|Assistant):", before)[1:]
        # One space after the colon belongs to the notation; everything else is somebody's own.
        turns = zip(parts[::2], (part.removeprefix(" ") for part in parts[1::2]), strict=True)
        talk = tuple(Message("user" if who == "Human" else "assistant", words) for who, words in turns)
        sides = (
            Completion(said(words.removeprefix(" "), key)) for words, key in ((reply, "chosen"), (rival, "rejected"))
        )
        return (pair(row, Prompt(talk, mode(row)), *sides),)

    def encode(self, thing: Preference) -> Iterable[Row]:
        if strange := [turn.role for turn in thing.prompt.messages if turn.role not in SPEAKERS]:
            raise AssentError(f"a message of role '{strange[0]}', which a transcript cannot hold")
        before = "".join(f"{SPEAKERS[turn.role]} {turn.content}" for turn in thing.prompt.messages)
        sides = {"chosen": f"{before}{TOLD} {thing.chosen.text}", "rejected": f"{before}{TOLD} {thing.rejected.text}"}
        return ({**sides, **soft(thing)},)
