"""Training methods: one loss function each, all trained by the same loop."""

from collections.abc import Callable
from typing import Any, Protocol

import jax

from fgc_jax.methods import plain


class Loss(Protocol):
    """What a method is.

    `model` is the live module inside the trace: `logits, out = model(images, rngs=...)`. A batch
    holds `image` f32 [B, H, W, 3] (augmented and normalised), `label` int32 [B] and `mask`
    f32 [B] (0 for images that could not be read); mixed images come with `label_b` int32 [B] and
    `weight` f32 [B] in 0..1, which is the share of `label`. Returns the scalar loss, and
    `{"logits": f32 [B, K]}` plus any scalars to log.
    """

    def __call__(
        self, model: Any, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]: ...


METHODS: dict[str, Callable[..., Loss]] = {"plain": plain.make}


def build(name: str, options: dict[str, Any]) -> Loss:
    """The method's loss function. Raises ValueError on an option that it does not have."""
    make = METHODS[name]
    allowed = make.__kwdefaults__ or {}
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(
            f"config.method_options: {name!r} has no {unknown}; it has {sorted(allowed)}"
        )
    return make(**options)
