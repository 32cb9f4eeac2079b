"""Progressive multi-granularity training (PMG): from shuffled small tiles to the whole image.

Paper: Fine-Grained Visual Classification via Progressive Multi-Granularity Training of Jigsaw
Patches (arXiv 2003.03836).
"""

from typing import Annotated

import jax
from flax import nnx

from fgc_jax.config.limits import Positive, at_least
from fgc_jax.methods import jigsaw, losses
from fgc_jax.methods.method import AT, Facts, Method, Report


def make(
    facts: Facts,
    *,
    tiles: tuple[Annotated[int, at_least(2)], ...] = (8, 4, 2),
    concat_weight: Positive = 2.0,
) -> Method:
    """An optimiser step for each level of the head "pmg" and one for all levels together.

    The loss of step i is the cross-entropy of level i on images whose tiles[i] x tiles[i] tiles are
    shuffled, in one order for the batch. The loss of the last step is concat_weight times the
    cross-entropy of the concatenated levels on the original images. All steps use the same batch.

    Raises:
        ValueError: not one number of tiles for each level of the head, or a number of tiles larger
            than the images of a phase.
    """
    for index, shapes in enumerate(facts.shapes):
        if sum(name.startswith("head/level") for name in shapes) != len(tiles):
            raise ValueError(
                f"{AT}tiles={tiles!r} must have one number for each level of the "
                "head, that is for each map of config.model.feature_map"
            )
        if max(tiles) > min(shapes["image"][:2]):
            raise ValueError(
                f"{AT}tiles={tiles!r}: the images of config.phases[{index}] have "
                f"only {min(shapes['image'][:2])} pixels per side"
            )

    def level(name, n):
        def loss(model, batch, key, state, constants):
            order_key, key = jax.random.split(key)
            images = jigsaw.shuffle(order_key, batch["image"], n)
            _, out = model(images, rngs=nnx.Rngs(dropout=key))
            value = losses.of_labels(out[f"head/{name}"], batch)
            return value, Report({"logits": out[f"head/{name}"]}, {f"{name}_loss": value})

        return loss

    def whole(model, batch, key, state, constants):
        _, out = model(batch["image"], rngs=nnx.Rngs(dropout=key))
        logits = out["head/concat"]
        value = losses.of_labels(logits, batch)
        return concat_weight * value, Report({"logits": logits}, {"concat_loss": value})

    steps = [level(f"level{index}", n) for index, n in enumerate(tiles, start=1)]
    return Method((*steps, whole))
