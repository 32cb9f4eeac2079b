"""Limits for the values of an annotated type: `Annotated[float, at_least(0)]`."""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any


@dataclasses.dataclass(frozen=True)
class Limit:
    """`words` follow the type in an error message, for example "above 0" after "a number"."""

    words: str
    holds: Callable[[Any], bool]


def at_least(least: float) -> Limit:
    return Limit(f"at least {least:.10g}", lambda value: value >= least)


def at_most(most: float) -> Limit:
    return Limit(f"at most {most:.10g}", lambda value: value <= most)


def above(least: float) -> Limit:
    return Limit(f"above {least:.10g}", lambda value: value > least)


def below(most: float) -> Limit:
    return Limit(f"below {most:.10g}", lambda value: value < most)


def between(least: float, most: float) -> Limit:
    """Both limits are allowed values."""
    return Limit(f"from {least:.10g} to {most:.10g}", lambda value: least <= value <= most)


Count = Annotated[int, at_least(1)]
Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]
Share = Annotated[float, between(0, 1)]
Rate = Annotated[float, at_least(0), below(1)]  # of dropout, smoothing and the like


def interval(least: float, most: float) -> Any:
    """The type of a pair (smallest, largest), both from `least` to `most`."""
    number = Annotated[float, between(least, most) if most < math.inf else at_least(least)]
    return Annotated[tuple[number, number], Limit("in ascending order", lambda x: x[0] <= x[1])]


def lengths(*allowed: int) -> Limit:
    """The allowed numbers of entries of a tuple."""
    return Limit(f"with {' or '.join(map(str, allowed))} entries", lambda x: len(x) in allowed)
