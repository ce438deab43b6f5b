"""What `evaluate` measures of each policy beside its win rate: texts, truthfulness, calibration, several samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from assent.errors import AssentError, warn
from assent.evaluation.calibration import compare_calibration, measure_answers, measure_choices
from assent.evaluation.candidates import Candidate
from assent.evaluation.confidence import Choice, pose_choices
from assent.evaluation.draws import (
    PolicyPoint,
    card_on_draws,
    draw_responses,
    load_proxy,
    measure_best_of_n,
    score_draws,
)
from assent.evaluation.judges import Judge, RewardJudge
from assent.evaluation.language_modelling import measure_text_likelihood
from assent.evaluation.text_metrics import (
    collect_references,
    measure_categories,
    measure_references,
    measure_texts,
    measure_within,
    shared_vocabulary,
)
from assent.evaluation.truthfulness import grade_responses, measure_truthfulness, unanswerable_questions
from assent.formats.files.importing import read_file
from assent.functional.finite import replace_nonfinite
from assent.generation.sampling import Sampling
from assent.models.load import LoadedModel
from assent.preferences.convert import to_examples
from assent.records import Example, Prompt, Response
from assent.rewards.model import Model
from assent.rewards.truthful import has_answers
from assent.run import Run
from assent.scoring import renderable_prompts
from assent.seeds import named_rng
from assent.split import split
from assent.training.texts import read_documents
from assent.types import NonNegativeInt, PositiveInt

QUIZ = Path(__file__).parent.parent / "data" / "quiz.jsonl"
"""Short questions with accepted answers, which a small model half knows."""


@dataclass(frozen=True)
class Measures:
    """Measures beside the win rate."""

    draws: NonNegativeInt = 0
    """Responses of each policy to each of `draw_prompts` prompts: for the best-of-n curve, the diversity within a
    prompt, and the reward model's accuracy on a policy's own responses; 0: none."""
    draw_prompts: PositiveInt = 32
    """Held-out prompts for `draws`."""
    questions: str = ""
    """File of questions with columns `answers` and `incorrect_answers`: each policy chooses among four of them by
    likelihood, for its calibration; quiz: the questions of the package; empty: none."""
    num_questions: PositiveInt = 200
    """Questions of that file to ask."""
    texts: str = ""
    """File of texts that no policy was trained on, for bits per byte (the alignment tax); empty: none."""

    def load(self, run: Run, prompts: list[Prompt], model: LoadedModel, judge: Judge) -> "MeasureInputs":
        """Read the files, and choose the prompts of the draws.

        Raises:
            AssentError: a file cannot be read, or has nothing to measure with.
        """
        proxy = load_proxy(run, judge) if self.draws and isinstance(judge, RewardJudge) else None
        if self.draws and proxy is None:
            warn("best-of-n needs a judge that scores and another reward model; --draws measures diversity alone")
        readable = prompts if proxy is None else renderable_prompts(prompts, proxy)
        count = min(self.draw_prompts, len(readable)) if self.draws else 0
        return MeasureInputs(
            draws=self.draws,
            draw_prompts=named_rng(run.seed, "draws").sample(readable, count),
            proxy=proxy,
            choices=self._read_choices(run, model) if self.questions else [],
            documents=read_documents(self.texts) if self.texts else [],
        )

    def _read_choices(self, run: Run, model: LoadedModel) -> list[Choice]:
        questions = list(read_file(QUIZ if self.questions == "quiz" else self.questions).prompts)
        if model.tokenizer.chat_template is not None:
            questions = [question.as_chat() for question in questions]
        trained = split(list(run.store.prompts()), run.setup.held_out).train
        unseen = [question for question in questions if question.id not in trained]
        choices = pose_choices(model.chat_tokenizer.select_renderable(unseen), seed=0)
        if not choices:
            raise AssentError(
                f"{self.questions} has no question with `answers` and `incorrect_answers` that the run does not train "
                "on; name another file with --questions"
            )
        return named_rng("questions").sample(choices, min(self.num_questions, len(choices)))


class MeasureInputs(NamedTuple):
    """What all policies are measured on."""

    draws: int
    """Responses to each of `draw_prompts`."""
    draw_prompts: list[Prompt]
    """Empty without draws."""
    proxy: Model | None
    """The reward model that chooses the best of n; None: there is none beside the judge."""
    choices: list[Choice]
    documents: list[str]


class ModelMeasures(NamedTuple):
    """What is measured while the weights of a policy are loaded; empty where there is nothing to measure with."""

    answers: dict[str, Any]
    """Calibration of the policy's own answers."""
    choices: dict[str, Any]
    """Calibration of its choices."""
    likelihood: dict[str, float]
    """Likelihood of texts."""
    draws: list[list[Response]]
    """Several responses to each of the prompts of the draws."""


