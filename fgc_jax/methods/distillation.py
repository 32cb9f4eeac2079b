"""Knowledge distillation: a trained run as the teacher of another one (arXiv 1503.02531)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fgc_jax import models
from fgc_jax.methods.method import AT, Facts
from fgc_jax.runs import results


def load_teacher(workdir: str, facts: Facts) -> tuple[Callable[[Any, jax.Array], jax.Array], Any]:
    """(the function (weights, images) -> logits f32 [B, K], weights) of a finished run's best
    checkpoint, in evaluation mode.

    Images are f32 [B, H, W, 3], normalised for the student.

    Raises:
        ValueError: there is no finished run, its classes differ, or its network does not accept
            images of the student's size.
    """
    at = f"{AT}teacher={workdir!r}"
    try:
        if results.finished(Path(workdir)) is None:
            raise ValueError("there is no finished run")
        run = facts.load_run(workdir)
    except ValueError as error:
        raise ValueError(f"{at}: {error}") from None
    _check_classes(run.class_names, facts.class_names, at)
    network = run.plan.network
    rescale = facts.preprocess.rescale(network.preprocess)

    def teach(weights, images):
        if rescale is not None:
            factor, shift = (jnp.float32(v).reshape(1, 1, 1, 3) for v in rescale)
            images = images * factor + shift
        return models.infer(network.graphdef, weights["params"], weights["stats"], images)[0]

    return teach, {"params": run.params, "stats": run.stats}


def _check_classes(theirs: tuple[str, ...], ours: tuple[str, ...], at: str) -> None:
    if len(theirs) != len(ours):
        raise ValueError(f"{at}: it has {len(theirs)} classes, the data have {len(ours)}")
    for number, (there, here) in enumerate(zip(theirs, ours, strict=True)):
        if there != here:
            raise ValueError(
                f"{at}: its classes are not those of the data; the first difference is class "
                f"{number}, {there!r} there and {here!r} in the data"
            )
