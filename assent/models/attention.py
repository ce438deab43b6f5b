"""Shared prefixes: a prompt is encoded once and its completions hang from it as branches, in one pack without padding.

A tree is a prefix and K branches: a pair's prompt with its two answers, a group's prompt with its n samples, a ranking.
A pack is many trees laid end to end; every layer but attention sees one long row of real tokens. Attention looks at
each tree alone: a token sees the prefix and its own branch, up to itself, with positions as if it stood alone.
The function is registered with transformers' `AttentionInterface`, so it serves every model there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

NAME = "assent"
SMALL = 64 * 64
"""Pairs of tokens whose attention costs about as much as a call."""
NONE = torch.empty(1, 1, 1, 1, dtype=torch.bool)
"""Keeps transformers from making a mask of its own: it takes any with four dimensions as it is."""


class SharedPrefix(NamedTuple):
    """Token ids of a prefix (at least one) and of the branches that hang from it."""

    prefix: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Tokens that the model must encode."""
        return len(self.prefix) + sum(map(len, self.completions))


class Block(NamedTuple):
    """Spans of about one size, padded on the right into one call of attention: R spans of Q tokens that look at K.

    What stands in a padded place is read by nobody.
    """

    queries: Tensor  # (R, Q) which tokens
    keys: Tensor  # (R, K)
    before: Tensor  # (R,) how many of the keys stand before the first query
    mask: Tensor | None  # (R, 1, Q, K) bool; None where `before` is 0: each query sees the keys up to its place

    def to(self, device: torch.device | str) -> "Block":
        mask = None if self.mask is None else self.mask.to(device)
        return Block(self.queries.to(device), self.keys.to(device), self.before.to(device), mask)


@dataclass(frozen=True)
class PackedBatch:
    """Trees laid end to end, and read as spans. N: all branch tokens; B: all branches.

    The first span of a tree is its prefix with its first branch, each other branch is a span of its own: so the spans
    lie end to end too, and each looks, up to itself, at a row of tokens that ends where it ends.
    """

    tokens: Tensor  # (1, S)
    positions: Tensor  # (1, S)
    spans: tuple[int, ...]  # lengths; they sum to S
    seen: tuple[int, ...]  # how many tokens each span looks at: its prefix and itself
    looks: Tensor  # (sum of `seen`,) which tokens those are
    begins: Tensor  # (spans + 1,) int32: where each span begins, and the last one ends
    views: Tensor  # (spans + 1,) int32: the same in `looks`
    blocks: tuple[Block, ...]
    places: Tensor  # (S,) where each token stands in the queries of all blocks, end to end
    sources: Tensor  # (N,) the token whose state predicts each branch token
    targets: Tensor  # (N,) the branch tokens
    branch: Tensor  # (N,) 0..B-1
    column: Tensor  # (N,) place inside the branch
    last: Tensor  # (B,) the last token of each branch
    lengths: Tensor  # (B,)

    def to(self, device: torch.device | str) -> "PackedBatch":
        moved: dict[str, Any] = {k: value.to(device) for k, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved, blocks=tuple(block.to(device) for block in self.blocks))

    def padded(self, values: Tensor) -> Tensor:
        """Lay (N,) out as (B, T), padded with zeros on the right."""
        longest = int(self.lengths.max()) if len(self.lengths) else 0
        grid = values.new_zeros(len(self.lengths), longest)
        return grid.index_put((self.branch, self.column), values)

    def sums(self, values: Tensor) -> Tensor:
        """Sum (N,) over each branch -> (B,)."""
        return values.new_zeros(len(self.lengths)).index_add(0, self.branch, values)


def pack(trees: Sequence[SharedPrefix]) -> PackedBatch:
    """Lay trees end to end."""
    tokens: list[int] = []
    positions: list[int] = []
    spans: list[int] = []
    seen: list[int] = []
    looks: list[int] = []
    sources: list[int] = []
    targets: list[int] = []
    branch: list[int] = []
    column: list[int] = []
    last: list[int] = []
    lengths: list[int] = []
    for tree in trees:
        start, root = len(tokens), len(tree.prefix)
        tokens += tree.prefix
        positions += range(root)
        for number, ids in enumerate(tree.completions):
            here, size = len(tokens), len(ids)
            tokens += ids
            positions += range(root, root + size)
            sources += [start + root - 1, *range(here, here + size - 1)][:size]
            targets += ids
            branch += [len(lengths)] * size
            column += range(size)
            last.append(here + size - 1 if size else start + root - 1)
            lengths.append(size)
            if number == 0 or size:
                spans.append(size if number else root + size)
                seen.append(root + size)
                looks += [*range(start, start + root), *range(here, here + size)]
    begins, views = (torch.tensor([0, *accumulate(sizes)], dtype=torch.int32) for sizes in (spans, seen))
    looked = torch.tensor(looks)
    return PackedBatch(
        torch.tensor([tokens]),
        torch.tensor([positions]),
        tuple(spans),
        tuple(seen),
        looked,
        begins,
        views,
        *_blocks(spans, seen, begins, views, looked),
        *(torch.tensor(values, dtype=torch.long) for values in (sources, targets, branch, column, last, lengths)),
    )


