"""The keys and values of prompts and of the tokens sampled after them, for decoding.

The prompt's keys and values are stored once for all of its rows (completions). Attention to a prompt reads them once:
its rows are laid out in a grid of prompts x rows and attend together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class CacheMasks(NamedTuple):
    """The cached tokens that a new token may attend to."""

    prompt: Tensor  # (P, 1, 1, L) bool
    row: Tensor  # (read_length,) bool


@dataclass
class KVCache:
    """Keys and values of P prompts (at most L tokens) and of the new tokens in their R rows, as many in each row."""

    prompt_lens: Tensor  # (P,)
    prompt_index: Tensor  # (R,) the prompt of each row, in order of prompts
    grid_index: Tensor  # (R,) the row's place in the grid of prompts x rows
    grid_width: int
    """Places of each prompt in the grid."""
    max_new_tokens: int
    """Tokens that a row can hold."""
    is_static: bool
    """Whether every step reads all `max_new_tokens`, so that all steps are alike; if not, a step reads what is used."""
    cache_position: Tensor  # () new tokens that each row holds: the index of the next one
    num_cached: int = 0
    """The same number on the host, so that the device need not be asked."""
    prompt_layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # a layer: keys, values (P, heads, L, D)
    row_layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # a layer: (R, heads, max_new_tokens, D)

    @classmethod
    def empty(
        cls, prompt_lens: Sequence[int], rows_per_prompt: int, max_new_tokens: int, device: torch.device
    ) -> "KVCache":
        """Return a cache for prompts of these lengths, each continued by `rows_per_prompt` rows."""
        grid_index = torch.arange(len(prompt_lens) * rows_per_prompt, device=device)
        return cls(
            prompt_lens=torch.tensor(prompt_lens, device=device),
            prompt_index=grid_index // rows_per_prompt,
            grid_index=grid_index,
            grid_width=rows_per_prompt,
            max_new_tokens=max_new_tokens,
            is_static=device.type == "cuda",
            cache_position=torch.zeros((), dtype=torch.long, device=device),
        )

    @property
    def read_length(self) -> int:
        """Return how many places of a row a step reads."""
        return self.max_new_tokens if self.is_static else self.num_cached + 1

    @property
    def position_ids(self) -> Tensor:
        """Return the positions of the new tokens, (R,)."""
        return self.prompt_lens[self.prompt_index] + self.cache_position

    def prefill(self, keys: Tensor, values: Tensor, lengths: Sequence[int]) -> None:
        """Store one layer of the prompts, (S, heads, D), which have these lengths."""
        self.prompt_layers.append((_pad_prompts(keys, lengths), _pad_prompts(values, lengths)))
        size = (len(self.grid_index), keys.shape[1], self.max_new_tokens, keys.shape[2])
        self.row_layers.append((keys.new_zeros(size), values.new_zeros(size)))

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write one new token a row, (R, heads, 1, D), and return the rows' keys and values so far."""
        for stored, new in zip(self.row_layers[layer], (key, value), strict=True):
            stored.index_copy_(2, self.cache_position[None], new.to(stored.dtype))
        keys, values = self.row_layers[layer]
        return keys[:, :, : self.read_length], values[:, :, : self.read_length]

    def masks(self, window: int | None) -> CacheMasks:
        """Return the tokens of its prompt and of its row that a new token may attend to."""
        prompt_column = torch.arange(self.prompt_layers[0][0].shape[2], device=self.cache_position.device)
        row_column = torch.arange(self.read_length, device=self.cache_position.device)
        prompt_mask = prompt_column < self.prompt_lens[:, None]
        row_mask = row_column <= self.cache_position
        if window is not None:
            prompt_mask = prompt_mask & ((self.prompt_lens + self.cache_position)[:, None] - prompt_column < window)
            row_mask = row_mask & (self.cache_position - row_column < window)
        return CacheMasks(prompt_mask[:, None, None], row_mask)

    def to_grid(self, rows: Tensor) -> Tensor:
        """Lay rows (R, heads, share, X) out as (P, heads, grid_width x share, X), with zeros where no row is left."""
        grid = rows
        size = len(self.prompt_lens) * self.grid_width
        if len(rows) < size:
            grid = rows.new_zeros(size, *rows.shape[1:]).index_copy(0, self.grid_index, rows)
        return grid.view(-1, self.grid_width, *rows.shape[1:]).transpose(1, 2).flatten(2, 3)

    def from_grid(self, grid: Tensor) -> Tensor:
        """Return the rows (R, heads, share, X) of a grid: the inverse of `to_grid`."""
        prompts, heads, _, size = grid.shape
        rows = grid.view(prompts, heads, self.grid_width, -1, size).transpose(1, 2).flatten(0, 1)
        return rows if len(rows) == len(self.grid_index) else rows.index_select(0, self.grid_index)

    def advance(self) -> None:
        """Count the new token, which every layer has stored."""
        self.cache_position += 1
        self.num_cached += 1

    def select_rows(self, rows: Tensor) -> None:
        """Drop all rows but these (indices in order), and the prompts that have no rows left."""
        prompts, prompt_index, count = self.prompt_index[rows].unique_consecutive(
            return_inverse=True, return_counts=True
        )
        first_row = count.cumsum(0) - count
        self.prompt_lens = self.prompt_lens[prompts]
        self.prompt_index = prompt_index
        self.grid_width = int(count.max())
        row_in_prompt = torch.arange(len(rows), device=rows.device) - first_row[prompt_index]
        self.grid_index = prompt_index * self.grid_width + row_in_prompt
        self.prompt_layers = [(keys[prompts], values[prompts]) for keys, values in self.prompt_layers]
        self.row_layers = [(keys[rows], values[rows]) for keys, values in self.row_layers]


def _pad_prompts(packed: Tensor, lengths: Sequence[int]) -> Tensor:
    """Lay (S, heads, D) out as (P, heads, L, D), padded with zeros on the right."""
    return pad_sequence(list(packed.split(list(lengths))), batch_first=True).transpose(1, 2).contiguous()
