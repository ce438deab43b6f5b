"""Memory: what is freed stays with the process and comes in large pages, for asking the kernel anew costs more."""

import ctypes
import os
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's `mallopt`."""


@cache
def keep_freed() -> None:
    """Let this process keep the memory that it frees; it matters where tensors of megabytes come and go all the time.

    glibc gives each back to the kernel, which must clear the pages of the next one: a quarter of a training step on a
    CPU (docs/log.md). Elsewhere than on Linux with glibc nothing is changed.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it when it first makes a tensor
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
