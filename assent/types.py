"""Types of settings with limits: `config` rejects values outside, naming the field."""

from typing import Annotated

from annotated_types import Ge, Gt, Interval

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
ErrorRate = Annotated[float, Interval(ge=0, lt=0.5)]
"""Share of flipped choices: above 1/2 the labels would be anti-correlated with the true choices."""
