"""TransFG's loss: cross-entropy and a contrastive loss of the class tokens.

Paper: TransFG: A Transformer Architecture for Fine-grained Recognition (arXiv 2103.07976). Its
changes of the network are the options patch_stride and part_selection of vision transformers.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Rate, at_least, below
from fgc_jax.methods import losses
from fgc_jax.methods.method import Facts, Method, Report
from fgc_jax.models.heads import basic


def make(
    facts: Facts,
    *,
    margin: Annotated[float, at_least(-1), below(1)] = 0.4,
    label_smoothing: Rate = 0.0,
) -> Method:
    """Cross-entropy plus `contrast` of the class tokens, the map "pooled".

    Raises:
        ValueError: a backbone without class token.
    """
    if not all("pooled" in shapes for shapes in facts.shapes):
        raise ValueError(
            "config.method='transfg' compares class tokens: config.model.backbone must be a "
            "transformer with the map 'pooled'"
        )

    def loss(model, batch, key, state, constants):
        logits, out = model(batch["image"], rngs=nnx.Rngs(dropout=key))
        label_loss = losses.of_labels(logits, batch, label_smoothing)
        tokens = out["pooled"][:, 0, 0]
        contrastive = contrast(tokens, batch["label"], batch["mask"], margin)
        value = label_loss + contrastive
        scalars = {"label_loss": label_loss, "contrastive_loss": contrastive}
        return value, Report({"logits": logits}, scalars)

    return Method((loss,))


def contrast(vectors: jax.Array, labels: jax.Array, mask: jax.Array, margin: float) -> jax.Array:
    """Mean over all ordered pairs of the B vectors [B, C] of 1 - cos for two of the same class
    (labels int32 [B]) and of max(0, cos - margin) for two of different classes.

    The pair of a vector with itself counts as 0, also for a vector of zeros; vectors whose mask f32
    [B] is 0 are in no pair. The paper divides by B squared, its code by B.
    """
    units = basic.l2_normalise(vectors.astype(jnp.float32))
    cosines = jnp.einsum("ic,jc->ij", units, units)
    same = labels[:, None] == labels[None, :]
    others = 1 - jnp.eye(len(labels))
    terms = others * jnp.where(same, 1 - cosines, jnp.maximum(cosines - margin, 0))
    pairs = mask[:, None] * mask[None, :]
    return losses.normalised_sum(terms * pairs, pairs)
