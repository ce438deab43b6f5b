"""Public data sets in tests/data, with their sources and licences in its README."""

import csv
import gzip
from pathlib import Path

DATA = Path(__file__).parent / "data"


def read_llmfao_votes(name: str = "llmfao_all_votes.csv.gz") -> list[dict[str, str]]:
    """Return the crowd votes of LLMFAO, one row for each vote of a worker on a pair of models."""
    path = DATA / name
    text = path.read_bytes()
    lines = (gzip.decompress(text) if path.suffix == ".gz" else text).decode().splitlines()
    return list(csv.DictReader(lines))
