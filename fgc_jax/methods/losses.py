"""Losses as pure functions of logits f32 [B, K], one value for each image."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy per image in nats: logits f32 [B, K], labels int32 [B] -> f32 [B]."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of values [B] where mask [B] is 1; 0 when the mask is all 0."""
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)
