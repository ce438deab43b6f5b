"""Clock of one side: seconds and results of each step, and the peak memory of its process.

Both sides import this file, each in its own environment: it imports torch only.
"""

import json
import resource
import sys
import time
from typing import Any

import torch


class Clock:
    """Steps of one side. The first is not timed: libraries and memory warm up in it."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: list[float] = []
        self.results: list[dict[str, float]] = []
        self._start = 0.0

    def begin(self) -> None:
        """Start a step."""
        self._synchronise()
        self._start = time.perf_counter()

    def end(self) -> None:
        """End the step."""
        self._synchronise()
        self.seconds.append(time.perf_counter() - self._start)

    def record(self, **numbers: float) -> None:
        """Record numbers of a step, to be compared with the other side."""
        self.results.append({name: float(value) for name, value in numbers.items()})

    def report(self, **extra: Any) -> None:
        """Print one line of JSON, which the parent process reads."""
        summary = {
            "seconds": self.seconds[1:],
            "first_seconds": self.seconds[0],
            "results": self.results,
            "peak_gb": self.peak(),
        }
        print(json.dumps(summary | {"torch": torch.__version__, "threads": torch.get_num_threads()} | extra))

    def peak(self) -> float:
        """Return the peak memory in GB (10^9 bytes): of the GPU, or of the process without one."""
        if self.device.startswith("cuda"):
            return torch.cuda.max_memory_allocated() / 1e9
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

    def _synchronise(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
