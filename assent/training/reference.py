"""Log-probabilities of completions under the reference policy, computed once and saved for a resumed run."""

import hashlib
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assent.errors import warn
from assent.files import replacing, write_error
from assent.models.forward import logprobs
from assent.models.packing import SharedPrefix, pack
from assent.run import Run
from assent.training.batching import chunks
from assent.training.distributed import all_gather, is_rank0
from assent.training.logging import ProgressBar
from assent.training.loop import read_state
from assent.training.microbatch import map_batches

SAVE_EVERY = 512
"""Prefixes after which the log-probabilities are saved."""


def reference_logprobs(
    run: Run, key: str, model: nn.Module, prefixes: list[SharedPrefix], max_tokens: int
) -> list[Tensor]:
    """Return the summed log-probabilities of every completion under the reference, (K,) for each prefix.

    They are computed once: a resumed run reads those that are saved.
    """
    path = run.folder / "state" / key / "reference.pt"
    digest = _digest(prefixes)
    sizes = [len(prefix.completions) for prefix in prefixes]
    saved: Any = read_state(path) if path.exists() else (digest, torch.empty(0))
    if not isinstance(saved, tuple) or saved[0] != digest:  # older files hold the sums alone
        warn(f"{key}: the saved reference log-probabilities belong to other examples; computing them again")
        saved = digest, torch.empty(0)
    sums: Tensor = saved[1]  # (completions of the prefixes that are done,)
    num_done = bisect([*accumulate(sizes)], len(sums))
    all_gather(num_done)  # all processes have read before the first one writes
    if num_done == len(prefixes):
        return list(sums.split(sizes))
    with ProgressBar(f"{key}: reference", len(prefixes), num_done) as bar:
        for chunk in chunks(prefixes[num_done:], SAVE_EVERY):
            new_sums = map_batches(
                chunk, max_tokens, lambda part: completion_logprobs(model, part, run.device), bar.advance
            )
            sums = torch.cat((sums, *new_sums))
            if is_rank0():
                _save(path, digest, sums)
    return list(sums.split(sizes))


def completion_logprobs(model: nn.Module, prefixes: Sequence[SharedPrefix], device: torch.device) -> Tensor:
    """Return the summed log-probabilities of every completion of some prefixes, (B,)."""
    packed = pack(prefixes).to(device)
    return packed.sum_completions(logprobs(model, packed).logprobs)


def _digest(prefixes: Sequence[SharedPrefix]) -> str:
    """Return the hash of prefixes and completions in their order."""
    digest = hashlib.sha256()
    for prefix in prefixes:
        digest.update(repr(tuple(prefix)).encode())
    return digest.hexdigest()


def _save(path: Path, digest: str, sums: Tensor) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, path) from None
    with replacing(path) as file:
        torch.save((digest, sums), file)
