"""Log-probabilities of completions under the reference policy, computed once and kept for a resumed run."""

import hashlib
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assent.errors import warn
from assent.files import no_room, replacing
from assent.models.attention import SharedPrefix, pack
from assent.models.forward import logprobs
from assent.run import Run
from assent.training.batching import chunks
from assent.training.distributed import all_gather, is_rank0
from assent.training.logging import ProgressBar
from assent.training.loop import read_state
from assent.training.microbatch import map_batches

PORTION = 512
"""Trees that the reference is asked about before what it says is kept."""


def reference_sums(run: Run, key: str, model: nn.Module, trees: list[SharedPrefix], tokens: int) -> list[Tensor]:
    """Summed log-probabilities of every branch under the start, (K,) a tree: made once, kept for a resumed run."""
    path, examples = run.folder / "state" / key / "reference.pt", _digest(trees)
    sizes = [len(tree.completions) for tree in trees]
    kept: Any = read_state(path) if path.exists() else (examples, torch.empty(0))
    if not isinstance(kept, tuple) or kept[0] != examples:  # older files hold the sums alone
        warn(f"{key}: what the reference said is of other examples, or of another version's: it is asked anew")
        kept = examples, torch.empty(0)
    made: Tensor = kept[1]  # (branches of the trees that are done,)
    done = bisect([*accumulate(sizes)], len(made))
    all_gather(done)  # all have read before the first one writes
    if done == len(trees):
        return list(made.split(sizes))
    with ProgressBar(f"{key}: reference", len(trees), done) as bar:
        for some in chunks(trees[done:], PORTION):
            sums = map_batches(some, tokens, lambda part: branch_sums(model, part, run.device), bar.advance)
            made = torch.cat((made, *sums))
            if is_rank0():
                _keep((examples, made), path)
    return list(made.split(sizes))


def branch_sums(model: nn.Module, trees: Sequence[SharedPrefix], device: torch.device) -> Tensor:
    """Summed log-probabilities of every branch of some trees, (B,)."""
    packed = pack(trees).to(device)
    return packed.sums(logprobs(model, packed).logprobs)


def _digest(trees: Sequence[SharedPrefix]) -> str:
    """A name for trees in their order."""
    digest = hashlib.sha256()
    for tree in trees:
        digest.update(repr(tuple(tree)).encode())
    return digest.hexdigest()


def _keep(known: tuple[str, Tensor], path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise no_room(error, path) from None
    with replacing(path) as file:
        torch.save(known, file)
