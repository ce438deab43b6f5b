"""Public data sets in tests/data, with their sources and licences in its README."""

import csv
import gzip
from pathlib import Path

DATA = Path(__file__).parent / "data"


def read_llmfao_votes(name: str = "llmfao_all_votes.csv.gz") -> list[dict[str, str]]:
    """Return the crowd votes of LLMFAO, one row for each vote of a worker on a pair of models."""
    path = DATA / name
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as file:
        return list(csv.DictReader(file))
