"""Teach a policy to say "I don't know" where it does not know, by what its own samples get right.

Reinforcement learning cannot reward a refusal that is never sampled, so a few must be shown first. Each question is
asked several times. What the policy mostly gets right it is to answer as it did; all else it is to refuse. Zhang et al.
2023 (R-Tuning, arXiv:2311.09677) and Cheng et al. 2024 (arXiv:2401.13275).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from assent.errors import AssentError, warn
from assent.feedback.demonstration import Demonstration
from assent.functional.grading import Grade, is_refusal, normalize_answer
from assent.generation.responses import GenerationJob, generate_draws, prompts_within_context, response_label
from assent.generation.sampling import Sampling
from assent.models.checkpoints import weights_digest
from assent.models.load import load_policy
from assent.protocols import Stage
from assent.records import Feedback, Prompt, Response, Task, utc_now
from assent.rewards.truthful import grade_response, has_answers
from assent.run import BASE, Run
from assent.split import split
from assent.store.database import Store
from assent.types import Fraction, PositiveInt

ANNOTATOR = "ai:abstain"
"""The author of the demonstrations in the store, of all runs of this stage: a later one supersedes an earlier one."""


class GradedSamples(NamedTuple):
    """A policy's samples for one question."""

    question: str  # id of the prompt
    responses: Sequence[Response]
    grades: Sequence[Grade]

    @property
    def num_right(self) -> int:
        """Number of right samples."""
        return self.grades.count("right")

    def is_known(self, known_share: float) -> bool:
        """Return whether at least this share of the samples, and one of them, is right."""
        return self.num_right > 0 and self.num_right / len(self.grades) >= known_share

    def commonest_right_text(self) -> str:
        """Return the text of the right answer that is commonest when normalised; of equally common ones the first.

        A text that was cut is taken only if all are, since a demonstration teaches where to end.
        """
        right = [pair[0] for pair in zip(self.responses, self.grades, strict=True) if pair[1] == "right"]
        texts = [response.text for response in right if response.finished] or [response.text for response in right]
        (form, _), *_ = Counter(map(normalize_answer, texts)).most_common()
        return next(text for text in texts if normalize_answer(text) == form)


@dataclass(frozen=True)
class Abstain(Stage):
    """Write demonstrations of "I don't know" from what the policy itself knows.

    They are about the training prompts whose `meta` has `answers`, and the next `sft` trains on them.
    """

    aim: ClassVar[str] = "the policy's samples show its knowledge"
    policy: str = ""
    """Policy to sample from: a checkpoint of the run, a folder, a hub id; empty: the one that `sft` trains, which is
    `pretrain` if it has run, else the model."""
    n: PositiveInt = 8
    """Number of samples per question."""
    known_share: Fraction = 0.5
    """Share of a question's samples that must be right for the policy to know it; at least one must."""
    refusal: str = "I don't know."
    """The response to a question that the policy does not know."""
    generation_batch_size: PositiveInt = 64
    """Number of responses generated at a time."""
    sampling: Sampling = Sampling(temperature=0.7, max_new_tokens=16)

    def __post_init__(self) -> None:
        if not is_refusal(self.refusal):
            raise ValueError(f'refusal = {self.refusal!r} would be graded as an answer; take one like "I don\'t know."')

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        questions = self._questions(run)
        policy = self._policy(run)
        label = response_label(run, key, policy, self.sampling)
        samples = self._sample(run, key, policy, label, questions)
        answers = {
            graded.question: graded.commonest_right_text() for graded in samples if graded.is_known(self.known_share)
        }
        _store_demonstrations(run.store, {graded.question: self.refusal for graded in samples} | answers)
        _warn_of_one_kind(len(answers), len(samples))
        return {
            "policy": policy,
            "weights": weights_digest(run.policy(policy)),
            "label": label,
            "questions": len(samples),
            "known": len(answers),
            "unknown": len(samples) - len(answers),
            "right": sum(graded.num_right for graded in samples) / (self.n * len(samples)),
        }

    def is_stale(self, run: Run, key: str, result: Mapping[str, Any]) -> bool:
        """Return whether the policy was trained since it was sampled from."""
        return bool(result.get("weights") != weights_digest(run.policy(self._policy(run))))

    def _policy(self, run: Run) -> str:
        return self.policy or ("pretrain" if run.result("pretrain") is not None else BASE)

    def _questions(self, run: Run) -> list[Prompt]:
        """Return the training prompts that have answers.

        Raises:
            AssentError: there are none.
        """
        prompts = list(run.store.prompts())
        train = split(prompts, run.setup.held_out).train
        questions = [prompt for prompt in prompts if prompt.id in train and has_answers(prompt)]
        if not questions:
            raise AssentError(f"{run.folder} has no questions to train on: import prompts with a column `answers`")
        return questions

    def _sample(self, run: Run, key: str, policy: str, label: str, questions: list[Prompt]) -> list[GradedSamples]:
        """Return n graded samples for each question; questions that are too long for the policy are left out."""
        language = load_policy(run.policy(policy), run.dtype, run.device, run.rendering)
        questions = prompts_within_context(questions, language, self.sampling.max_new_tokens)
        job = GenerationJob(language, label, self.sampling, self.generation_batch_size, key)
        draws = generate_draws(run, job, questions, self.n)
        return [
            GradedSamples(prompt.id, samples, [grade_response(prompt, sample) for sample in samples])
            for prompt, samples in zip(questions, draws, strict=True)
        ]


def _warn_of_one_kind(num_known: int, num_questions: int) -> None:
    """Warn if the demonstrations would teach one kind of response alone."""
    if num_known == 0:
        warn(
            f"none of the {num_questions} questions is known: sft would teach to refuse all; "
            "take easier questions, or a lower --known-share"
        )
    elif num_known == num_questions:
        warn(
            f"all {num_questions} questions are known: sft would teach no refusal; "
            "take harder questions, or a higher --known-share"
        )


def _store_demonstrations(store: Store, texts: Mapping[str, str]) -> None:
    """Store a demonstration for each prompt (id); one that differs from an earlier one of this stage supersedes it."""
    tasks = [Task("demonstration", prompt, (), instruction=Demonstration.question) for prompt in texts]
    store.add_tasks(tasks)
    earlier = {event.task: event for event in store.feedback(annotator=ANNOTATOR, current=True)}
    feedback: list[Feedback] = []
    for task in tasks:
        event, demonstration = earlier.get(task.id), Demonstration(texts[task.prompt])
        if event is None or event.judgement != demonstration:
            superseded = "" if event is None else event.id
            feedback.append(
                Feedback(task.id, ANNOTATOR, demonstration, utc_now(), supersedes=superseded, source="model")
            )
    store.add_feedback(feedback)
