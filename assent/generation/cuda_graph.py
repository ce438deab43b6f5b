"""A decoding step as a CUDA graph: recorded once and launched whole, so that its small kernels do not wait for Python.

A graph reads and writes the same memory each time, so the cache on a GPU is static (`KVCache.is_static`). It has not
run on a GPU yet: a recorded step is compared with an eager one before it is used.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from assent.errors import warn
from assent.models.forward import decode_hidden_states
from assent.models.kv_cache import KVCache

TOLERANCE = 5e-2
"""Accepted relative difference of a row's logits from an eager step: other kernels may be chosen."""
MIN_STEPS = 8
"""Remaining steps from which a recording saves time."""


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return one stream for all recordings: libraries keep a workspace for each stream."""
    return torch.cuda.Stream(device)


def record_graph(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Return a step as one CUDA graph; its result lies in the same memory each time.

    Raises:
        RuntimeError: the step cannot be recorded, for example if it waits for a value on the GPU.
    """
    with torch.cuda.device(device):
        current = torch.cuda.current_stream()
        side = _side_stream(device)
        side.wait_stream(current)
        sync_mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")  # a step that waits for a value fails here with a clear message
        try:
            with torch.cuda.stream(side):
                step()  # libraries choose kernels and allocate workspaces before the recording
        finally:
            torch.cuda.set_sync_debug_mode(sync_mode)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=side):
                out = step()
        finally:
            torch.cuda.set_stream(current)

    def launch() -> Tensor:
        graph.replay()
        return out

    return launch


class Decoder:
    """Decodes one token a row into the logits of the next; by a CUDA graph where the cache is static."""

    can_record = True
    """False once a step could not be recorded in this process: a failed recording is not tried again."""

    def __init__(self, body: nn.Module, to_logits: Callable[[Tensor], Tensor], cache: KVCache) -> None:
        cache.is_static = cache.is_static and Decoder.can_record
        self._body = body
        self._to_logits = to_logits
        self._cache = cache
        self._tokens = torch.empty(0, dtype=torch.long, device=cache.cache_position.device)
        self._graph: Callable[[], Tensor] | None = None
        self._is_verified = False

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return logits (R, V) after the tokens (R,); the next call may overwrite them."""
        if len(tokens) == len(self._tokens):
            self._tokens.copy_(tokens)
            logits = self._launch()
        else:  # the first step, or some rows have left
            self._tokens = tokens.clone()
            self._is_verified = False
            logits = self._eager_step()
            remaining = self._cache.max_new_tokens - self._cache.num_cached
            self._graph = self._record() if self._cache.is_static and remaining >= MIN_STEPS else None
        self._cache.advance()
        return logits

    def _eager_step(self) -> Tensor:
        return self._to_logits(decode_hidden_states(self._body, self._tokens, self._cache)).float()

    def _record(self) -> Callable[[], Tensor] | None:
        try:
            return record_graph(self._eager_step, self._tokens.device)
        except RuntimeError as error:
            self._stop_recording(str(error.__context__ or error).partition("\n")[0])
            return None

    def _launch(self) -> Tensor:
        """Run the recorded step, if there is one; the first time, compare it with an eager step."""
        if self._graph is None:
            return self._eager_step()
        if self._is_verified:
            return self._graph()
        expected = self._eager_step()
        recorded = self._graph()
        difference = float(((recorded - expected).norm(dim=-1) / expected.norm(dim=-1)).max())
        self._is_verified = difference <= TOLERANCE
        if not self._is_verified:
            self._stop_recording(f"its logits differ by {difference:.1g}")
        return expected

    def _stop_recording(self, reason: str) -> None:
        Decoder.can_record = self._cache.is_static = False
        self._graph = None
        warn(f"decoding runs without a CUDA graph, because the recorded step cannot be used: {reason}")
