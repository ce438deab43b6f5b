"""On a GPU a step of decoding is recorded once and launched whole: else hundreds of small kernels wait for Python.

What is recorded reads and writes the same memory each time, so the cache of a GPU is static (`Cache.fixed`). It has
not run on a GPU yet: a recorded step is compared with a plain one before it is relied on.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from assent.errors import warn
from assent.models.attention import Cache
from assent.models.forward import next_states

CLOSE = 5e-2
"""How far a row's logits may be from those of a plain step, as a share: other kernels may be chosen."""
WORTH = 8
"""Steps to come for which a recording pays."""


@cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """One stream for all recordings: libraries keep room for each that they have seen."""
    return torch.cuda.Stream(device)


def record(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """The same step as one CUDA graph; its result lies in the same memory each time.

    Raises:
        RuntimeError: something in it cannot be recorded, such as a choice that depends on a number on the GPU.
    """
    with torch.cuda.device(device):
        here, aside = torch.cuda.current_stream(), _aside(device)
        aside.wait_stream(here)
        usual = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")  # what waits for a number fails here, in its own words
        try:
            with torch.cuda.stream(aside):
                step()  # libraries choose their kernels and take their room before anything is recorded
        finally:
            torch.cuda.set_sync_debug_mode(usual)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=aside):
                out = step()
        finally:
            torch.cuda.set_stream(here)

    def launch() -> Tensor:
        graph.replay()
        return out

    return launch


class Decoder:
    """Reads one token a row and says what may come next; where the cache is static, by a recording."""

    works = True
    """Until a step could not be recorded in this process: a failed recording is not tried again."""

    def __init__(self, body: nn.Module, to_logits: Callable[[Tensor], Tensor], cache: Cache) -> None:
        cache.fixed = cache.fixed and Decoder.works
        self._body, self._to_logits, self._cache = body, to_logits, cache
        self._tokens = torch.empty(0, dtype=torch.long, device=cache.drawn.device)
        self._recorded: Callable[[], Tensor] | None = None
        self._trusted = False

    def __call__(self, tokens: Tensor) -> Tensor:
        """(R,) -> logits (R, V), which the next call may overwrite."""
        if len(tokens) == len(self._tokens):
            self._tokens.copy_(tokens)
            logits = self._launch()
        else:  # the first step, or some rows have left
            self._tokens, self._trusted = tokens.clone(), False
            logits = self._plain()
            worth = self._cache.fixed and self._cache.room - self._cache.used >= WORTH
            self._recorded = self._record() if worth else None
        self._cache.advance()
        return logits

    def _plain(self) -> Tensor:
        return self._to_logits(next_states(self._body, self._tokens, self._cache)).float()

    def _record(self) -> Callable[[], Tensor] | None:
        try:
            return record(self._plain, self._tokens.device)
        except RuntimeError as error:
            self._give_up(str(error.__context__ or error).partition("\n")[0])
            return None

    def _launch(self) -> Tensor:
        """By the recording, if there is one; the first time beside a plain step."""
        if self._recorded is None:
            return self._plain()
        if self._trusted:
            return self._recorded()
        plain, made = self._plain(), self._recorded()
        apart = float(((made - plain).norm(dim=-1) / plain.norm(dim=-1)).max())
        self._trusted = apart <= CLOSE
        if not self._trusted:
            self._give_up(f"it comes out {apart:.1g} apart")
        return plain

    def _give_up(self, why: str) -> None:
        Decoder.works = self._cache.fixed = False
        self._recorded = None
        warn(f"decoding goes step by step, since its step cannot be recorded: {why}")
