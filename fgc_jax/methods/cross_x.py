"""Cross-X learning: excitations that are similar for all images and differ from each other.

Paper: Cross-X Learning for Fine-Grained Visual Categorization (arXiv 1909.04412).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import NotNegative
from fgc_jax.methods import losses
from fgc_jax.methods.method import Facts, Method, Report
from fgc_jax.models.heads import basic


def make(
    facts: Facts,
    *,
    gamma_high: NotNegative = 0.5,
    gamma_low: NotNegative = 0.25,
    gamma_merged: NotNegative = 0.5,
    kl_weight: NotNegative = 1.0,
) -> Method:
    """Cross-entropy of the summed logits of the head "cross_x", plus gamma times `c3s` of each
    level's parts, plus kl_weight times the mean over the images of KL(high || low) + KL(high ||
    merged), the divergences of the levels' probabilities.

    The gammas of the authors' code for ResNet-50, as (high, low, merged): CUB and NABirds 0.5,
    0.25, 0.5; Cars 1, 0.25, 1; Dogs 0.01, 0.01, 1; Aircraft 0.5, 0.1, 0.5 (a misspelt key in their
    code turns these into 0, 0, 0). As there, the gradient of a divergence reaches both sides.
    """
    gammas = {"high": gamma_high, "low": gamma_low, "merged": gamma_merged}

    def loss(model, batch, key, state, constants):
        logits, out = model(batch["image"], rngs=nnx.Rngs(dropout=key))
        mask = batch["mask"]
        class_loss = losses.of_labels(logits, batch)
        c3s_loss = sum(
            gamma * c3s(out[f"head/{name}_parts"], mask) for name, gamma in gammas.items()
        )
        high = out["head/high"]
        apart = divergence(high, out["head/low"]) + divergence(high, out["head/merged"])
        kl_loss = losses.masked_mean(apart, mask)
        value = class_loss + c3s_loss + kl_weight * kl_loss
        scalars = {"class_loss": class_loss, "c3s_loss": c3s_loss, "kl_loss": kl_loss}
        return value, Report({"logits": logits}, scalars)

    return Method((loss,))


def c3s(parts: jax.Array, mask: jax.Array) -> jax.Array:
    """Cross-category cross-semantic regulariser of parts [B, P, C] of the images of mask [B].

    S[p, q] is the mean cosine of part p of one image and part q of another, over all pairs of
    images of any class, including an image with itself. The result is the sum of 1 - S[p, p] over
    the parts plus the sum of S[p, q] over the pairs p < q. It is 0 if each part is the same in all
    images and orthogonal to the other parts.
    """
    units = basic.l2_normalise(parts)
    # The mean over all pairs of products is the product of the means.
    share = mask / jnp.maximum(mask.sum(), 1.0)
    means = jnp.einsum("b,bpc->pc", share, units)
    similar = jnp.einsum("pc,qc->pq", means, means)
    present = jnp.minimum(mask.sum(), 1.0)
    return present * len(similar) - jnp.trace(similar) + jnp.triu(similar, 1).sum()


def divergence(logits: jax.Array, others: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence [B] of the softmax of `others` [B, K] from that of `logits`."""
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
