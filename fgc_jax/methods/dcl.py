"""Destruction and construction learning (DCL): images and copies of them with moved tiles.

Paper: Destruction and Construction Learning for Fine-Grained Image Recognition (CVPR 2019).
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Count, NotNegative, at_least
from fgc_jax.methods import jigsaw, losses
from fgc_jax.methods.method import AT, Facts, Method, Report


def make(
    facts: Facts,
    *,
    tiles: Annotated[int, at_least(2)] = 7,
    reach: Count = 2,
    swap_weight: NotNegative = 1.0,
    location_weight: NotNegative = 1.0,
) -> Method:
    """The head "dcl" with images and copies of them in one forward pass. In the copies each of the
    `tiles` x `tiles` tiles moved fewer than 2 * `reach` places.

    The loss is the mean over both of: the cross-entropy of the class; swap_weight times that of
    original (1) against copy (0); and location_weight times |location - target|, averaged over the
    places, where the target is jigsaw.locations of the tile at that place. The authors' code finds
    the tile by its brightness; here it is known. Their code removes 10 pixels at each border first
    and resizes; here every pixel is kept.

    Raises:
        ValueError: a reach of all tiles, or a location map that is not tiles x tiles.
    """
    if reach >= tiles:
        raise ValueError(f"{AT}reach={reach} must be below tiles={tiles}")
    for index, shapes in enumerate(facts.shapes):
        places = shapes["head/location"]
        if places != (tiles, tiles):
            fitting = f" or tiles={min(places)}" if min(places) > 1 else ""
            raise ValueError(
                f"{AT}tiles={tiles}: in config.phases[{index}] the head has a location map of "
                f"{places[0]}x{places[1]}, one place for 2x2 positions of the feature map: choose "
                f"another crop{fitting}"
            )

    def loss(model, batch, key, state, constants):
        order_key, key = jax.random.split(key)
        images = batch["image"]
        order = jigsaw.confusion(order_key, len(images), tiles, reach)
        both = jigsaw.alternate(images, jigsaw.permute(images, order, tiles))
        logits, out = model(both, rngs=nnx.Rngs(dropout=key))
        mask = jnp.repeat(batch["mask"], 2)
        goal = jnp.repeat(losses.targets(batch, logits.shape[-1]), 2, axis=0)
        class_loss = losses.masked_mean(losses.cross_entropy(logits, goal), mask)
        whole = jnp.tile(jnp.array([1, 0]), len(images))
        swap = losses.cross_entropy(out["head/swap"], jax.nn.one_hot(whole, 2))
        swap_loss = losses.masked_mean(swap, mask)
        places = out["head/location"]
        unmoved = jnp.broadcast_to(jnp.arange(tiles**2, dtype=order.dtype), order.shape)
        wanted = jigsaw.locations(jigsaw.alternate(unmoved, order))
        gaps = jnp.abs(places.reshape(wanted.shape) - wanted).mean(-1)
        location_loss = losses.masked_mean(gaps, mask)
        value = class_loss + swap_weight * swap_loss + location_weight * location_loss
        scalars = {"class_loss": class_loss, "swap_loss": swap_loss, "location_loss": location_loss}
        return value, Report({"logits": logits[::2]}, scalars)

    return Method((loss,))
