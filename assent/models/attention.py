"""Shared prefixes: a prompt is encoded once and its completions hang from it as branches, in one pack without padding.

A tree is a prefix and K branches: a pair's prompt with its two answers, a group's prompt with its n samples, a ranking.
A pack is many trees laid end to end; every layer but attention sees one long row of real tokens. Attention looks at
each tree alone: a token sees the prefix and its own branch, up to itself, with positions as if it stood alone.
The function is registered with transformers' `AttentionInterface`, so it serves every model there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "assent"


class Tree(NamedTuple):
    """Token ids of a prefix (at least one) and of the branches that hang from it."""

    prefix: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Tokens that the model must encode."""
        return len(self.prefix) + sum(map(len, self.branches))


@dataclass(frozen=True)
class Pack:
    """Trees laid end to end. N: all branch tokens; B: all branches; G: trees; L: tokens of the largest tree."""

    tokens: Tensor  # (1, S)
    positions: Tensor  # (1, S)
    rows: Tensor  # (G, L) where each tree's tokens stand in S; 0 beyond its end
    back: Tensor  # (S,) where each token stands in G * L
    mask: Tensor  # (G, 1, L, L) bool: may look at
    sources: Tensor  # (N,) the token whose state predicts each branch token
    targets: Tensor  # (N,) the branch tokens
    branch: Tensor  # (N,) 0..B-1
    column: Tensor  # (N,) place inside the branch
    last: Tensor  # (B,) the last token of each branch
    lengths: Tensor  # (B,)

    def to(self, device: torch.device | str) -> "Pack":
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    def padded(self, values: Tensor) -> Tensor:
        """Lay (N,) out as (B, T), padded with zeros on the right."""
        longest = int(self.lengths.max()) if len(self.lengths) else 0
        grid = values.new_zeros(len(self.lengths), longest)
        return grid.index_put((self.branch, self.column), values)

    def sums(self, values: Tensor) -> Tensor:
        """Sum (N,) over each branch -> (B,)."""
        return values.new_zeros(len(self.lengths)).index_add(0, self.branch, values)


def pack(trees: Sequence[Tree]) -> Pack:
    """Lay trees end to end."""
    tokens: list[int] = []
    positions: list[int] = []
    sources: list[int] = []
    targets: list[int] = []
    branch: list[int] = []
    column: list[int] = []
    last: list[int] = []
    lengths: list[int] = []
    starts: list[int] = []
    kinds: list[Tensor] = []
    longest = max(tree.size for tree in trees)
    for tree in trees:
        start = len(tokens)
        starts.append(start)
        tokens += tree.prefix
        positions += range(len(tree.prefix))
        kind = [0] * len(tree.prefix)
        for number, ids in enumerate(tree.branches, 1):
            here = len(tokens)
            tokens += ids
            positions += range(len(tree.prefix), len(tree.prefix) + len(ids))
            sources += [start + len(tree.prefix) - 1, *range(here, here + len(ids) - 1)][: len(ids)]
            targets += ids
            branch += [len(lengths)] * len(ids)
            column += range(len(ids))
            last.append(here + len(ids) - 1 if ids else start + len(tree.prefix) - 1)
            lengths.append(len(ids))
            kind += [number] * len(ids)
        kinds.append(torch.tensor(kind + [-1] * (longest - len(kind))))
    kind_of = torch.stack(kinds)  # (G, L) 0 prefix, 1..K branch, -1 padding
    sizes = torch.tensor([tree.size for tree in trees])
    place = torch.arange(longest)
    here_real = place < sizes[:, None]  # (G, L)
    rows = torch.where(here_real, torch.tensor(starts)[:, None] + place, 0)
    causal = place[:, None] >= place
    related = (kind_of[:, None, :] == 0) | (kind_of[:, None, :] == kind_of[:, :, None])
    mask = causal & related & here_real[:, None, :]
    mask |= torch.eye(longest, dtype=torch.bool)  # padding looks at itself, so that no row is empty
    back = (torch.arange(len(trees))[:, None] * longest + place)[here_real]
    return Pack(
        torch.tensor([tokens]),
        torch.tensor([positions]),
        rows,
        back,
        mask[:, None],
        *(torch.tensor(values, dtype=torch.long) for values in (sources, targets, branch, column, last, lengths)),
    )


