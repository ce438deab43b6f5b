"""Ask annotators what they think of answers: make queries, and gather what is said of them."""

import random
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations, groupby, islice
from typing import Any, Literal

from assent.annotators.simulated import Simulated
from assent.config import plugin
from assent.errors import AssentError, warn
from assent.feedback import asks
from assent.labelling.accounts import people_of
from assent.labelling.queue import Ask, TaskQueue
from assent.preferences.select import Candidate, Rule, distinct, select
from assent.protocols import Annotator, Stage
from assent.records import Feedback, Prompt, Purpose, Response, Task
from assent.registry import names
from assent.rewards.model import Model
from assent.run import Run
from assent.split import split
from assent.store.database import Store
from assent.training.batching import chunks
from assent.training.logging import ProgressBar
from assent.types import Fraction, NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class Label(Stage):
    """Ask people, or simulated ones, about answers."""

    policy: str = ""
    """The name of the answers to ask about, as the store keeps it; empty: those that this round generated, or else
    the imported ones that no person has judged."""
    kind: Literal["comparison", "ranking", "rating", "approval", "critique", "correction", "demonstration"] = (
        "comparison"
    )
    """What is asked for: a choice between two answers, an order of several, a mark, words, or an own answer."""
    tasks_per_prompt: PositiveInt = 6
    """Queries about each prompt, drawn by lot: pairs of different answers, groups to rank, or single answers."""
    max_ranking_size: PositiveInt = 9
    """Answers in one ranking, at most; where there are more, they are ranked in groups."""
    num_tasks: NonNegativeInt = 0
    """Comparisons in all about training prompts, chosen by `rule` from all pairs; 0: `per_prompt` of each."""
    acquisition: Rule = "uniform"
    """What makes a comparison worth asking for: that members of a reward ensemble differ (disagreement, bald), that it
    is unsure (entropy), or that it teaches directions that are not known yet (d_optimal)."""
    random_fraction: Fraction = 0.2
    """Share of `count` that is drawn by lot whatever the rule, so that what is measured on it holds for all."""
    reward: str = ""
    """The reward model that the rule looks at; empty: the run's newest."""
    instruction: str = ""
    """What the annotators are asked; empty: the usual words for the kind."""
    annotator: Annotator = plugin("annotators", Simulated(), lambda: names("annotators"))
    """Who answers: `human` waits for people on the pages of `assent serve`."""

    def __post_init__(self) -> None:
        if self.acquisition != "uniform" and not self.num_tasks:
            raise ValueError(f"rule = {self.acquisition}: say how many comparisons it is to choose, with count")
        if self.num_tasks and self.kind != "comparison":
            raise ValueError(f"count = {self.num_tasks} chooses comparisons, not {self.kind}s: leave it out")

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        store = run.store
        prompts = {prompt.id: prompt for prompt in store.prompts()}
        made = self.policy or (run.result(run.key("generate")) or {}).get("label", "")
        if not made and self.kind == "demonstration":
            items: Iterable[Response] = ()  # about every prompt
        else:
            items = store.responses(policy=made) if made else _unjudged(store, key)
        responses = {response.id: response for response in items}
        if not responses and self.kind != "demonstration":
            what = "run 'assent generate' first, or import answers that nobody has judged"
            raise AssentError(f"{run.folder} holds no answers to ask about: {what}")
        held_out = split(prompts.values(), run.setup.held_out).held_out
        queries = list(self._queries(prompts, responses, held_out, run.seed))
        if self.num_tasks:
            queries = [query for query in queries if query.purpose == "evaluate"]
            queries += self._choose(run, key, prompts, responses, held_out)
        if not queries:
            answered = len({response.prompt for response in responses.values()})
            warn(f"nothing to ask: none of the {answered} prompts has two different answers; draw more, or hotter")
        gather(run, key, queries, self.annotator)
        asked = {purpose: sum(query.purpose == purpose for query in queries) for purpose in ("train", "evaluate")}
        return {"queries": asked["train"], "held_out": asked["evaluate"], "prompts": len({q.prompt for q in queries})}

    def _queries(
        self, prompts: dict[str, Prompt], responses: dict[str, Response], held_out: Collection[str], seed: int
    ) -> Iterator[Task]:
        """What to ask; queries about held-out prompts are for measuring, nothing is trained on them."""
        about: dict[str, list[str]] = {} if responses else {prompt: [] for prompt in prompts}
        for response in responses.values():
            about.setdefault(response.prompt, []).append(response.id)
        words = self.instruction or asks(self.kind)
        for prompt, items in about.items():
            purpose: Purpose = "evaluate" if prompt in held_out else "train"
            luck = random.Random(f"{seed} {prompt}")
            for some in self._groups(items, luck):
                yield Task(self.kind, prompt, some, purpose, words)

    def _choose(
        self,
        run: Run,
        key: str,
        prompts: dict[str, Prompt],
        responses: dict[str, Response],
        held_out: Collection[str],
    ) -> list[Task]:
        """The most telling comparisons of all, logged with the chance that each had of being chosen."""
        about: dict[str, list[Response]] = {}
        for response in responses.values():
            if response.prompt not in held_out:
                about.setdefault(response.prompt, []).append(response)
        model = None
        if self.acquisition != "uniform":
            model = Model.load(run.policy(self._judge(run)), run.dtype, run.device, run.rendering)
            readable = model.language.codec.renderable([prompts[name] for name in about])
            about = {prompt.id: about[prompt.id] for prompt in readable}
        rows = [(prompts[name], response) for name, some in about.items() for response in some]
        pairs = [Candidate(name, a.id, b.id) for name, some in about.items() for a, b in combinations(some, 2)]
        apart = distinct(pairs, {response.id: response.text for _, response in rows})
        scores: dict[str, list[float]] = {}
        features: dict[str, list[float]] | None = None
        if model is not None:
            asked, answers = [prompt for prompt, _ in rows], [response for _, response in rows]
            found = model.score(asked, answers) * model.deviations
            if self.acquisition in ("disagreement", "bald") and found.shape[1] < 2:
                why = "one model cannot disagree with itself: train several with 'assent reward --heads 4'"
                raise AssentError(f"rule = {self.acquisition} wants an ensemble; {why}")
            scores = {r.id: s for r, s in zip(answers, found.tolist(), strict=True)}
            states = model.features(asked, answers).tolist()
            features = {r.id: s for r, s in zip(answers, states, strict=True)}
        chosen = select(
            apart.candidates, self.acquisition, self.num_tasks, scores, features, run.seed, self.random_fraction
        )
        words = self.instruction or asks("comparison")
        made = [Task("comparison", one.candidate.prompt, one.candidate[1:], "train", words) for one in chosen]
        logged = zip(made, chosen, strict=True)
        TaskQueue(run.store).post((Ask(query, 0, one.rule, one.propensity) for query, one in logged), key)
        if apart.near_identical:
            warn(f"{apart.near_identical} pairs of almost the same words are not asked about")
        return made

    def _judge(self, run: Run) -> str:
        """The newest reward model of the run."""
        rounds = [f"reward-{number}" for number in range(run.round, 1, -1)]
        name = self.reward or next((name for name in (*rounds, "reward") if name in run.models), "")
        if not name:
            raise AssentError(
                f"rule = {self.acquisition} looks at a reward model, and {run.folder} has none: take uniform"
            )
        return name

    def _groups(self, items: list[str], luck: random.Random) -> list[tuple[str, ...]]:
        """Which answers to one prompt are asked about together."""
        if self.kind == "demonstration":
            return [()]
        if self.kind == "ranking":
            if len(items) > self.max_ranking_size:
                luck.shuffle(items)
            groups = [tuple(some) for some in chunks(items, self.max_ranking_size)]
            return [some for some in groups if len(some) > 1][: self.tasks_per_prompt]
        if self.kind == "comparison":
            pairs = list(combinations(items, 2))
            luck.shuffle(pairs)
            return [*pairs[: self.tasks_per_prompt]]
        luck.shuffle(items)
        return [(item,) for item in items[: self.tasks_per_prompt]]


