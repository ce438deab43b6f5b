"""A reward model as a reward: the score of a whole answer, in units of what it saw in training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assent.models.attention import Tree, pack
from assent.models.forward import scores, standard
from assent.models.load import Language, load_reward
from assent.records import Prompt, Response
from assent.training.parts import by_tree


@dataclass(frozen=True)
class Model:
    """Scores by a reward model, shifted and scaled to mean 0 and deviation 1 on its own training answers."""

    language: Language
    tokens_per_pack: int = 2048

    @classmethod
    def load(cls, where: str, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> "Model":
        """Load a sequence classifier of one label from a folder or the hub."""
        return cls(load_reward(where, dtype, device))

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """Score responses, (N,) float32. Those of one prompt are scored together if they stand together."""
        codec = self.language.codec
        trees: list[Tree] = []
        last = None
        for prompt, response in zip(prompts, responses, strict=True):
            ids = codec.completion(prompt, response.text, response.finished)
            if prompt is last:
                trees[-1] = Tree(trees[-1].prefix, (*trees[-1].branches, ids))
            else:
                trees.append(Tree(codec.prompt(prompt), (ids,)))
            last = prompt
        return self.score_trees(trees)

    def score_trees(self, trees: Sequence[Tree]) -> Tensor:
        """Score every branch, (B,) float32 on the CPU, in order."""
        model = self.language.model
        found = by_tree(trees, self.tokens_per_pack, lambda some: scores(model, pack(some).to(model.device)))
        return standard(model, torch.cat(found))
