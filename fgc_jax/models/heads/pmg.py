"""The head of progressive multi-granularity training (PMG).

Paper: Fine-Grained Visual Classification via Progressive Multi-Granularity Training of Jigsaw
Patches (arXiv 2003.03836).
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Count
from fgc_jax.models import layers
from fgc_jax.models.heads import basic


def _block(channels, hidden, width, rngs):
    # The authors' momentum: four kinds of images update these statistics in alternation.
    norm = functools.partial(layers.BatchNorm, momentum=0.99, rngs=rngs)
    first = [layers.Conv(channels, hidden, 1, rngs=rngs), norm(hidden), jax.nn.relu]
    second = [layers.Conv(hidden, width, 3, rngs=rngs), norm(width), jax.nn.relu]
    return layers.Chain([*first, *second])


def _classifier(features, hidden, num_classes, rngs):
    return layers.Chain(
        [
            layers.BatchNorm(features, rngs=rngs),
            layers.Linear(features, hidden, rngs=rngs),
            layers.BatchNorm(hidden, rngs=rngs),
            jax.nn.elu,
            layers.Linear(hidden, num_classes, rngs=rngs),
        ]
    )


class Pmg(nnx.Module):
    """One classifier for each feature map (level), from fine to coarse, and one for all of them.

    The map of a level goes through a 1x1 convolution to `hidden` channels and a 3x3 convolution to
    `width` channels, each with batch norm and ReLU. Its maximum over the positions goes through
    batch norm, a linear layer, batch norm, ELU and a linear layer. The last classifier reads the
    concatenated maxima of all levels. Named arrays: "level1", "level2", ..., "concat" and their
    "sum", logits f32 [B, K] each. test: "concat" or "sum", the logits that the head returns; it
    does not change training with the method "pmg".
    """

    order = basic.FINE_TO_COARSE

    def __init__(
        self,
        channels,
        num_classes,
        *,
        hidden: Count = 512,
        width: Count = 1024,
        test: Literal["concat", "sum"] = "concat",
        rngs,
    ):
        self.test = test
        self.blocks = layers.Blocks(_block(c, hidden, width, rngs) for c in channels)
        self.classifiers = layers.Blocks(
            _classifier(width, hidden, num_classes, rngs) for _ in channels
        )
        self.concat = _classifier(width * len(channels), hidden, num_classes, rngs)

    def __call__(self, maps, *, rngs=None):
        maxima = [layers.spatial_max(block(x)) for block, x in zip(self.blocks, maps, strict=True)]
        levels = [fc(x) for fc, x in zip(self.classifiers, maxima, strict=True)]
        concat = self.concat(jnp.concatenate(maxima, axis=-1))
        named = {f"level{index}": logits for index, logits in enumerate(levels, start=1)}
        named |= {"concat": concat, "sum": sum(levels, start=concat)}
        return named[self.test], named