@dataclass
class Cache:
    """Keys and values of rows that are being continued: row r holds `filled[r]` tokens, from the left."""

    keys: list[Tensor]  # a layer: (R, heads, slots, D)
    values: list[Tensor]
    filled: Tensor  # (R,)
    used: int
    """The largest of `filled`, known without asking the device."""
    slots: int
    repeat: int = 1
    """Rows that share each prefilled prompt."""

    @classmethod
    def empty(cls, prompts: Sequence[int], repeat: int, new_tokens: int, device: torch.device) -> "Cache":
        """For prompts of these lengths, each continued `repeat` times by at most `new_tokens` tokens."""
        filled = torch.tensor(prompts, device=device).repeat_interleave(repeat)
        return cls([], [], filled, max(prompts), max(prompts) + new_tokens, repeat)

    def prefill(self, keys: Tensor, values: Tensor) -> None:
        """Keep one layer of the prompts: (G, heads, L, D), from the left."""
        for store, part in ((self.keys, keys), (self.values, values)):
            rows = part.shape[0] * self.repeat
            room = part.new_zeros(rows, part.shape[1], self.slots, part.shape[3])
            room[:, :, : part.shape[2]] = part.repeat_interleave(self.repeat, 0)
            store.append(room)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one new token a row, (R, heads, 1, D), and return all keys and values so far."""
        rows = torch.arange(len(self.filled), device=self.filled.device)
        self.keys[layer][rows, :, self.filled] = keys[:, :, 0].to(self.keys[layer].dtype)
        self.values[layer][rows, :, self.filled] = values[:, :, 0].to(self.values[layer].dtype)
        return self.keys[layer][:, :, : self.used + 1], self.values[layer][:, :, : self.used + 1]

    def mask(self) -> Tensor:
        """(R, 1, 1, used + 1) bool: what the new token may look at."""
        return (torch.arange(self.used + 1, device=self.filled.device) <= self.filled[:, None])[:, None, None]

    def advance(self) -> None:
        """The new token stands in every layer."""
        self.filled = self.filled + 1
        self.used += 1

    def keep(self, rows: Tensor) -> None:
        """Let the other rows leave."""
        self.keys = [part[rows] for part in self.keys]
        self.values = [part[rows] for part in self.values]
        self.filled = self.filled[rows]


def register() -> None:
    """Make `attn_implementation="assent"` known to transformers."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    shared: Pack | None = None,
    cache: Cache | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer: of a pack, of one new token a row, or (neither given) the plain one of transformers.

    Args:
        query: (1, heads, S, D) for a pack; (R, heads, 1, D) for new tokens.
        attention_mask: the pack's or the cache's own mask.

    Returns:
        (1, S, heads, D) or (R, 1, heads, D).
    """
    if shared is not None:
        q, k, v = (_wide(part)[0].transpose(0, 1)[shared.rows].transpose(1, 2) for part in (query, key, value))
        if cache is not None:
            cache.prefill(k, v)
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=_windowed(shared, sliding_window), scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )  # (G, heads, L, D)
        return out.transpose(1, 2).flatten(0, 1)[shared.back][None].to(query.dtype), None
    if cache is not None:
        k, v = cache.extend(int(module.layer_idx), key, value)  # type: ignore[arg-type]
        mask = cache.mask()
        if sliding_window is not None:
            mask &= (cache.filled[:, None] - torch.arange(cache.used + 1, device=k.device) < sliding_window)[
                :, None, None
            ]
        # the heads that share a key stand as queries of it, so that no key is repeated
        grouped = query.reshape(len(query), k.shape[1], -1, query.shape[-1]).to(k.dtype)
        out = scaled_dot_product_attention(grouped, k, v, attn_mask=mask, scale=scaling)
        return out.reshape(len(query), 1, query.shape[1], -1).to(query.dtype), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window, **kwargs
    )


def _wide(part: Tensor) -> Tensor:
    """In float32 on a CPU, where attention is twice as fast backward, and for one new token a row, as in bfloat16."""
    return part.float() if part.device.type == "cpu" else part


def _windowed(shared: Pack, sliding_window: int | None) -> Tensor:
    if sliding_window is None:
        return shared.mask
    positions = shared.positions[0][shared.rows]  # (G, L)
    return shared.mask & (positions[:, None, :, None] - positions[:, None, None, :] < sliding_window)
