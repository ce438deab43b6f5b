"""JSON has no infinity and no NaN: null is written in their place."""

import math
from collections.abc import Mapping
from typing import Any


def replace_nonfinite(value: Any) -> Any:
    """Replace infinite numbers and NaN by None, at any depth of dictionaries, lists and tuples."""
    if isinstance(value, Mapping):
        return {key: replace_nonfinite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
