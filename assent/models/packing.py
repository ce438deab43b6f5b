"""Sequence packing with shared prefixes: a prompt is encoded once for all of its completions, without padding.

A `SharedPrefix` is a prompt with K completions: the two sides of a pair, the n samples of a group, a ranking.
`pack` lays many of them end to end in a `PackedBatch`. Every layer but attention sees one row of real tokens.
In attention a token sees its prefix and its own completion up to itself, at positions as if it stood alone.
The first completion forms one span with the prefix, every other completion a span of its own. The fields have the
names of FlashAttention's `flash_attn_varlen_func`.

Example: prefix p0 p1 p2 with the completions a0 a1 and b0 b1, seven tokens in two spans:

                 span 0          span 1
    input_ids    p0 p1 p2 a0 a1  b0 b1           q_lens  = (5, 2)    cu_seqlens_q = (0, 5, 7)
    position_ids  0  1  2  3  4   3  4

    sees         p0 p1 p2 a0 a1  p0 p1 p2 b0 b1  kv_lens = (5, 5)    cu_seqlens_k = (0, 5, 10)
    kv_index      0  1  2  3  4   0  1  2  5  6

                      p0 p1 p2 a0 a1 b0 b1
                  p0   x
                  p1   x  x
                  p2   x  x  x                   predictor_index = (2, 3, 2, 5): p2 predicts a0 and b0,
                  a0   x  x  x  x                a0 predicts a1, b0 predicts b1
                  a1   x  x  x  x  x
                  b0   x  x  x        x
                  b1   x  x  x        x  x
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

MIN_BLOCK = 64 * 64
"""Pairs of tokens whose attention costs about as much as one call."""


class SharedPrefix(NamedTuple):
    """Token ids of a prefix (at least one) and of the completions that continue it (at least one)."""

    prefix: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def num_tokens(self) -> int:
        """Return how many tokens the model must encode."""
        return len(self.prefix) + sum(map(len, self.completions))


class Block(NamedTuple):
    """Spans of similar size, padded on the right into one attention call: R spans of Q queries and K keys.

    The outputs at padding are never read.
    """

    q_index: Tensor  # (R, Q) tokens of the batch
    kv_index: Tensor  # (R, K) tokens of the batch
    kv_offset: Tensor  # (R,) keys before the first query
    mask: Tensor | None  # (R, 1, Q, K) bool; None where `kv_offset` is 0: plain causal attention

    def to(self, device: torch.device | str) -> "Block":
        """Return the block on a device."""
        mask = None if self.mask is None else self.mask.to(device)
        return Block(self.q_index.to(device), self.kv_index.to(device), self.kv_offset.to(device), mask)


@dataclass(frozen=True)
class PackedBatch:
    """Shared prefixes laid end to end and read as spans. S: all tokens; N: completion tokens; B: completions."""

    input_ids: Tensor  # (1, S)
    position_ids: Tensor  # (1, S)
    q_lens: tuple[int, ...]  # tokens of each span; they sum to S
    kv_lens: tuple[int, ...]  # tokens that each span sees: its prefix and itself
    kv_index: Tensor  # (sum of `kv_lens`,) the tokens that the spans see, end to end
    cu_seqlens_q: Tensor  # (spans + 1,) int32: 0 and the cumulative `q_lens`
    cu_seqlens_k: Tensor  # (spans + 1,) int32: 0 and the cumulative `kv_lens`
    blocks: tuple[Block, ...]
    unpad_index: Tensor  # (S,) place of each token in the queries of all blocks, end to end
    predictor_index: Tensor  # (N,) the token whose state predicts each completion token
    targets: Tensor  # (N,) ids of the completion tokens
    completion_index: Tensor  # (N,) 0..B-1
    column_index: Tensor  # (N,) position inside the completion
    last_index: Tensor  # (B,) the last token of each completion
    completion_lens: Tensor  # (B,)

    def to(self, device: torch.device | str) -> "PackedBatch":
        """Return the batch on a device."""
        moved: dict[str, Any] = {k: value.to(device) for k, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved, blocks=tuple(block.to(device) for block in self.blocks))

    def pad_completions(self, values: Tensor) -> Tensor:
        """Lay (N,) out as (B, T), padded with zeros on the right."""
        longest = int(self.completion_lens.max()) if len(self.completion_lens) else 0
        padded = values.new_zeros(len(self.completion_lens), longest)
        return padded.index_put((self.completion_index, self.column_index), values)

    def sum_completions(self, values: Tensor) -> Tensor:
        """Sum (N,) over each completion -> (B,)."""
        return values.new_zeros(len(self.completion_lens)).index_add(0, self.completion_index, values)


class _Segment(NamedTuple):
    """One completion in a batch with the prefix that it sees; the first of a prefix adds the prefix to the batch."""

    prefix: tuple[int, ...]
    completion: tuple[int, ...]
    prefix_start: int  # token of the batch at which the prefix begins
    completion_start: int  # token of the batch at which the completion begins
    is_first: bool

    @property
    def input_ids(self) -> tuple[int, ...]:
        return (*self.prefix, *self.completion) if self.is_first else self.completion

    @property
    def position_ids(self) -> range:
        return range(0 if self.is_first else len(self.prefix), self.kv_len)

    @property
    def q_len(self) -> int:
        return len(self.input_ids)

    @property
    def kv_len(self) -> int:
        return len(self.prefix) + len(self.completion)

    @property
    def kv_index(self) -> Iterator[int]:
        prefix = range(self.prefix_start, self.prefix_start + len(self.prefix))
        return chain(prefix, range(self.completion_start, self.completion_start + len(self.completion)))

    @property
    def predictor_index(self) -> list[int]:
        """Return the predictor of each completion token: the prefix's last token, then the tokens of the completion."""
        prefix_end = self.prefix_start + len(self.prefix)
        predictors = [prefix_end - 1, *range(self.completion_start, self.completion_start + len(self.completion) - 1)]
        return predictors[: len(self.completion)]

    @property
    def last_index(self) -> int:
        """Return the last token of the completion; of an empty one, the last token of its prefix."""
        return (
            (self.completion_start if self.completion else self.prefix_start + len(self.prefix))
            + len(self.completion)
            - 1
        )