def _blocks(
    spans: Sequence[int], seen: Sequence[int], begins: Tensor, views: Tensor, looks: Tensor
) -> tuple[tuple[Block, ...], Tensor]:
    """Spans gathered into blocks, and where each token stands in them.

    A span joins a block if that does not pad it to more than twice its own work, or if all of it is less than a call.
    """
    groups: list[list[int]] = []
    area = 0
    for i in sorted(range(len(spans)), key=lambda i: (spans[i] == seen[i], seen[i], spans[i]), reverse=True):
        alike = groups and (spans[i] == seen[i]) == (spans[groups[-1][0]] == seen[groups[-1][0]])
        if not alike or (2 * spans[i] * seen[i] < area and area > SMALL):
            groups.append([])
            area = spans[i] * seen[i]
        groups[-1].append(i)
    blocks, places, done = [], torch.empty(sum(spans), dtype=torch.long), 0
    for group in groups:
        sizes, sights = (torch.tensor([some[i] for i in group])[:, None] for some in (spans, seen))  # (R, 1)
        column, row = torch.arange(int(sizes.max())), torch.arange(int(sights.max()))
        queries = begins[group][:, None] + column.minimum(sizes - 1)
        keys = looks[views[group][:, None] + row.minimum(sights - 1)]
        before = sights - sizes
        mask = row <= (before[..., None] + column[:, None]) if bool(before.any()) else None  # (R, Q, K)
        blocks.append(Block(queries, keys, before[:, 0], None if mask is None else mask[:, None]))
        real = column < sizes
        places[queries[real]] = done + torch.arange(queries.numel()).view(queries.shape)[real]
        done += queries.numel()
    return tuple(blocks), places


def shares(body: torch.nn.Module) -> bool:
    """Whether a model's blocks read packs; otherwise each of their spans must be laid out as a row of its own."""
    config: Any = body.config
    return bool(config._attn_implementation == NAME)


