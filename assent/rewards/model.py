"""A reward model, or an ensemble of them, as a reward: standardised scores of whole responses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assent.models.forward import hidden_states, scores, standardize_scores
from assent.models.load import LoadedModel, load_reward
from assent.models.packing import SharedPrefix, pack
from assent.models.rendering import DEFAULT_RENDERING, Rendering
from assent.records import Prompt, Response
from assent.training.batching import INFERENCE_TOKENS
from assent.training.microbatch import map_batches


@dataclass(frozen=True)
class Model:
    """The heads of one or several reward models.

    The scores of each head have mean 0 and standard deviation 1 on its own training responses.
    """

    members: tuple[LoadedModel, ...]
    max_tokens_per_batch: int = INFERENCE_TOKENS

    @classmethod
    def load(
        cls,
        model_id: str,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        rendering: Rendering = DEFAULT_RENDERING,
        max_tokens_per_batch: int = INFERENCE_TOKENS,
    ) -> "Model":
        """Load a sequence classifier from a folder or the hub, with the other members in its sub-folders."""
        members = sorted(Path(model_id).glob("member-*/config.json"), key=lambda path: (len(path.parent.name), path))
        folders = [Path(model_id), *(path.parent for path in members)] if members else [model_id]
        return cls(tuple(load_reward(folder, dtype, device, rendering) for folder in folders), max_tokens_per_batch)

    @property
    def first(self) -> LoadedModel:
        """The first member; all members have the same tokenizer."""
        return self.members[0]

    @property
    def stds(self) -> Tensor:
        """Return the logits of each head that are one unit of its score, (heads of all members,)."""
        stds: list[float] = []
        for member in self.members:
            stds += [float(value) for value in getattr(member.model.config, "reward_std", [1.0])]
        return torch.tensor(stds)

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """Score responses, (N, heads of all members) float32; consecutive responses share their prompt."""
        return self.score_prefixes(self._prefixes(prompts, responses))

    @torch.no_grad()
    def features(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """Return the first member's hidden state at each response's last token, (N, H) float32: what its head reads."""
        prefixes, model = self._prefixes(prompts, responses), self.first.model

        def last_states(part: list[SharedPrefix]) -> Tensor:
            packed = pack(part).to(model.device)
            return hidden_states(model, packed)[packed.last_index].float()

        return torch.cat(map_batches(prefixes, self.max_tokens_per_batch, last_states))

    def _prefixes(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[SharedPrefix]:
        tokenizer = self.first.chat_tokenizer
        prefixes: list[SharedPrefix] = []
        previous = None
        for prompt, response in zip(prompts, responses, strict=True):
            ids = tokenizer.encode_completion(prompt, response.completion)
            if prompt is previous:
                prefixes[-1] = SharedPrefix(prefixes[-1].prefix, (*prefixes[-1].completions, ids))
            else:
                prefixes.append(SharedPrefix(tokenizer.encode_prompt(prompt), (ids,)))
            previous = prompt
        return prefixes

    def score_prefixes(self, prefixes: Sequence[SharedPrefix]) -> Tensor:
        """Score every completion, (B, heads of all members) float32 on the CPU, in order."""
        return torch.cat([self._scores(member.model, prefixes) for member in self.members], 1)

    def _scores(self, model: Any, prefixes: Sequence[SharedPrefix]) -> Tensor:
        parts = map_batches(
            prefixes, self.max_tokens_per_batch, lambda part: scores(model, pack(part).to(model.device))
        )
        return standardize_scores(model, torch.cat(parts))
