"""The completions of one online step in two layouts: shared prefixes to encode, and padded rows (B, T) to train on."""

import itertools

import torch
from torch import Tensor

from assent.generation.sampling import Sample
from assent.models.packing import PackedBatch, SharedPrefix


class RolloutBatch:
    """The samples of one step, and their rows in (B, T), padded on the right."""

    def __init__(self, prompts: list[tuple[int, ...]], groups: list[list[Sample]]) -> None:
        self.shared_prefixes = [
            SharedPrefix(ids, tuple(s.token_ids for s in group)) for ids, group in zip(prompts, groups, strict=True)
        ]
        self.samples = samples = [s._replace(prompt_index=i) for i, group in enumerate(groups) for s in group]
        self.first_rows = [0, *itertools.accumulate(len(shared.completions) for shared in self.shared_prefixes)]
        lengths = torch.tensor([len(s.token_ids) for s in samples])
        self.mask = torch.arange(int(lengths.max())) < lengths[:, None]  # (B, T)

    def groups(self) -> list[list[Sample]]:
        """Return the samples of each prompt."""
        return [self.samples[self.first_rows[i] : self.first_rows[i + 1]] for i in range(len(self.shared_prefixes))]

    def row_indices(self, prompts: list[int]) -> Tensor:
        """Return the rows of the completions of some prompts (their numbers), in order."""
        rows = [range(self.first_rows[i], self.first_rows[i + 1]) for i in prompts]
        return torch.tensor([row for group in rows for row in group])

    def zeros(self) -> Tensor:
        """Return zeros, (B, T)."""
        return torch.zeros(self.mask.shape)

    def scatter(self, target: Tensor, prompts: list[int], packed: PackedBatch, values: Tensor) -> None:
        """Write the values (N,) of a packed batch of some prompts into their rows of `target`, (B, T)."""
        padded = packed.pad_completions(values.float()).cpu()
        target[self.row_indices(prompts), : padded.shape[1]] = padded
