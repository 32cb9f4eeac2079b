"""Pairwise confusion: a penalty on very different predictions for images of different classes."""

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Positive, Rate
from fgc_jax.methods import losses
from fgc_jax.methods.method import Facts, Method, Report


def make(facts: Facts, *, confusion_weight: Positive = 10.0, label_smoothing: Rate = 0.0) -> Method:
    """Cross-entropy of the labels and confusion_weight times `confusion` of the batch.

    Paper: Pairwise Confusion for Fine-Grained Visual Classification (arXiv 1705.08016), which
    squares the Euclidean distance, as here. The authors' code does not square it and multiplies it
    by 0.1 to 0.2 times the number of classes, so its weights cannot be used here; the default is
    ours.
    """

    def loss(model, batch, key, state, constants):
        logits, _ = model(batch["image"], rngs=nnx.Rngs(dropout=key))
        label_loss = losses.of_labels(logits, batch, label_smoothing)
        confused = confusion(jax.nn.softmax(logits), batch["label"], batch["mask"])
        value = label_loss + confusion_weight * confused
        scalars = {"label_loss": label_loss, "confusion": confused}
        return value, Report({"logits": logits}, scalars)

    return Method((loss,))


def confusion(probabilities: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Euclidean confusion, a scalar: |p - q|^2 of the pairs of images with different labels, summed
    and divided by the number of images.

    Image i of a batch is paired with image i + B / 2. probabilities: f32 [B, K]; labels: int [B]; a
    pair with an image whose mask f32 [B] is 0 does not count.
    """

    def partner(x):
        return jnp.roll(x, len(x) // 2, axis=0)

    distances = jnp.square(probabilities - partner(probabilities)).sum(-1)
    # Each pair occurs twice, once for each of its images.
    return losses.masked_mean((labels != partner(labels)) * distances, mask * partner(mask)) / 2