@dataclass
class Cache:
    """Keys and values of prompts, each held once, and of the tokens that their rows have drawn since, as many in each.

    Attention to a prompt reads it once for all of its rows, which stand in a grid of prompts and places for that.
    """

    lengths: Tensor  # (P,) of the prompts
    owner: Tensor  # (R,) the prompt of each row, in order of prompts
    place: Tensor  # (R,) where it stands in the grid, row by row
    width: int
    """Places that each prompt has in the grid."""
    room: int
    """Tokens that a row may draw."""
    fixed: bool
    """Whether a step reads all of the room, so that it is the same step each time; else what is used of it."""
    drawn: Tensor  # () tokens that each row has drawn
    used: int = 0
    """The same, known without asking the device."""
    prompts: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # a layer: keys and values, (P, heads, L, D)
    rows: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # a layer: (R, heads, room, D)

    @classmethod
    def empty(cls, prompts: Sequence[int], width: int, room: int, device: torch.device) -> "Cache":
        """For prompts of these lengths, each continued by `width` rows of at most `room` tokens."""
        place = torch.arange(len(prompts) * width, device=device)
        lengths, drawn = torch.tensor(prompts, device=device), torch.zeros((), dtype=torch.long, device=device)
        return cls(lengths, place // width, place, width, room, device.type == "cuda", drawn)

    @property
    def reach(self) -> int:
        """How much of the room a step reads."""
        return self.room if self.fixed else self.used + 1

    @property
    def positions(self) -> Tensor:
        """(R,) of the new tokens."""
        return self.lengths[self.owner] + self.drawn

    def prefill(self, keys: Tensor, values: Tensor, lengths: Sequence[int]) -> None:
        """Keep one layer of the prompts, (S, heads, D), which have these lengths."""
        whole = [
            pad_sequence(list(packed.split(list(lengths))), batch_first=True).transpose(1, 2).contiguous()
            for packed in (keys, values)
        ]
        self.prompts.append((whole[0], whole[1]))
        size = (len(self.place), keys.shape[1], self.room, keys.shape[2])
        self.rows.append((keys.new_zeros(size), values.new_zeros(size)))

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write one new token a row, (R, heads, 1, D), and return what the rows have drawn so far."""
        for kept, new in zip(self.rows[layer], (key, value), strict=True):
            kept.index_copy_(2, self.drawn[None], new.to(kept.dtype))
        keys, values = self.rows[layer]
        return keys[:, :, : self.reach], values[:, :, : self.reach]

    def seen(self, window: int | None) -> tuple[Tensor, Tensor]:
        """What a new token may look at of its prompt, (P, 1, 1, L) bool, and of its row, (reach,)."""
        places = torch.arange(self.prompts[0][0].shape[2], device=self.drawn.device)
        own = torch.arange(self.reach, device=self.drawn.device)
        before, since = places < self.lengths[:, None], own <= self.drawn
        if window is not None:
            before = before & ((self.lengths + self.drawn)[:, None] - places < window)
            since = since & (self.drawn - own < window)
        return before[:, None, None], since

    def spread(self, rows: Tensor) -> Tensor:
        """(R, heads, share, X) -> (P, heads, width x share, X), with zeros where a row has left."""
        grid, size = rows, len(self.lengths) * self.width
        if len(rows) < size:
            grid = rows.new_zeros(size, *rows.shape[1:]).index_copy(0, self.place, rows)
        return grid.view(-1, self.width, *rows.shape[1:]).transpose(1, 2).flatten(2, 3)

    def gathered(self, grid: Tensor) -> Tensor:
        """The way back."""
        prompts, heads, _, size = grid.shape
        rows = grid.view(prompts, heads, self.width, -1, size).transpose(1, 2).flatten(0, 1)
        return rows if len(rows) == len(self.place) else rows.index_select(0, self.place)

    def advance(self) -> None:
        """The new token stands in every layer."""
        self.drawn += 1
        self.used += 1

    def keep(self, rows: Tensor) -> None:
        """Let the other rows leave, given in order, and the prompts that have none left."""
        prompts, owner, count = self.owner[rows].unique_consecutive(return_inverse=True, return_counts=True)
        first = count.cumsum(0) - count
        self.lengths, self.owner, self.width = self.lengths[prompts], owner, int(count.max())
        self.place = owner * self.width + torch.arange(len(rows), device=rows.device) - first[owner]
        self.prompts = [(keys[prompts], values[prompts]) for keys, values in self.prompts]
        self.rows = [(keys[rows], values[rows]) for keys, values in self.rows]


CHANGES = frozenset({"position_bias", "head_mask", "alibi"})
"""What some families hand to attention besides: to leave it out would give other numbers."""


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
    shared: PackedBatch | None = None,
    cache: Cache | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer: of a pack, of one new token a row, or (neither given) the plain one of transformers.

    Args:
        query: (1, heads, S, D) for a pack; (R, heads, 1, D) for new tokens.
        softcap: bounds the scores (Gemma 2).
        s_aux: (heads,) what a head may look at instead of any token (gpt-oss).

    Returns:
        (1, S, heads, D) or (R, 1, heads, D).

    Raises:
        NotImplementedError: the layer asks for something that changes attention and is unknown here, such as a bias.
    """
    if shared or cache:
        if asked := sorted(CHANGES & {name for name, value in kwargs.items() if value is not None}):
            raise NotImplementedError(f"attention with {asked[0]}")
        if attention_mask is not None and attention_mask.numel() > 1:  # not NONE: Doge's learned one, for example
            raise NotImplementedError("attention with a mask of its own")
    look = partial(_look, scale=scaling, cap=softcap, sinks=s_aux)
    if shared is not None:
        q, k, v = (_wide(part)[0].transpose(0, 1) for part in (query, key, value))  # (S, heads, D)
        if cache is not None:
            cache.prefill(k, v, shared.spans)
        if softcap is None and s_aux is None and _has_kernel(q):
            return _in_one_call(q, k, v, shared, sliding_window, scaling)[None], None
        return _packed(q, k, v, shared, sliding_window, look)[None].to(query.dtype), None
    if cache is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return _continued(query, key, value, cache, layer, sliding_window, scale, softcap, s_aux), None
    if softcap is not None or s_aux is not None:
        return look(query, key, value, attention_mask).transpose(1, 2), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window, **kwargs
    )


