"""What a policy drew, laid out twice: as trees that share their prompts, and as rows of tokens, padded on the right."""

import itertools

import torch
from torch import Tensor

from assent.generation.local import Sample
from assent.models.attention import PackedBatch, SharedPrefix


class RolloutBatch:
    """What one step drew, and where its answers stand in (B, T), padded on the right."""

    def __init__(self, prompts: list[tuple[int, ...]], groups: list[list[Sample]]) -> None:
        self.trees = [
            SharedPrefix(ids, tuple(s.ids for s in group)) for ids, group in zip(prompts, groups, strict=True)
        ]
        self.samples = samples = [s._replace(prompt=i) for i, group in enumerate(groups) for s in group]
        self.first = [0, *itertools.accumulate(len(tree.completions) for tree in self.trees)]
        longest = max(len(s.ids) for s in samples)
        self.mask = torch.arange(longest) < torch.tensor([len(s.ids) for s in samples])[:, None]  # (B, T)

    def rows(self, part: list[int]) -> Tensor:
        """Rows of the answers of some trees, in order."""
        return torch.tensor([row for i in part for row in range(self.first[i], self.first[i + 1])])

    def blank(self) -> Tensor:
        """(B, T) of zeros."""
        return torch.zeros(self.mask.shape)

    def place(self, target: Tensor, part: list[int], packed: PackedBatch, flat: Tensor) -> None:
        """Write (N,) of a pack into its rows of (B, T)."""
        grid = packed.padded(flat.float()).cpu()
        target[self.rows(part), : grid.shape[1]] = grid
