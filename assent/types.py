"""Types of settings that say their own limits: `config` refuses what lies outside, naming the field."""

from typing import Annotated

from annotated_types import Ge, Gt, Interval

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
ErrorRate = Annotated[float, Interval(ge=0, lt=0.5)]
"""Of choices that are taken for flipped: from a half on they would teach the reverse."""
