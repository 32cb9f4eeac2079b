"""Training methods: one loss function each, all trained by the same loop."""

from collections.abc import Callable
from typing import Any

from fgc_jax.methods import plain
from fgc_jax.methods.method import Facts, Loss, Method

__all__ = ("METHODS", "Facts", "Loss", "Method", "build")

METHODS: dict[str, Callable[..., Method]] = {"plain": plain.make}


def build(name: str, options: dict[str, Any], facts: Facts) -> Method:
    """The method `name` for a run.

    Raises:
        ValueError: an option that it does not have, or a value that it cannot use.
    """
    make = METHODS[name]
    allowed = make.__kwdefaults__ or {}
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(
            f"config.method_options: {name!r} has no {unknown}; it has {sorted(allowed)}"
        )
    return make(facts, **options)
