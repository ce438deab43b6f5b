"""Human feedback: turn responses into annotation tasks, and collect the judgements."""

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

from assent.annotators.simulated import Simulated
from assent.config import plugin
from assent.errors import AssentError, did_you_mean, warn
from assent.feedback import default_question
from assent.labelling.collect import collect_judgements
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.preferences.candidates import Signals, add_items, candidate_pairs, compute_signals, previous_pairs
from assent.preferences.select import Acquisition, SelectedPair, select
from assent.protocols import Annotator, Stage
from assent.records import Prompt, Purpose, Response, Task
from assent.registry import names
from assent.rewards.model import Model
from assent.run import Run
from assent.seeds import named_rng
from assent.segments import is_behaviour
from assent.split import split
from assent.store.database import Store
from assent.training.batching import chunks
from assent.types import Fraction, NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class Label(Stage):
    """Have annotators judge responses."""

    aim: ClassVar[str] = "annotators say which responses are better"
    policy: str = ""
    """Responses to label, by the policy name that the store has for them; empty: those that this round generated, or
    else the imported ones that no human has judged."""
    kind: str = "comparison"
    """Kind of judgement: `comparison` of two responses, `ranking` of several, `rating`, `approval`, `critique` or
    `correction` of one, or a `demonstration` written by the annotator."""
    tasks_per_prompt: PositiveInt = 6
    """Maximum number of tasks per prompt; pairs and single responses are drawn at random."""
    max_ranking_size: PositiveInt = 9
    """Maximum number of responses in a ranking; more are split into several rankings."""
    num_tasks: NonNegativeInt = 0
    """Number of comparisons of training prompts, selected by `acquisition` from all pairs; 0: `tasks_per_prompt`."""
    acquisition: Acquisition = "uniform"
    """Acquisition function: reward-ensemble uncertainty (`disagreement`, `bald`), entropy of the predicted preference
    (`entropy`), Bayesian D-optimal design (`d_optimal`), or random (`uniform`). No pair is asked about again."""
    random_fraction: Fraction = 0.2
    """Fraction of `num_tasks` drawn uniformly at random, for unbiased evaluation."""
    reward: str = ""
    """Reward model of the acquisition function; empty: the newest of the run."""
    instruction: str = ""
    """Question to the annotators; empty: the default of the kind."""
    annotator: Annotator = plugin("annotators", Simulated(), lambda: names("annotators"))
    """Annotators: `simulated`, or `human` for the pages of `assent serve`."""

    def __post_init__(self) -> None:
        if self.kind not in names("feedback"):
            raise ValueError(f"no kind of feedback '{self.kind}'{did_you_mean(self.kind, names('feedback'))}")
        if self.acquisition != "uniform" and not self.num_tasks:
            raise ValueError(f"acquisition = {self.acquisition} needs num_tasks: the number of comparisons to select")
        if self.num_tasks and self.kind != "comparison":
            raise ValueError(f"num_tasks = {self.num_tasks} selects comparisons, not {self.kind}s; leave it out")

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        prompts = {prompt.id: prompt for prompt in run.store.prompts()}
        if any(map(is_behaviour, prompts.values())):
            self._check_for_clips()
        responses = self._load_responses(run, key)
        held_out = split(prompts.values(), run.setup.held_out).held_out
        tasks = list(self._sample_tasks(prompts, responses, held_out, run.seed))
        if self.num_tasks:
            tasks = [task for task in tasks if task.purpose == "evaluate"]
            tasks += self._select_comparisons(run, key, prompts, responses, held_out)
        if not tasks:
            _warn_of_no_tasks(responses, bool(self.num_tasks))
        collect_judgements(run, key, tasks, self.annotator)
        count = Counter(task.purpose for task in tasks)
        num_prompts = len({task.prompt for task in tasks})
        return {"tasks": count["train"], "held_out": count["evaluate"], "prompts": num_prompts}

    def _check_for_clips(self) -> None:
        if self.kind in ("correction", "demonstration"):
            raise AssentError(f"nobody can write a clip: --kind {self.kind} is for texts; use comparison or rating")
        if self.acquisition != "uniform":
            raise AssentError(
                f"--acquisition {self.acquisition} is for texts: 'assent label' draws clips at random, and only "
                "'assent control' selects them"
            )

    def _load_responses(self, run: Run, key: str) -> list[Response]:
        policy = self.policy or (run.result(run.key("generate")) or {}).get("label", "")
        if not policy and self.kind == "demonstration":
            return []  # every prompt gets a task
        rows = run.store.responses(policy=policy) if policy else _unjudged_imports(run.store, key)
        responses = {response.id: response for response in rows}
        if not responses and self.kind != "demonstration":
            remedy = "run 'assent generate' first, or import responses that no human has judged"
            if any(map(is_behaviour, run.store.prompts())):
                remedy = "name clips by their rollout, such as --policy control#0, or import some without a judgement"
            raise AssentError(f"{run.folder} holds no responses to label; {remedy}")
        return list(responses.values())

    def _sample_tasks(
        self, prompts: Mapping[str, Prompt], responses: Sequence[Response], held_out: Collection[str], seed: int
    ) -> Iterator[Task]:
        """Yield random tasks for each prompt; those of held-out prompts are for evaluation, never for training."""
        items_by_prompt: dict[str, list[str]] = {} if responses else {prompt: [] for prompt in prompts}
        for response in responses:
            items_by_prompt.setdefault(response.prompt, []).append(response.id)
        instruction = self.instruction or default_question(self.kind)
        for prompt, items in items_by_prompt.items():
            purpose: Purpose = "evaluate" if prompt in held_out else "train"
            for group in self._sample_groups(items, named_rng(seed, prompt)):
                yield Task(self.kind, prompt, group, purpose, instruction)

    def _sample_groups(self, items: list[str], rng: random.Random) -> list[tuple[str, ...]]:
        """Return the groups of a prompt's items that share a task."""
        match self.kind:
            case "demonstration":
                return [()]
            case "ranking":
                if len(items) > self.max_ranking_size:
                    rng.shuffle(items)
                rankings = [tuple(group) for group in chunks(items, self.max_ranking_size)]
                return [group for group in rankings if len(group) > 1][: self.tasks_per_prompt]
            case "comparison":
                pairs = list(combinations(items, 2))
                rng.shuffle(pairs)
                return [*pairs[: self.tasks_per_prompt]]
        rng.shuffle(items)
        return [(item,) for item in items[: self.tasks_per_prompt]]

    def _select_comparisons(
        self,
        run: Run,
        key: str,
        prompts: Mapping[str, Prompt],
        responses: Sequence[Response],
        held_out: Collection[str],
    ) -> list[Task]:
        """Select comparisons of training prompts by the acquisition function, and log their propensities."""
        by_prompt = _group_by_prompt(response for response in responses if response.prompt not in held_out)
        previous = previous_pairs(run.store, key, humans_only=self.annotator.is_human)
        previous = [pair for pair in previous if pair.prompt not in held_out]
        model = None
        if self.acquisition != "uniform":
            model = self._load_reward_model(run)
            prompt_ids = dict.fromkeys([*by_prompt, *(pair.prompt for pair in previous)])
            renderable = model.first.chat_tokenizer.select_renderable([prompts[prompt] for prompt in prompt_ids])
            by_prompt = {prompt.id: by_prompt[prompt.id] for prompt in renderable if prompt.id in by_prompt}
            readable = {prompt.id for prompt in renderable}
            previous = [pair for pair in previous if pair.prompt in readable]
        candidates, num_near_identical = candidate_pairs(by_prompt, previous)
        signals = Signals({}, None)
        if model is not None:
            scored = add_items(by_prompt, previous, run.store) if self.acquisition == "d_optimal" else by_prompt
            signals = compute_signals(model, prompts, scored)
        selected = select(
            candidates,
            self.acquisition,
            self.num_tasks,
            signals.scores,
            signals.features,
            run.seed,
            self.random_fraction,
            previous=previous,
        )
        if num_near_identical:
            warn(f"{num_near_identical} pairs of nearly identical responses are left out")
        return self._log_tasks(run.store, key, selected)

    def _log_tasks(self, store: Store, key: str, selected: Sequence[SelectedPair]) -> list[Task]:
        """Create the tasks of selected pairs, and put them into the queue with their propensities."""
        instruction = self.instruction or default_question("comparison")
        tasks: list[Task] = []
        requests: list[TaskRequest] = []
        for pair in selected:
            items = (pair.candidate.first, pair.candidate.second)
            task = Task("comparison", pair.candidate.prompt, items, "train", instruction)
            tasks.append(task)
            requests.append(TaskRequest(task, 0, pair.acquisition, pair.propensity))
        TaskQueue(store).enqueue(requests, key)
        return tasks

    def _load_reward_model(self, run: Run) -> Model:
        newest_first = [*(f"reward-{number}" for number in range(run.round, 1, -1)), "reward"]
        name = self.reward or next((name for name in newest_first if name in run.models), "")
        if not name:
            raise AssentError(
                f"--acquisition {self.acquisition} needs a reward model, and {run.folder} has none; "
                "run 'assent reward' first, or use --acquisition uniform"
            )
        model = Model.load(run.policy(name), run.dtype, run.device, run.rendering)
        num_heads = sum(member.model.config.num_labels or 1 for member in model.members)
        if self.acquisition in ("disagreement", "bald") and num_heads < 2:
            raise AssentError(
                f"--acquisition {self.acquisition} needs a reward-model ensemble, and '{name}' has one member; "
                "train one with 'assent reward --heads 4'"
            )
        return model


def _group_by_prompt(responses: Iterable[Response]) -> dict[str, list[Response]]:
    groups: dict[str, list[Response]] = {}
    for response in responses:
        groups.setdefault(response.prompt, []).append(response)
    return groups


def _unjudged_imports(store: Store, key: str) -> Iterator[Response]:
    """Yield the imported responses that no human has judged, except in this stage itself."""
    own_feedback = {event.id for event in TaskQueue(store).feedback_for(key)}
    judged_tasks = {event.task for event in store.feedback() if event.is_human and event.id not in own_feedback}
    judged_items = {item for task in store.tasks() if task.id in judged_tasks for item in task.items}
    for response in store.responses():
        if response.policy.startswith("imported:") and response.id not in judged_items:
            yield response


def _warn_of_no_tasks(responses: Sequence[Response], is_selected: bool) -> None:
    num_prompts = len({response.prompt for response in responses})
    if is_selected:
        warn(
            f"no tasks: the {num_prompts} prompts have no pair of different responses that was not asked about before; "
            "generate more responses"
        )
    else:
        warn(
            f"no tasks: none of the {num_prompts} prompts has two different responses; "
            "generate more with a higher --n or --temperature"
        )
