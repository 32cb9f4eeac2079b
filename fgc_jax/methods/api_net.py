"""API-Net: each image is compared with the most similar images of the batch."""

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import NotNegative, Share
from fgc_jax.methods import losses
from fgc_jax.methods.method import Facts, Method, Report


def make(facts: Facts, *, margin: Share = 0.05, ranking_weight: NotNegative = 1.0) -> Method:
    """Cross-entropy of both images of each pair, through their own gate and through the gate of the
    other image, plus ranking_weight times a hinge loss: through its own gate the probability of the
    true class should be higher by `margin`.

    Pairs are those of `nearest`, over the whole batch, which must contain several images of each
    class. At test time the head `api_net` classifies only the pooled vector.

    Paper: Learning Attentive Pairwise Interaction for Fine-Grained Classification
    (arXiv 2002.10191).
    """

    def loss(model, batch, key, state, constants):
        rngs = nnx.Rngs(dropout=key)
        logits, out = model(batch["image"], rngs=rngs)
        pooled, labels, mask = out["head/pooled"], batch["label"], batch["mask"]
        same, other, has_same, has_other = nearest(pooled, labels, mask)
        first = jnp.concatenate([pooled, pooled])
        # Products, because the gradient of indexing adds up rows in any order on GPUs.
        chosen = jax.nn.one_hot(jnp.concatenate([same, other]), len(pooled))
        second = jnp.matmul(chosen, pooled, precision="highest")
        scores = model.head.compare(first, second, rngs=rngs)
        labels = jnp.concatenate([labels, labels, labels[same], labels[other]])
        counted = jnp.concatenate([has_same, has_other] * 2).astype(jnp.float32)
        class_loss, ranking_loss = pair_losses(scores, labels, counted, margin)
        value = class_loss + ranking_weight * ranking_loss
        scalars = {"class_loss": class_loss, "ranking_loss": ranking_loss}
        return value, Report({"logits": logits}, scalars)

    return Method((loss,))


def nearest(features: jax.Array, labels: jax.Array, mask: jax.Array) -> tuple[jax.Array, ...]:
    """For each image: the nearest other image of the same class and the nearest image of another
    class, both int [B], and whether there is one, both bool [B]; by the Euclidean distance of
    features [B, C].

    labels: int [B]. mask: f32 [B]; images with 0 are in no pair. If there is no such image, the
    index has no meaning.
    """
    squares = jnp.square(features).sum(-1)
    products = jnp.matmul(features, features.T, precision=jax.lax.Precision.HIGHEST)
    distances = squares[:, None] + squares[None, :] - 2 * products
    there = (mask[:, None] > 0) & (mask[None, :] > 0)
    equal = labels[:, None] == labels[None, :]
    relatives = there & equal & ~jnp.eye(len(labels), dtype=bool), there & ~equal
    indices = [jnp.argmin(jnp.where(pairs, distances, jnp.inf), axis=-1) for pairs in relatives]
    return *indices, *(pairs.any(-1) for pairs in relatives)


def pair_losses(
    scores: jax.Array, labels: jax.Array, counted: jax.Array, margin: float
) -> tuple[jax.Array, jax.Array]:
    """(mean cross-entropy, mean hinge loss of the true class's probabilities) of the scores of
    `compare`, f32 [2, N, K], with labels int [N], over the images whose counted f32 [N] is 1."""
    goal = jax.nn.one_hot(labels, scores.shape[-1])
    entropies = losses.cross_entropy(scores, goal[None]).mean(0)
    own, other = (jax.nn.softmax(scores) * goal[None]).sum(-1)
    hinges = jnp.maximum(other - own + margin, 0.0)
    return losses.masked_mean(entropies, counted), losses.masked_mean(hinges, counted)
