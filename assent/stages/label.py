"""Ask annotators which answers are better: make queries about two answers or about all, and gather what they say."""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, Literal

from assent.annotators.simulated import Simulated
from assent.errors import AssentError
from assent.limits import Count
from assent.preferences.convert import split
from assent.protocols import Annotator
from assent.records import Purpose, Query, Response
from assent.store.runs import Run
from assent.training.batching import chunks
from assent.training.meter import Bar

AT_ONCE = 500
"""Answers that are stored in one transaction."""


@dataclass(frozen=True)
class Label:
    """Compare answers to the same prompt."""

    policy: str = ""
    """The name of the answers to compare, as the store keeps it; empty: those that this round generated."""
    kind: Literal["comparison", "ranking"] = "comparison"
    """What is asked: which of two answers is the better, or all answers to a prompt in order."""
    per_prompt: Count = 6
    """Pairs to compare for each prompt, drawn by lot from all pairs of different answers."""
    instruction: str = "Which answer is the better one?"
    """What the annotators are asked."""
    annotator: Annotator = Simulated()

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        store = run.store
        prompts = {prompt.id: prompt for prompt in store.prompts()}
        made = self.policy or (run.result(run.key("generate")) or {}).get("label", "")
        responses = {response.id: response for response in store.responses(policy=made)} if made else {}
        if not responses:
            raise AssentError(f"{run.folder} holds no answers to compare: run 'assent generate' first")
        held_out = split(prompts.values(), run.setup.held_out).held_out
        queries = list(self._queries(responses, held_out, run.seed))
        store.add_queries(queries)
        answered = {feedback.query for feedback in store.feedback()}
        open_queries = [query for query in queries if query.id not in answered]
        with Bar(key, len(queries), len(queries) - len(open_queries)) as bar:
            for some in chunks(open_queries, AT_ONCE):
                answers = list(self.annotator.answer(some, prompts, responses, run.seed, datetime.now(UTC)))
                store.add_feedback(answers)
                bar.advance(len(some))
        asked = {purpose: sum(query.purpose == purpose for query in queries) for purpose in ("train", "evaluate")}
        return {"queries": asked["train"], "held_out": asked["evaluate"], "prompts": len({q.prompt for q in queries})}

    def _queries(self, responses: dict[str, Response], held_out: Collection[str], seed: int) -> Iterator[Query]:
        """What to ask; queries about held-out prompts are for measuring, nothing is trained on them."""
        about: dict[str, list[str]] = {}
        for response in responses.values():
            about.setdefault(response.prompt, []).append(response.id)
        for prompt, items in about.items():
            purpose: Purpose = "evaluate" if prompt in held_out else "train"
            if self.kind == "ranking":
                if len(items) > 1:
                    yield Query("ranking", prompt, tuple(items), purpose, self.instruction)
                continue
            pairs = list(combinations(items, 2))
            random.Random(f"{seed} {prompt}").shuffle(pairs)
            for pair in pairs[: self.per_prompt]:
                yield Query("comparison", prompt, pair, purpose, self.instruction)
