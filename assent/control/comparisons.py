"""Comparisons of clips: when to ask, which pairs, and the answers as training data of the reward model."""

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assent.control.agent import Rollout
from assent.preferences.select import Acquisition, Candidate, SelectedPair, select
from assent.protocols import Environment
from assent.records import Completion, Prompt, Response
from assent.replay import encode_actions, prompt_of, replay, summarise
from assent.seeds import named_rng
from assent.segments import Segment
from assent.split import split
from assent.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt

OVERSAMPLING = 10
"""Candidates for each comparison that is asked for, as in Christiano et al. 2017, section 2.2.4."""
ASKED_BY = 0.8
"""Share of the steps after which all comparisons have been asked for: later ones would teach the agent little."""


@dataclass(frozen=True)
class ComparisonSettings:
    """What annotators are asked."""

    labels: NonNegativeInt = 200
    """Comparisons of two clips in all."""
    initial_fraction: Fraction = 0.25
    """Share of them that is asked for before the agent learns, about what it does untrained."""
    label_decay: NonNegativeFloat = 0.15
    """Share of the steps after which the rate of comparisons has halved: it falls as 1 / (1 + t); 0: all at first."""
    session: PositiveInt = 10
    """Comparisons that are asked for together, at least."""
    ahead: NonNegativeInt = 20
    """With people: comparisons without an answer up to which the agent goes on learning; beyond, it waits."""
    acquisition: Acquisition = "disagreement"
    """Which pairs: those that the reward models disagree about most, of ten times as many; `uniform`: at random."""
    random_fraction: Fraction = 0.2
    """Share of the comparisons drawn at random, for an unbiased estimate."""

    def due(self, progress: float) -> int:
        """Return how many comparisons are to be asked for at a progress from 0 to 1."""
        first = round(self.initial_fraction * self.labels)
        if not self.label_decay:
            return self.labels
        growth = math.log1p(progress / self.label_decay) / math.log1p(ASKED_BY / self.label_decay)
        return min(self.labels, first + math.floor((self.labels - first) * growth + 1e-9))


class ClipPair(NamedTuple):
    """Two clips of episodes from one seed."""

    first: tuple[int, int]  # episode of the rollout, start
    second: tuple[int, int]


class AskedPair(NamedTuple):
    """A pair to be compared."""

    prompt: Prompt
    responses: tuple[Response, Response]
    features: tuple[NDArray[Any], NDArray[Any]]  # of the steps of each clip, (T, ...)
    selected: SelectedPair


def draw_pairs(rollout: Rollout, clip_steps: int, count: int, *seed: object) -> list[ClipPair]:
    """Return `count` pairs of clips at random, each of two clips that start from one seed and do not overlap."""
    rng = named_rng(*seed)
    horizon = len(rollout.actions)
    by_seed: dict[int, list[int]] = {}
    for episode, episode_seed in enumerate(rollout.seeds):
        by_seed.setdefault(episode_seed, []).append(episode)
    together = list(by_seed.values())
    pairs: dict[frozenset[tuple[int, int]], ClipPair] = {}
    for _ in range(20 * count):
        episodes = rng.choice(together)
        first, second = ((rng.choice(episodes), rng.randint(0, horizon - clip_steps)) for _ in range(2))
        overlaps = first[0] == second[0] and abs(first[1] - second[1]) < clip_steps
        if not overlaps:
            pairs.setdefault(frozenset((first, second)), ClipPair(first, second))
        if len(pairs) == count:
            break
    return list(pairs.values())


def cut_segment(rollout: Rollout, episode: int, start: int, steps: int) -> Segment:
    """Return a clip of an episode of a rollout."""
    end = start + steps
    actions = encode_actions(rollout.actions[:end, episode])
    return Segment(start, steps, actions, summarise(rollout.observations[end - 1, episode]))


