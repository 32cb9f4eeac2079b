"""What a training is judged by; a method says what it learns."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax


class Evaluate(Protocol):
    """`evaluate(split_name, params, stats)`: the metrics of a split, by name, and the positions of
    its images that could not be read."""

    def __call__(self, split_name: str, params: Any, stats: Any) -> tuple[Any, Any]: ...


@dataclasses.dataclass(frozen=True)
class Task:
    """What the loop needs to know of the answers that a network learns to give.

    report: traced in the train step, (a loss's outputs, batch) -> scalars to log beside the loss.
    evaluator: of a phase's inputs, its `Evaluate` for validation. monitors: the metrics that choose
    a checkpoint, and whether "lower" or "higher" is better. headline: the metric that stands for an
    epoch in results. line: an epoch's metrics for people. test: (session, phase, step) of the
    chosen checkpoint -> what results.json says of it, and of the logits that validation chose; it
    writes the evaluation's files.
    """

    report: Callable[[Mapping[str, jax.Array], Mapping[str, jax.Array]], dict[str, jax.Array]]
    evaluator: Callable[[Any], Evaluate]
    monitors: Mapping[str, str]
    headline: str
    line: Callable[[Any], str]
    test: Callable[..., Any]
