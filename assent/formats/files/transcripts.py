"""Transcripts of Human and Assistant, as in the files of hh-rlhf (arXiv:2204.05862)."""

import re

from assent.records import Message

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"


def split_transcript(text: str) -> tuple[Message, ...]:
    """Return the turns of a transcript that begins with `HUMAN`."""
    parts = re.split(r"\n\n(Human|Assistant):", text)[1:]
    # One space after the colon belongs to the notation; everything else to the text.
    turns = zip(parts[::2], (part.removeprefix(" ") for part in parts[1::2]), strict=True)
    return tuple(Message("user" if speaker == "Human" else "assistant", text) for speaker, text in turns)


def read_open_transcript(text: str) -> tuple[Message, ...]:
    """Return the turns of a transcript that ends where the assistant replies; none of any other text."""
    transcript, mark, reply = text.rpartition(ASSISTANT)
    return split_transcript(transcript) if mark and not reply.strip() and text.startswith(HUMAN) else ()