def _has_kernel(q: Tensor) -> bool:
    """Whether torch attends to spans of any length in one call: half precision, heads of up to 256, Ampere or newer."""
    suits = q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] <= 256 and q.shape[-1] % 8 == 0
    return suits and torch.cuda.get_device_capability(q.device) >= (8, 0)


def _in_one_call(
    q: Tensor, k: Tensor, v: Tensor, shared: PackedBatch, window: int | None, scale: float | None
) -> Tensor:
    """Attention of all spans by the variable-length kernel, each to a row that ends where it ends; (S, heads, D)."""
    from torch.nn.attention.varlen import varlen_attn

    keys, values = (part.index_select(0, shared.looks) for part in (k, v))
    found = varlen_attn(
        q,
        keys,
        values,
        shared.begins,
        shared.views,
        max(shared.spans),
        max(shared.seen),
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(found, Tensor)
    return found


def _packed(
    q: Tensor, k: Tensor, v: Tensor, shared: PackedBatch, window: int | None, look: Callable[..., Tensor]
) -> Tensor:
    """Attention block by block, so that few tokens are compared with one that they cannot see; all (S, heads, D)."""
    found = []
    for block in shared.blocks:
        mask = block.mask
        if window is not None and block.keys.shape[1] > window:
            mask = _near(block, window)
        parts = ((q, block.queries), (k, block.keys), (v, block.keys))
        rows = (part.index_select(0, which.flatten()).unflatten(0, which.shape) for part, which in parts)
        out = look(*(part.transpose(1, 2) for part in rows), mask)  # (R, heads, Q, D)
        found.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).index_select(0, shared.places)


def _continued(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cache: Cache,
    layer: int,
    window: int | None,
    scale: float,
    cap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention of one new token a row, (R, heads, 1, D), to its prompt and to its row up to itself; (R, 1, heads, D).

    The heads that share a key, and the rows that share a prompt, stand as queries of it, so that no key is repeated.
    """
    keys, values = cache.prompts[layer]
    own_keys, own_values = cache.extend(layer, key, value)
    rows = query.to(keys.dtype).reshape(len(query), keys.shape[1], -1, query.shape[-1]) * scale  # (R, fewer, share, D)
    seen_before, seen_since = cache.seen(window)
    before = cache.gathered(cache.spread(rows) @ keys.mT), seen_before[cache.owner]  # (R, fewer, share, L)
    since = rows @ own_keys.mT, seen_since  # (R, fewer, share, reach)
    to_prompt, to_row = (part.to(values.dtype) for part in _weights(cap, sinks, before, since))
    found: Tensor = cache.gathered(cache.spread(to_prompt) @ values) + to_row @ own_values
    return found.reshape(len(query), 1, query.shape[1], -1).to(query.dtype).contiguous()  # some families view it


def _look(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float | None = None,
    cap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of (R, heads, Q, D) to (R, fewer heads, K, D); without a mask, each to itself and what is before it."""
    share = query.shape[1] // key.shape[1]
    if cap is None and sinks is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=share > 1
        )
    key, value = (part.repeat_interleave(share, 1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * (scale or query.shape[-1] ** -0.5)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    (weights,) = _weights(cap, sinks, (scores, mask))
    return weights.to(value.dtype) @ value


def _weights(cap: float | None, sinks: Tensor | None, *parts: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Softmax of scores that stand in parts, (R, heads, Q, any), each with what is seen of it; float32.

    A sink takes its share of what is given to the tokens and is none of them; (heads x Q) or one for all Q.
    """
    scores = [
        (part if cap is None else cap * torch.tanh(part / cap)).float().masked_fill(~seen, -torch.inf)
        for part, seen in parts
    ]
    if sinks is not None:
        some = scores[0]
        scores.append(sinks.float().reshape(1, some.shape[1], -1, 1).expand(*some.shape[:3], 1))
    sizes = [part.shape[-1] for part in scores]
    return list(torch.cat(scores, -1).softmax(-1).split(sizes, -1))[: len(parts)]


def _near(block: Block, window: int) -> Tensor:
    """(R, 1, Q, K) bool: a token itself and those before it that are nearer than the window."""
    places = (torch.arange(part.shape[1], device=part.device) for part in (block.queries, block.keys))
    query, key = places
    behind = (block.before[:, None] + query)[..., None] - key  # (R, Q, K)
    return ((behind >= 0) & (behind < window))[:, None]


def _wide(part: Tensor) -> Tensor:
    """In float32 on a CPU, where attention is twice as fast backward, and for one new token a row, as in bfloat16."""
    return part.float() if part.device.type == "cpu" else part