class Asker:
    """Turns a rollout into pairs of clips worth asking about.

    Args:
        task: in words.
        held_out: share of the seeds whose comparisons only measure the reward model.
    """

    def __init__(self, environment: Environment, task: str, settings: ComparisonSettings, held_out: float) -> None:
        self.environment = environment
        self.task = task
        self.settings = settings
        self.held_out = held_out

    def held_out_prompts(self, prompts: Iterable[Prompt]) -> AbstractSet[str]:
        """Return the ids of the prompts whose comparisons nothing is trained on."""
        return split(prompts, self.held_out).held_out

    def select(
        self, rollout: Rollout, count: int, step_rewards: NDArray[np.float32] | None, policy: str, seed: int
    ) -> list[AskedPair]:
        """Return `count` pairs of a rollout, those of held-out seeds at random and in their share.

        Args:
            step_rewards: of each member, not standardised, (T, N, K); None: all pairs are drawn at random.
            policy: the name of the agent in the store.
        """
        prompts = {s: prompt_of(self.environment, s, self.task) for s in dict.fromkeys(rollout.seeds)}
        held_out = self.held_out_prompts(prompts.values())
        pairs = draw_pairs(rollout, self.environment.clip_steps, OVERSAMPLING * count, seed, "clips", policy)
        asked: list[AskedPair] = []
        for is_held_out, number in ((True, round(self.held_out * count)), (False, count)):
            side = [p for p in pairs if (prompts[rollout.seeds[p.first[0]]].id in held_out) == is_held_out]
            acquisition = "uniform" if is_held_out or step_rewards is None else self.settings.acquisition
            if side and number > len(asked):
                asked += self._select(
                    rollout, prompts, side, number - len(asked), acquisition, step_rewards, policy, seed
                )
        return asked

    def _select(
        self,
        rollout: Rollout,
        prompts: Mapping[int, Prompt],
        pairs: Sequence[ClipPair],
        count: int,
        acquisition: Acquisition,
        step_rewards: NDArray[np.float32] | None,
        policy: str,
        seed: int,
    ) -> list[AskedPair]:
        steps = self.environment.clip_steps
        places = dict.fromkeys(place for pair in pairs for place in pair)
        responses = {place: self._response(rollout, place, prompts, policy) for place in places}
        scores = {
            responses[episode, start].id: step_rewards[start : start + steps, episode].sum(0)
            if step_rewards is not None
            else np.zeros(1)
            for episode, start in places
        }
        prompt_by_id = {prompt.id: prompt for prompt in prompts.values()}
        candidates = {
            frozenset((a, b)): Candidate(prompts[rollout.seeds[pair.first[0]]].id, a, b)
            for pair in pairs
            for a, b in [(responses[pair.first].id, responses[pair.second].id)]
            if a != b
        }
        selected = select(
            list(candidates.values()),
            acquisition,
            count,
            scores,
            seed=seed,
            random_fraction=self.settings.random_fraction,
        )
        place_of = {response.id: place for place, response in responses.items()}
        asked: list[AskedPair] = []
        for pair in selected:
            first, second = (place_of[item] for item in (pair.candidate.first, pair.candidate.second))
            clips = [rollout.features[start : start + steps, episode] for episode, start in (first, second)]
            prompt = prompt_by_id[pair.candidate.prompt]
            asked.append(AskedPair(prompt, (responses[first], responses[second]), (clips[0], clips[1]), pair))
        return asked

    def _response(
        self, rollout: Rollout, place: tuple[int, int], prompts: Mapping[int, Prompt], policy: str
    ) -> Response:
        episode, start = place
        segment = cut_segment(rollout, episode, start, self.environment.clip_steps)
        return Response(prompts[rollout.seeds[episode]].id, segment.text, policy)


class ClipTable:
    """The clips that judgements are about: it numbers them, as a tokenizer numbers words, and keeps their features."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._prompts: list[Prompt] = []
        self._texts: list[str] = []
        self._features: list[NDArray[Any]] = []
        self._seen: dict[tuple[str, str], NDArray[Any]] = {}

    def add(self, pairs: Iterable[AskedPair]) -> None:
        """Keep the features of clips of a rollout, so that they need no replay."""
        for pair in pairs:
            for response, features in zip(pair.responses, pair.features, strict=True):
                self._seen[response.prompt, response.text] = features.copy()

    def encode_prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Return no tokens: a clip has all that is needed."""
        return ()

    def encode_completion(self, prompt: Prompt, completion: Completion) -> tuple[int, ...]:
        """Return the number of a clip."""
        key = prompt.id, completion.text
        if key not in self._numbers:
            self._numbers[key] = len(self._texts)
            self._prompts.append(prompt)
            self._texts.append(completion.text)
        return (self._numbers[key],)

    def features(self) -> Tensor:
        """Return the features of all clips, (S, T, ...); those that are not from a rollout are replayed.

        Raises:
            AssentError: a clip cannot be replayed, or the clips have several lengths.
        """
        new = list(zip(self._prompts, self._texts, strict=True))[len(self._features) :]
        unseen = [(prompt, text) for prompt, text in new if (prompt.id, text) not in self._seen]
        replayed = iter(replay(unseen))
        for prompt, text in new:
            seen = self._seen.pop((prompt.id, text), None)
            self._features.append(next(replayed).features if seen is None else seen)
        return torch.from_numpy(np.stack(self._features))
