"""The head of Cross-X learning: excitations of two stages, and a third, merged level.

Paper: Cross-X Learning for Fine-Grained Visual Categorization (arXiv 1909.04412). Details that the
paper does not state follow the authors' code, with one exception: their excitation acts on the
residual branch of the last block, here it acts on the output of that block.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgc_jax.config.limits import Count, at_least
from fgc_jax.models import layers
from fgc_jax.models.heads import basic

POOLS = {"avg": jnp.mean, "max": jnp.max}


class Excitation(nnx.Module):
    """x [B, h, w, C] times gates in 0..1 of its channels, from the mean over the positions.

    One excitation of the "one-squeeze multi-excitation" module of Multi-Attention Multi-Class
    Constraint (arXiv 1806.05372).
    """

    def __init__(self, channels, reduction, *, rngs):
        squeezed = max(channels // reduction, 1)
        self.fc1 = layers.Linear(channels, squeezed, rngs=rngs)
        self.fc2 = layers.Linear(squeezed, channels, rngs=rngs)

    def __call__(self, x):
        gates = jax.nn.sigmoid(self.fc2(jax.nn.relu(self.fc1(x.mean((1, 2))))))
        return x * gates[:, None, None, :]


class CrossX(nnx.Module):
    """Logits of three levels, a lower map, a higher map and a merged map, each with `parts`
    excitations.

    Part p of the merged map: the higher part goes through a 1x1 convolution to the lower map's
    channels and is enlarged to its grid (nearest); the lower part is added; the sum goes through a
    3x3 convolution and batch norm, without ReLU. The parts of a level are pooled over the positions
    (`low_pool`, "max" or "avg", for the lower level, means for the others) and concatenated for its
    linear layer. The head's logits are the sum over the levels. Named arrays: logits "low", "high"
    and "merged", f32 [B, K], and "low_parts", "high_parts" and "merged_parts", f32 [B, parts, C].
    reduction: number of channels divided by the hidden units of an excitation.
    """

    order = basic.FINE_TO_COARSE

    def __init__(
        self,
        channels,
        num_classes,
        *,
        parts: Annotated[int, at_least(2)] = 2,
        reduction: Count = 256,
        low_pool: Literal[*POOLS] = "max",
        rngs,
    ):
        if len(channels) != 2:
            raise ValueError(
                f"head 'cross_x' takes two maps of one backbone, such as "
                f"'stage3+features', not {len(channels)}"
            )
        self.low_pool = low_pool
        low, high = channels

        def each(make, *arguments, **options):
            return layers.Blocks(make(*arguments, **options, rngs=rngs) for _ in range(parts))

        self.excite_low = each(Excitation, low, reduction)
        self.excite_high = each(Excitation, high, reduction)
        self.reduce = each(layers.Conv, high, low, 1)
        self.merge = each(layers.Conv, low, low, 3)
        self.norm = each(layers.BatchNorm, low)
        self.fc_low = layers.Linear(parts * low, num_classes, rngs=rngs)
        self.fc_high = layers.Linear(parts * high, num_classes, rngs=rngs)
        self.fc_merged = layers.Linear(parts * low, num_classes, rngs=rngs)

    def __call__(self, maps, *, rngs=None):
        low, high = (x.astype(jnp.float32) for x in maps)
        lows = [excite(low) for excite in self.excite_low]
        highs = [excite(high) for excite in self.excite_high]
        merged = []
        for index, (fine, coarse) in enumerate(zip(lows, highs, strict=True)):
            coarse = _enlarge(self.reduce[index](coarse), fine.shape[1:3])
            merged.append(self.norm[index](self.merge[index](fine + coarse)))
        pooled = {
            "low": _pool(lows, POOLS[self.low_pool]),
            "high": _pool(highs, jnp.mean),
            "merged": _pool(merged, jnp.mean),
        }
        classify = {"low": self.fc_low, "high": self.fc_high, "merged": self.fc_merged}
        named = {name: classify[name](x.reshape(len(x), -1)) for name, x in pooled.items()}
        logits = named["low"] + named["high"] + named["merged"]
        return logits, named | {f"{name}_parts": x for name, x in pooled.items()}


def _pool(parts, pool):
    """Maps [B, h, w, C], one for each part, as vectors [B, parts, C]."""
    return jnp.stack([pool(x, axis=(1, 2)) for x in parts], axis=1)


def _enlarge(x, grid):
    """x [B, h, w, C] on another grid: the nearest entry above and to the left, as in PyTorch."""
    # Products, because the gradient of indexing adds up entries in any order on GPUs.
    rows, columns = (
        np.eye(length, dtype=np.float32)[np.arange(size) * length // size]
        for size, length in zip(grid, x.shape[1:3], strict=True)
    )
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x, precision="highest")
