"""Training methods: the losses of each, all trained by the same loop."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from fgc_jax import config
from fgc_jax.methods import (
    api_net,
    attention,
    cross_x,
    dcl,
    pairwise_confusion,
    pim,
    plain,
    pmg,
    transfg,
)
from fgc_jax.methods.method import Facts, Loss, Method, Report
from fgc_jax.methods.task import Task

__all__ = ("METHODS", "Entry", "Facts", "Loss", "Method", "Report", "Task", "build")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method and what it needs of the rest of the config.

    heads: the keys of HEADS whose named arrays it reads; () if any head does. alone: whether parts
    of these heads learn by it alone, so that no other method goes with them. balanced: whether its
    batches must hold several images of a class (data.sampling "N classes x M"). mixed: whether
    it knows the second label of mixed images. effect: whether it trains the head's effect logits,
    so that validation images choose between them and the plain ones.
    """

    make: Callable[..., Method]
    heads: tuple[str, ...] = ()
    alone: bool = False
    balanced: bool = False
    mixed: bool = False
    effect: bool = False


METHODS: dict[str, Entry] = {
    "plain": Entry(plain.make, mixed=True),
    "wsdan": Entry(functools.partial(attention.make, False), heads=("attention_pooling",)),
    "cal": Entry(
        functools.partial(attention.make, True), heads=("attention_pooling",), effect=True
    ),
    "transfg": Entry(transfg.make, heads=("gap",)),
    "pim": Entry(pim.make, heads=("pim",), alone=True, mixed=True),
    "herbs": Entry(pim.make_herbs, heads=("herbs",), alone=True, mixed=True),
    "pairwise_confusion": Entry(pairwise_confusion.make),
    "api_net": Entry(api_net.make, heads=("api_net",), alone=True, balanced=True),
    "pmg": Entry(pmg.make, heads=("pmg",), alone=True, mixed=True),
    "dcl": Entry(dcl.make, heads=("dcl",), alone=True, mixed=True),
    "cross_x": Entry(cross_x.make, heads=("cross_x",), mixed=True),
}


def build(name: str, options: dict[str, Any], facts: Facts) -> Method:
    """The method `name` for a run.

    Raises:
        ValueError: an option that it does not have, or a value that it cannot use.
    """
    make = METHODS[name].make
    return make(facts, **config.options(make, options, "config.method_options."))
