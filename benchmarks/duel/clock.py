"""One side's watch: seconds of each step, the loss of each, and the most memory that its process held.

Both sides import this file, each in its own environment: it knows torch and nothing else.
"""

import json
import resource
import sys
import time
from typing import Any

import torch


class Clock:
    """Steps of a side. The first is not timed: it is when libraries and memory warm up."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: list[float] = []
        self.found: list[dict[str, float]] = []
        self._start = 0.0

    def begin(self) -> None:
        self._wait()
        self._start = time.perf_counter()

    def end(self) -> None:
        self._wait()
        self.seconds.append(time.perf_counter() - self._start)

    def found_in_step(self, **numbers: float) -> None:
        """What the step came to, to be compared with the other side."""
        self.found.append({name: float(value) for name, value in numbers.items()})

    def tell(self, **more: Any) -> None:
        """Print one line of JSON: what the other process reads."""
        told = {
            "seconds": self.seconds[1:],
            "first_seconds": self.seconds[0],
            "found": self.found,
            "peak_gb": self.peak(),
        }
        print(json.dumps(told | {"torch": torch.__version__, "threads": torch.get_num_threads()} | more))

    def peak(self) -> float:
        """GB (10^9 bytes): of the GPU, or of the process where there is none."""
        if self.device.startswith("cuda"):
            return torch.cuda.max_memory_allocated() / 1e9
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
