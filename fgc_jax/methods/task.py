"""The definition of a task: how the results of a training are measured."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

# (name of a split, params, stats) -> (its metrics by name, the positions of its unreadable images)
Evaluate = Callable[[str, Any, Any], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Task:
    """The functions with which the loop measures a network.

    report: (outputs of a loss, batch) -> scalars to log with the loss; traced in the train step.
    evaluator: inputs of a phase -> its `Evaluate` for validation. monitors: the metrics that can
    select a checkpoint, and whether "lower" or "higher" is better. line: metrics of an
    epoch -> texts. test: (session, phase, step of the selected checkpoint) -> its evaluation and
    its logits for results.json; it also writes the files of the evaluation.
    """

    report: Callable[[Mapping[str, jax.Array], Mapping[str, jax.Array]], dict[str, jax.Array]]
    evaluator: Callable[[Any], Evaluate]
    monitors: Mapping[str, str]
    line: Callable[[Any], tuple[str, ...]]
    test: Callable[..., Any]
