"""Plain fine-tuning: cross-entropy of the classifier's logits."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx


def make(*, label_smoothing: float = 0.0):
    """Cross-entropy, optionally with smoothed targets (Szegedy et al., arXiv:1512.00567 §7).

    Raises:
        ValueError: label_smoothing outside [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing} must lie in [0, 1)")

    def loss(model, batch, key):
        logits, _ = model(batch["image"], rngs=nnx.Rngs(dropout=key))
        losses = cross_entropy(logits, batch["label"], label_smoothing)
        if "label_b" in batch:  # two images in one, or parts of them
            second = cross_entropy(logits, batch["label_b"], label_smoothing)
            losses = batch["weight"] * losses + (1 - batch["weight"]) * second
        return masked_mean(losses, batch["mask"]), {"logits": logits}

    return loss


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy per image in nats: logits f32 [B, K], labels int32 [B] -> f32 [B]."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of values [B] where mask [B] is 1; 0 when the mask is all 0."""
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)
