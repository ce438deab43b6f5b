"""A folder laid out as the cache of the Hugging Face Hub: blobs, and snapshots of commits that link to them."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path


def add_data_set(cache: Path, id: str, files: Mapping[str, bytes], revision: str = "main") -> None:
    """Add a data set to the cache, as if it had been downloaded."""
    folder = cache / f"datasets--{id.replace('/', '--')}"
    commit = hashlib.sha1(repr((id, revision)).encode()).hexdigest()
    for name, content in files.items():
        blob, file = folder / "blobs" / hashlib.sha256(content).hexdigest(), folder / "snapshots" / commit / name
        for path in (blob, file):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        file.symlink_to(os.path.relpath(blob, file.parent))
    reference = folder / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