def pack(shared_prefixes: Sequence[SharedPrefix]) -> PackedBatch:
    """Lay shared prefixes end to end."""
    segments = list(_segments(shared_prefixes))
    spans = [segment for segment in segments if segment.q_len]
    q_lens = tuple(span.q_len for span in spans)
    kv_lens = tuple(span.kv_len for span in spans)
    cu_seqlens_q = torch.tensor([0, *accumulate(q_lens)], dtype=torch.int32)
    cu_seqlens_k = torch.tensor([0, *accumulate(kv_lens)], dtype=torch.int32)
    kv_index = _long(chain.from_iterable(span.kv_index for span in spans))
    groups = _group_spans(q_lens, kv_lens)
    lengths = [len(segment.completion) for segment in segments]
    return PackedBatch(
        input_ids=_long(chain.from_iterable(segment.input_ids for segment in segments))[None],
        position_ids=_long(chain.from_iterable(segment.position_ids for segment in segments))[None],
        q_lens=q_lens,
        kv_lens=kv_lens,
        kv_index=kv_index,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
        blocks=tuple(_pad_into_block(group, q_lens, kv_lens, cu_seqlens_q, cu_seqlens_k, kv_index) for group in groups),
        unpad_index=_unpad_index(groups, q_lens, cu_seqlens_q),
        predictor_index=_long(chain.from_iterable(segment.predictor_index for segment in segments)),
        targets=_long(chain.from_iterable(segment.completion for segment in segments)),
        completion_index=_long(i for i, length in enumerate(lengths) for _ in range(length)),
        column_index=_long(chain.from_iterable(map(range, lengths))),
        last_index=_long(segment.last_index for segment in segments),
        completion_lens=_long(lengths),
    )


def _segments(shared_prefixes: Sequence[SharedPrefix]) -> Iterator[_Segment]:
    """Yield the completions of a batch with their offsets."""
    offset = 0
    for prefix, completions in shared_prefixes:
        prefix_start = offset
        offset += len(prefix)
        for number, completion in enumerate(completions):
            yield _Segment(prefix, completion, prefix_start, offset, number == 0)
            offset += len(completion)


def _long(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)


def _pad_into_block(
    group: Sequence[int],
    q_lens: Sequence[int],
    kv_lens: Sequence[int],
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    kv_index: Tensor,
) -> Block:
    """Return the spans of a group, padded on the right with their own last tokens."""
    q_len = torch.tensor([q_lens[i] for i in group])[:, None]  # (R, 1)
    kv_len = torch.tensor([kv_lens[i] for i in group])[:, None]
    q_column = torch.arange(int(q_len.max()))
    kv_column = torch.arange(int(kv_len.max()))
    queries = cu_seqlens_q[group][:, None] + q_column.minimum(q_len - 1)
    keys = kv_index[cu_seqlens_k[group][:, None] + kv_column.minimum(kv_len - 1)]
    kv_offset = kv_len - q_len
    mask = None
    if bool(kv_offset.any()):
        mask = (kv_column <= (kv_offset[..., None] + q_column[:, None]))[:, None]  # (R, 1, Q, K)
    return Block(queries, keys, kv_offset[:, 0], mask)


def _group_spans(q_lens: Sequence[int], kv_lens: Sequence[int]) -> list[list[int]]:
    """Return groups of spans (their numbers) that are padded together, the longest first.

    A span joins a group if padding at most doubles its own work, or if the whole block costs less than one call.
    Spans that hold their prefix are not mixed with others: they need no mask.
    """
    order = sorted(range(len(q_lens)), key=lambda i: (q_lens[i] == kv_lens[i], kv_lens[i], q_lens[i]), reverse=True)
    groups: list[list[int]] = []
    area = 0
    for i in order:
        is_same_kind = groups and (q_lens[i] == kv_lens[i]) == (q_lens[groups[-1][0]] == kv_lens[groups[-1][0]])
        if not is_same_kind or (2 * q_lens[i] * kv_lens[i] < area and area > MIN_BLOCK):
            groups.append([])
            area = q_lens[i] * kv_lens[i]
        groups[-1].append(i)
    return groups


def _unpad_index(groups: Sequence[Sequence[int]], q_lens: Sequence[int], cu_seqlens_q: Tensor) -> Tensor:
    """Return the place of each token in the padded queries of all blocks, end to end: (S,)."""
    index = torch.empty(sum(q_lens), dtype=torch.long)
    starts = cu_seqlens_q.tolist()
    row_start = 0
    for group in groups:
        padded_len = max(q_lens[i] for i in group)
        for i in group:
            index[starts[i] : starts[i + 1]] = torch.arange(row_start, row_start + q_lens[i])
            row_start += padded_len
    return index
