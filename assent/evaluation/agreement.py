"""Agreement of the run's reward model with a judge, on held-out prompts."""

from collections.abc import Sequence
from itertools import combinations

from assent.evaluation.judges import AnnotatorJudge, DecidedPair, Judge, Judged, RewardJudge
from assent.functional.ensemble import combine
from assent.functional.statistics import Interval, accuracy
from assent.records import Prompt, Response
from assent.run import Run
from assent.scoring import load_scorer
from assent.training.logging import ProgressBar


def reward_model_agreement(run: Run, key: str, prompts: list[Prompt], judge: Judge, judged: Judged) -> Interval | None:
    """Measure how often this round's reward model prefers the response that the judge prefers.

    A reward judges each two held-out responses of `generate`; an annotator has judged the pairs of the evaluation.

    Returns:
        None if there is no reward model, if it is the judge itself, or if the judge decided no pair.
    """
    name = run.key("reward")
    if not (run.folder / name / "config.json").exists() or judge.name == name:
        return None
    match judge:
        case RewardJudge():
            responses = _generated_responses(run, prompts)
            decided = _decide(judge, responses) if responses else []
        case AnnotatorJudge():
            decided = judged.decided
            responses = _responses_of(decided)
    if not responses:
        return None
    with ProgressBar(f"{key}: reward model", 1) as bar:
        scores = combine(load_scorer(run, name).score(*zip(*responses, strict=True))).tolist()
        bar.advance()
    score_of = {response.id: score for (_, response), score in zip(responses, scores, strict=True)}
    correct: list[float] = []
    for _, chosen, rejected in decided:
        chosen_score, rejected_score = score_of[chosen.id], score_of[rejected.id]
        correct.append(0.5 if chosen_score == rejected_score else float(chosen_score > rejected_score))
    if not correct:
        return None
    return accuracy(correct, [pair.prompt.id for pair in decided])._replace(rate=sum(correct) / len(correct))


def _generated_responses(run: Run, prompts: list[Prompt]) -> list[tuple[Prompt, Response]]:
    """Return the responses that this round's `generate` stored, in the order of the prompts."""
    label = (run.result(run.key("generate")) or {}).get("label", "")
    by_prompt: dict[str, list[Response]] = {}
    for response in run.store.responses(policy=label) if label else ():
        by_prompt.setdefault(response.prompt, []).append(response)
    return [(prompt, response) for prompt in prompts for response in by_prompt.get(prompt.id, [])]


def _responses_of(decided: Sequence[DecidedPair]) -> list[tuple[Prompt, Response]]:
    """Return each response of the pairs once, those of a prompt beside each other."""
    by_prompt: dict[str, dict[str, tuple[Prompt, Response]]] = {}
    for prompt, chosen, rejected in decided:
        rows = by_prompt.setdefault(prompt.id, {})
        rows |= {chosen.id: (prompt, chosen), rejected.id: (prompt, rejected)}
    return [row for rows in by_prompt.values() for row in rows.values()]


def _decide(judge: RewardJudge, responses: Sequence[tuple[Prompt, Response]]) -> list[DecidedPair]:
    """Return every two responses to one prompt that the judge scores differently, the better first."""
    scores = judge.score([prompt for prompt, _ in responses], [response for _, response in responses])
    by_prompt: dict[str, list[tuple[Prompt, Response, float]]] = {}
    for (prompt, response), score in zip(responses, scores, strict=True):
        by_prompt.setdefault(prompt.id, []).append((prompt, response, score))
    decided: list[DecidedPair] = []
    for rows in by_prompt.values():
        for (prompt, first, first_score), (_, second, second_score) in combinations(rows, 2):
            if first_score > second_score:
                decided.append(DecidedPair(prompt, first, second))
            elif first_score < second_score:
                decided.append(DecidedPair(prompt, second, first))
    return decided
