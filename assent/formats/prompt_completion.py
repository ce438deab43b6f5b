"""A prompt and a completion to imitate: https://huggingface.co/docs/trl/dataset_formats"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.formats import EXAMPLE, Format, Row, content, has, prompt_of, reply, turn, weighed, weight
from assent.records import SFTExample


@dataclass(frozen=True)
class PromptCompletion(Format):
    """The completion stands apart from the prompt."""

    holds: ClassVar[tuple[type, ...]] = (SFTExample,)
    tabular: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = EXAMPLE | {"completion"}

    def fits(self, row: Row) -> int:
        return has(row, "prompt", "completion")

    def decode(self, row: Row, source: str) -> Iterable[SFTExample]:
        prompt = prompt_of(row)
        return (SFTExample(prompt, reply(row, "completion", prompt), weight(row)),)

    def encode(self, thing: SFTExample) -> Iterable[Row]:
        sides = {"prompt": content(thing.prompt), "completion": turn(thing.prompt, thing.completion)}
        return ({**sides, **weighed(thing)},)
