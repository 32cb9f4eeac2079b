"""Losses as pure functions: one value for each image, and means of these values.

Targets are f32 [B, K] with rows that sum to 1, so smoothed labels and mixed images need no special
case. All values are f32 and in nats.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

# The lower limit of 1 - p: its power has no finite gradient at 0.
LEAST_GAP = 1e-7


def targets(batch: Mapping[str, jax.Array], num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """The target probabilities, f32 [B, K], for int32 `label` [B].

    Mixed images have a second label, `label_b`; `weight` f32 [B] is the share of the first.
    Smoothing (Rethinking the Inception Architecture, arXiv 1512.00567 §7) spreads this share evenly
    over all classes.
    """
    goal = jax.nn.one_hot(batch["label"], num_classes)
    if "label_b" in batch:
        share = batch["weight"][:, None]
        goal = share * goal + (1 - share) * jax.nn.one_hot(batch["label_b"], num_classes)
    return optax.smooth_labels(goal, smoothing)


def cross_entropy(
    logits: jax.Array, goal: jax.Array, class_weights: jax.Array | None = None
) -> jax.Array:
    """Cross-entropy [B] of logits [B, K] and targets [B, K]; the terms of the sum over the classes
    are multiplied by class_weights [K]."""
    return _summed(-goal * jax.nn.log_softmax(logits), class_weights)


def focal(
    logits: jax.Array, goal: jax.Array, gamma: float, class_weights: jax.Array | None = None
) -> jax.Array:
    """Focal loss [B] over a softmax: cross-entropy whose terms are multiplied by (1 - p)^gamma, so
    that images with a confident correct prediction count less.

    Paper: Focal Loss for Dense Object Detection (arXiv 1708.02002), whose two classes become K.
    """
    log_p = jax.nn.log_softmax(logits)
    gap = jnp.maximum(-jnp.expm1(log_p), LEAST_GAP)
    return _summed(-goal * gap**gamma * log_p, class_weights)


def binary_cross_entropy(logits: jax.Array, goal: jax.Array) -> jax.Array:
    """[B]: the mean over the classes of the binary cross-entropy of logits and targets [B, K].

    Paper: ResNet strikes back (arXiv 2110.00476).
    """
    return optax.sigmoid_binary_cross_entropy(logits, goal).mean(axis=-1)


def distillation(logits: jax.Array, teacher_logits: jax.Array, temperature: float) -> jax.Array:
    """[B]: T^2 times the Kullback-Leibler divergence of the student's probabilities from the
    teacher's, with logits [B, K] divided by the temperature T. No gradient reaches the teacher.

    T^2 keeps the gradient's size the same for all T. Paper: Distilling the Knowledge in a Neural
    Network (arXiv 1503.02531).
    """
    wanted = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits) / temperature)
    given = jax.nn.log_softmax(logits / temperature)
    return temperature**2 * jnp.sum(jnp.exp(wanted) * (wanted - given), axis=-1)


def balanced_weights(class_counts: Sequence[int]) -> np.ndarray:
    """f32 [K], N / (K n_c): all classes have the same total weight, and the mean weight of an image
    is 1. All counts must be above 0."""
    counts = np.asarray(class_counts, np.float64)
    return np.float32(counts.sum() / (len(counts) * counts))


def of_labels(
    logits: jax.Array, batch: Mapping[str, jax.Array], smoothing: float = 0.0
) -> jax.Array:
    """Mean cross-entropy, a scalar, of logits [B, K] for the labels and the mask of a batch."""
    goal = targets(batch, logits.shape[-1], smoothing)
    return masked_mean(cross_entropy(logits, goal), batch["mask"])


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of values [B] where mask [B] is 1; the mask may be any weights >= 0. 0 if all are 0."""
    return normalised_sum(values * mask, mask)


def normalised_sum(values: jax.Array, weights: jax.Array) -> jax.Array:
    """sum(values) / sum(weights), both [B]; 0 when all weights are 0."""
    total = jnp.sum(weights)
    return jnp.sum(values) / jnp.where(total > 0, total, 1.0)


def _summed(terms, class_weights):
    return jnp.sum(terms if class_weights is None else terms * class_weights[None, :], axis=-1)
