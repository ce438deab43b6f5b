"""A reward model, or an ensemble, as a reward: scores of a whole answer, in units of what each saw in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assent.models.packing import SharedPrefix, pack
from assent.models.forward import scores, standardize_scores, hidden_states
from assent.models.load import LoadedModel, load_reward
from assent.models.rendering import DEFAULT_RENDERING, Rendering
from assent.records import Prompt, Response
from assent.training.batching import INFERENCE_TOKENS
from assent.training.microbatch import map_batches


@dataclass(frozen=True)
class Model:
    """Scores by the heads of one or several reward models.

    Those of each head are shifted and scaled to mean 0 and deviation 1 on its own training answers.
    """

    members: tuple[LoadedModel, ...]
    tokens_per_pack: int = INFERENCE_TOKENS

    @classmethod
    def load(
        cls,
        where: str,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        rendering: Rendering = DEFAULT_RENDERING,
        tokens_per_pack: int = INFERENCE_TOKENS,
    ) -> "Model":
        """Load a sequence classifier from a folder or the hub, and the members that lie in folders inside it."""
        others = sorted(Path(where).glob("member-*/config.json"), key=lambda path: (len(path.parent.name), path))
        folders = [Path(where), *(path.parent for path in others)] if others else [where]
        return cls(tuple(load_reward(folder, dtype, device, rendering) for folder in folders), tokens_per_pack)

    @property
    def language(self) -> LoadedModel:
        """The first member; all speak the same tokens."""
        return self.members[0]

    @property
    def deviations(self) -> Tensor:
        """What a score of 1 is in the logits that each head was trained in, (heads of all members,)."""
        known = [getattr(member.model.config, "reward_std", [1.0]) for member in self.members]
        return torch.tensor([float(value) for some in known for value in some])

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """Score responses, (N, heads of all members) float32; those of a prompt that stand together share it."""
        return self.score_trees(self._trees(prompts, responses))

    @torch.no_grad()
    def features(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """What the first member reads its scores from: the state at each response's last token, (N, H) float32."""
        trees, model = self._trees(prompts, responses), self.language.model

        def last(some: list[SharedPrefix]) -> Tensor:
            packed = pack(some).to(model.device)
            return hidden_states(model, packed)[packed.last_index].float()

        return torch.cat(map_batches(trees, self.tokens_per_pack, last))

    def _trees(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[SharedPrefix]:
        codec = self.language.chat_tokenizer
        trees: list[SharedPrefix] = []
        last = None
        for prompt, response in zip(prompts, responses, strict=True):
            ids = codec.encode_completion(prompt, response.completion)
            if prompt is last:
                trees[-1] = SharedPrefix(trees[-1].prefix, (*trees[-1].completions, ids))
            else:
                trees.append(SharedPrefix(codec.encode_prompt(prompt), (ids,)))
            last = prompt
        return trees

    def score_trees(self, trees: Sequence[SharedPrefix]) -> Tensor:
        """Score every branch, (B, heads of all members) float32 on the CPU, in order."""
        return torch.cat([self._scores(member.model, trees) for member in self.members], 1)

    def _scores(self, model: Any, trees: Sequence[SharedPrefix]) -> Tensor:
        found = map_batches(trees, self.tokens_per_pack, lambda some: scores(model, pack(some).to(model.device)))
        return standardize_scores(model, torch.cat(found))