def _unjudged(store: Store, key: str) -> Iterator[Response]:
    """The imported answers that no person has judged, but for what people said in this stage."""
    here = {event.id for event in TaskQueue(store).said_of(key)}
    answered = {event.task for event in store.feedback() if event.by_person and event.id not in here}
    judged = {item for query in store.tasks() if query.id in answered for item in query.items}
    for response in store.responses():
        if response.policy.startswith("imported:") and response.id not in judged:
            yield response


def gather(run: Run, key: str, queries: list[Task], annotator: Annotator) -> list[Feedback]:
    """Put queries to an annotator, store the answers as they come, and return every answer to them that counts.

    For a stage of people only what people answered counts, not a rehearsal with simulated annotators.
    """
    store = run.store
    store.add_tasks(queries)
    about = {query.id: query for query in queries}

    def counted() -> list[Feedback]:
        events = (event for event in store.feedback() if event.task in about)
        return [event for event in events if event.by_person or not annotator.human]

    answered = {event.task for event in counted()}
    missing = [query for query in queries if query.id not in answered]
    prompts = {prompt.id: prompt for prompt in store.prompts(ids=[query.prompt for query in missing])}
    items = (item for query in missing for item in query.items)
    responses = {response.id: response for response in store.responses(ids=items)}
    with ProgressBar(key, len(queries), len(answered)) as bar:
        desk = TaskQueue(store, people=people_of(run.folder, store))
        told = annotator.answer(missing, prompts, responses, run.seed, datetime.now(UTC), desk, key)
        votes = (list(events) for _, events in groupby(told, key=lambda event: event.task))
        while some := list(islice(votes, annotator.batch_size)):
            store.add_feedback(event for events in some for event in events)
            heard = {events[0].task for events in some}
            bar.advance(len(heard - answered))
            answered |= heard
    return counted()
