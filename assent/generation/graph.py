"""On a GPU a step of decoding is recorded once and launched whole: else hundreds of small kernels wait for Python.

What is recorded reads and writes the same memory each time, so the cache of a GPU is static (`Cache.fixed`). It has
not run on a GPU yet: a recorded step is compared with a plain one before it is relied on.
"""

import os
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from assent.models.attention import Cache
from assent.models.forward import next_states

CLOSE = 5e-2
"""How far a recorded step may be from a plain one, as a share: the same kernels may be chosen otherwise."""


def record(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """The same step as one CUDA graph; its result lies in the same memory each time.

    Raises:
        RuntimeError: something in it cannot be recorded, such as a choice that depends on a number on the GPU.
    """
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            step()  # libraries choose their kernels and take their room before anything is recorded
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = step()

    def launch() -> Tensor:
        graph.replay()
        return out

    return launch


class Decoder:
    """Reads one token a row and says what may come next; where the cache is static, by a recording."""

    def __init__(self, body: nn.Module, to_logits: Callable[[Tensor], Tensor], cache: Cache) -> None:
        self._body, self._to_logits, self._cache = body, to_logits, cache
        self._tokens = torch.empty(0, dtype=torch.long, device=cache.filled.device)
        self._launch = self._plain

    def __call__(self, tokens: Tensor) -> Tensor:
        """(R,) -> logits (R, V), which the next call may overwrite."""
        if len(tokens) == len(self._tokens):
            self._tokens.copy_(tokens)
        else:  # the first step, or some rows have left
            self._tokens = tokens.clone()
            self._launch = self._recorded() if self._cache.fixed else self._plain
        logits = self._launch()
        self._cache.advance()
        return logits

    def _plain(self) -> Tensor:
        return self._to_logits(next_states(self._body, self._tokens, self._cache)).float()

    def _recorded(self) -> Callable[[], Tensor]:
        plain = self._plain()
        try:
            launch = record(self._plain, plain.device)
            apart = float((launch() - plain).norm() / plain.norm())
            if apart <= CLOSE:
                return launch
            why = f"it comes out {apart:.1g} apart"
        except RuntimeError as error:
            why = str(error).partition("\n")[0]
        self._cache.fixed = False
        if os.environ.get("RANK", "0") == "0":
            print(f"note: decoding goes step by step, since its step cannot be recorded: {why}", file=sys.stderr)
        return self._plain