def measure_model(
    run: Run,
    key: str,
    model: LoadedModel,
    candidate: Candidate,
    prompts: Sequence[Prompt],
    inputs: MeasureInputs,
    sampling: Sampling,
) -> ModelMeasures:
    """Measure what needs the policy's weights.

    Args:
        candidate: the policy's responses, one to each prompt.
    """
    policy = candidate.policy
    asked = [(prompt, r) for prompt, r in zip(prompts, candidate.responses, strict=True) if has_answers(prompt)]
    draws: list[list[Response]] = []
    if inputs.draw_prompts:
        draws = draw_responses(run, key, policy, model, inputs.draw_prompts, inputs.draws, sampling)
    return ModelMeasures(
        answers=measure_answers(model, *zip(*asked, strict=True)) if asked else {},
        choices=measure_choices(model, inputs.choices) if inputs.choices else {},
        likelihood=measure_text_likelihood(model, inputs.documents, progress=f"{key}: texts, {policy}")
        if inputs.documents
        else {},
        draws=draws,
    )


def compare_policies(
    run: Run, prompts: list[Prompt], candidates: Sequence[Candidate], measured: Mapping[str, ModelMeasures]
) -> dict[str, dict[str, Any]]:
    """Return the measures of each policy as JSON, by its name; the baseline comes first among the candidates.

    Args:
        measured: by policy; one that trained no weights has none.
    """
    references = collect_references(prompts, _demonstrations(run, prompts))
    vocabulary_size = shared_vocabulary(candidate.responses for candidate in candidates)
    unanswerable = unanswerable_questions(prompts)
    baseline = candidates[0]
    baseline_grades = grade_responses(prompts, baseline.responses)
    rows: dict[str, dict[str, Any]] = {}
    for candidate in candidates:
        responses, own = candidate.responses, measured.get(candidate.policy)
        grades = grade_responses(prompts, responses)
        is_baseline = candidate is baseline
        row: dict[str, Any] = {"text": measure_texts(responses, vocabulary_size, run.seed)}
        row["references"] = measure_references(responses, references)
        row["categories"] = measure_categories(prompts, responses, grades, run.seed)
        if grades:
            answers = own.answers if own else {}
            confidences = dict(zip(answers.get("prompts", ()), answers.get("confidences", ()), strict=True))
            row["truthfulness"] = measure_truthfulness(
                grades, None if is_baseline else baseline_grades, confidences or None, unanswerable
            )
        if own:
            row["within_prompt"] = measure_within([[r.text for r in drawn] for drawn in own.draws], run.seed)
            row["calibration"] = _calibration(own, None if is_baseline else measured[baseline.policy])
            row["likelihood"] = own.likelihood
        rows[candidate.policy] = replace_nonfinite({name: value for name, value in row.items() if value})
    return rows


def _demonstrations(run: Run, prompts: Sequence[Prompt]) -> list[Example]:
    """Return the demonstrations of these prompts."""
    ids = {prompt.id for prompt in prompts}
    tasks = [task for task in run.store.tasks() if task.kind == "demonstration" and task.prompt in ids]
    if not tasks:
        return []
    asked = {task.id for task in tasks}
    return to_examples((event for event in run.store.feedback() if event.task in asked), tasks, prompts, ())


def _calibration(own: ModelMeasures, baseline: ModelMeasures | None) -> dict[str, Any]:
    """Return the calibration of choices and of own answers, each with its difference from the baseline's."""
    before = baseline or own
    results = {"choices": (own.choices, before.choices), "answers": (own.answers, before.answers)}
    return {
        name: result | ({"change": compare_calibration(earlier, result)} if baseline else {})
        for name, (result, earlier) in results.items()
        if result
    }


def measure_draws(
    judge: Judge,
    inputs: MeasureInputs,
    candidates: Sequence[Candidate],
    measured: Mapping[str, ModelMeasures],
) -> dict[str, Any]:
    """Return the best-of-n curve of the baseline, and the reward model's accuracy on each policy's own responses.

    Both compare the scores of the judge with those of this round's reward model. The result is empty without draws, or
    if the judge gives no scores.
    """
    if not inputs.draw_prompts or not isinstance(judge, RewardJudge):
        return {}
    prompts, proxy = inputs.draw_prompts, inputs.proxy
    points: dict[str, PolicyPoint] = {}
    for candidate in candidates:
        if candidate.policy in measured:
            draws = measured[candidate.policy].draws
            scores = None if proxy is None else score_draws(proxy.score, prompts, draws)
            points[candidate.policy] = PolicyPoint(candidate.kl, score_draws(judge.score, prompts, draws), scores)
    baseline = points[candidates[0].policy]
    trained = {policy: point for policy, point in points.items() if policy != candidates[0].policy}
    cards = {
        policy: card_on_draws(measured[policy].draws, point.proxy, point.gold)
        for policy, point in points.items()
        if point.proxy is not None
    }
    return {"best_of_n": measure_best_of_n(baseline.proxy, baseline.gold, trained), "cards": cards}
