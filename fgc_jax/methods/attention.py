"""WS-DAN and CAL: training with crops and erasures chosen by attention maps.

Papers: See Better Before Looking Closer: Weakly Supervised Data Augmentation Network (WS-DAN,
arXiv 1901.09891); Counterfactual Attention Learning (CAL, arXiv 2108.08728). Numbers follow CAL's
published code; WS-DAN is its part without effect logits. That code sends crops and erasures through
the network as one batch. Older WS-DAN code sends them one after the other, so that batch norm
normalises them separately.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import NotNegative, Share, above, at_most, interval
from fgc_jax.methods import jigsaw, losses
from fgc_jax.methods.method import AT, Facts, Method, Report
from fgc_jax.models import regions

FAKE_ATTENTION = 2.0  # counterfactual attention is uniform below it


def make(
    effect: bool,
    facts: Facts,
    *,
    raw_weight: NotNegative = 1 / 3,
    crop_weight: NotNegative = 2 / 3,
    effect_weight: NotNegative = 1.0,
    centre_weight: NotNegative = 1.0,
    centre_rate: Annotated[float, above(0), at_most(1)] = 0.05,
    normalise_centres: bool = True,
    crop_threshold: interval(0, 1) = (0.4, 0.6),
    crop_padding: Share = 0.1,
    drop_threshold: interval(0, 1) = (0.2, 0.5),
) -> Method:
    """Cross-entropy of the images and of their crops and erasures, and the centre loss. With
    `effect` (CAL) also the cross-entropy of their effect logits: the logits minus those of the same
    features and classifier with random attention.

    For each image two attention maps are drawn (see `regions.pick`). Where the first is above a
    share of its maximum, uniform in crop_threshold, the image is cropped with crop_padding of the
    image around it and resized. Where the second is above a share in drop_threshold, the image gets
    the mean colour. The centre loss pulls the embedding of an image to the centre of its class. The
    centre follows the embeddings at centre_rate; for the comparison it is scaled to length 1
    (without normalise_centres it is not, which costs more than one point of accuracy). The state is
    the centres f32 [K, M C].

    Raises:
        ValueError: weights that leave nothing to learn, or one without effect.
    """
    if not (raw_weight or crop_weight or (effect and effect_weight)):
        raise ValueError(f"{AT}raw_weight and crop_weight are 0: nothing would be learnt")
    if not effect and effect_weight != 1:
        raise ValueError(f"{AT}effect_weight={effect_weight} has no effect: 'wsdan' has none")

    def loss(model, batch, key, state, constants):
        keys = jax.random.split(key, 7)
        labels, mask = batch["label"], batch["mask"]
        twice = {"label": jnp.repeat(labels, 2), "mask": jnp.repeat(mask, 2)}
        logits, out = model(batch["image"], rngs=nnx.Rngs(dropout=keys[0]))
        changed = changed_images(
            batch["image"],
            out["head/attention"],
            keys[1:4],
            crop_threshold=crop_threshold,
            crop_padding=crop_padding,
            drop_threshold=drop_threshold,
        )
        changed_logits, changed_out = model(changed, rngs=nnx.Rngs(dropout=keys[4]))
        parts = {
            "raw_loss": (raw_weight, losses.of_labels(logits, batch)),
            "crop_loss": (crop_weight, losses.of_labels(changed_logits, twice)),
        }
        if effect:
            value = losses.of_labels(effect_logits(model, out, keys[5]), batch)
            of_changed = losses.of_labels(effect_logits(model, changed_out, keys[6]), twice)
            value = (value + 2 * of_changed) / 3
            parts["effect_loss"] = effect_weight, value
        distances, centres = to_centres(
            out["head/embedding"],
            labels,
            mask,
            state["centres"],
            rate=centre_rate,
            normalise=normalise_centres,
        )
        parts["centre_loss"] = centre_weight, losses.masked_mean(distances, mask)
        scalars = {name: value for name, (_, value) in parts.items()}
        total = sum(weight * value for weight, value in parts.values())
        return total, Report({"logits": logits}, scalars, {"centres": centres})

    (features,) = facts.shapes[0]["head/embedding"]
    centres = jnp.zeros((facts.num_classes, features), jnp.float32)
    return Method((loss,), {"centres": centres})


def changed_images(images, attention, keys, *, crop_threshold, crop_padding, drop_threshold):
    """[2 B, H, W, 3]: for each image of [B, H, W, 3] its crop, then its erasure, from attention
    maps [B, h, w, M] and three keys (choice of the maps, thresholds of both)."""
    for_crop, for_drop = regions.pick(attention, keys[0], 2)
    shares = [
        jax.random.uniform(key, (len(images),), minval=least, maxval=most)
        for key, (least, most) in zip(keys[1:], (crop_threshold, drop_threshold), strict=True)
    ]
    found = regions.boxes(for_crop, shares[0], crop_padding, images.shape[1:3])
    crops, erasures = regions.crop(images, found), regions.drop(images, for_drop, shares[1])
    return jigsaw.alternate(crops, erasures)


def effect_logits(model, out, key):
    """The logits f32 [B, K] minus those of the same features with attention from U(0, 2)."""
    fake = jax.random.uniform(key, out["head/attention"].shape, maxval=FAKE_ATTENTION)
    (name,) = model.feature_maps[0]
    return model.head.effect(out["head/embedding"], fake, out[name])


def to_centres(embeddings, labels, mask, centres, *, rate, normalise):
    """(squared distances f32 [B] of embeddings [B, D] to the centres of their classes, the centres
    f32 [K, D] after the batch).

    Images that share a class move its centre by their mean difference, so their order does not
    matter; those with mask 0 move none. No gradient reaches the centres.
    """
    own = jax.lax.stop_gradient(centres[labels])
    targets = own
    if normalise:
        targets = own / jnp.maximum(jnp.linalg.norm(own, axis=-1, keepdims=True), 1e-12)
    distances = jnp.square(embeddings - targets).sum(-1)
    shares = (labels[:, None] == labels[None, :]) * mask[None, :]
    counts = shares.sum(-1, keepdims=True)
    stopped = jax.lax.stop_gradient(embeddings)
    means = jnp.matmul(shares, stopped, precision="highest") / jnp.maximum(counts, 1)
    moved = jnp.where(counts > 0, own + rate * (means - targets), own)
    # Rows of one class are equal except for rounding, which depends on their place in the product:
    # the first is used.
    first = jnp.argmax(labels[:, None] == labels[None, :], axis=1) == jnp.arange(len(labels))
    rows = jnp.where(first, labels, len(centres))  # out of range for the others: dropped
    return distances, centres.at[rows].set(moved, mode="drop")
