"""Training methods: their losses. The same loop trains all of them."""

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
from fgc_jax.methods.method import AT, Facts, Loss, Method, Report
from fgc_jax.methods.task import Task

__all__ = ("METHODS", "Entry", "Facts", "Loss", "Method", "Report", "Task", "build")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method and its requirements for the rest of the config.

    heads: the keys of HEADS that it can be used with; () for any. alone: whether only this method
    trains all parts of these heads, so that they need it. balanced: whether its batches must
    contain several images of each class (data.sampling "N classes x M"). mixed: whether it uses the
    second label of mixed images. effect: whether it trains the effect logits of the head;
    validation then chooses between them and the plain logits.
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
        ValueError: an unknown option, or a value that is not allowed.
    """
    make = METHODS[name].make
    return make(facts, **config.options(make, options, AT))
