"""JSON has no word for a number that is not finite: what is written as JSON has null in its place."""

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """The same, with None for every infinite number and NaN, at any depth of dictionaries, lists and tuples."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
