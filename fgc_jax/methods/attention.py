"""WS-DAN and CAL: training with crops and erasures that attention maps choose.

Papers: See Better Before Looking Closer: Weakly Supervised Data Augmentation Network (WS-DAN,
arXiv 1901.09891); Counterfactual Attention Learning (CAL, arXiv 2108.08728). Numbers follow CAL's
published code, of which WS-DAN is the part without effect logits; that code sends crops and
erasures through the network as one batch, where older WS-DAN code sends them one after the other,
so that batch norm sees them apart.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.methods import losses
from fgc_jax.methods.method import Facts, Method
from fgc_jax.models import regions

FAKE_ATTENTION = 2.0  # counterfactual attention is uniform below it


def make(
    effect: bool,
    facts: Facts,
    *,
    raw_weight: float = 1 / 3,
    crop_weight: float = 2 / 3,
    centre_weight: float = 1.0,
    centre_rate: float = 0.05,
    normalise_centres: bool = True,
    crop_threshold: tuple = (0.4, 0.6),
    crop_padding: float = 0.1,
    drop_threshold: tuple = (0.2, 0.5),
) -> Method:
    """Cross-entropy of the images, of their crops and erasures, and the centre loss; CAL adds, with
    `effect` and weight 1, that of the effect logits of all of them: the logits less those that
    random attention makes of the same features, through the same classifier.

    For each image two attention maps are drawn (see `regions.pick`). The first one's region above
    a share of its maximum, uniform in crop_threshold, is cropped with crop_padding of the image
    around it and resized; what the second one covers above a share in drop_threshold becomes the
    mean colour. The centre loss draws an image's embedding to its class's centre, which follows the
    embeddings at centre_rate and is compared at length 1 (without normalise_centres as it is, which
    is known to cost more than a point). The state is the centres f32 [K, M C].

    Raises:
        ValueError: a value out of its range.
    """
    for name, weight in (
        ("raw_weight", raw_weight),
        ("crop_weight", crop_weight),
        ("centre_weight", centre_weight),
    ):
        if not weight >= 0:
            raise ValueError(_at(f"{name}={weight} must be at least 0"))
    for name, share in (("centre_rate", centre_rate), ("crop_padding", crop_padding)):
        if not 0 < share <= 1:
            raise ValueError(_at(f"{name}={share} must lie in (0, 1]"))
    for name, pair in (("crop_threshold", crop_threshold), ("drop_threshold", drop_threshold)):
        if len(pair) != 2 or not 0 <= pair[0] <= pair[1] <= 1:
            raise ValueError(_at(f"{name}={pair!r} must be (least, most) within [0, 1]"))

    def loss(model, batch, key, state):
        keys = jax.random.split(key, 7)
        labels, mask = batch["label"], batch["mask"]
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
            "raw_loss": (raw_weight, _cross_entropy(logits, labels, mask)),
            "crop_loss": (crop_weight, _cross_entropy(changed_logits, labels, mask)),
        }
        if effect:
            effects = [
                seen - counterfactual(model, seen_out, effect_key)
                for seen, seen_out, effect_key in (
                    (logits, out, keys[5]),
                    (changed_logits, changed_out, keys[6]),
                )
            ]
            value = _cross_entropy(jnp.concatenate(effects), labels, mask)
            parts["effect_loss"] = 1.0, value
        distances, centres = to_centres(
            out["head/embedding"],
            labels,
            mask,
            state["centres"],
            rate=centre_rate,
            normalise=normalise_centres,
        )
        parts["centre_loss"] = centre_weight, losses.masked_mean(distances, mask)
        aux = {name: value for name, (_, value) in parts.items()}
        total = sum(weight * value for weight, value in parts.values())
        return total, {"logits": logits, "state": {"centres": centres}, **aux}

    (features,) = facts.shape_of("head/embedding")
    centres = jnp.zeros((facts.num_classes, features), jnp.float32)
    return Method((loss,), {"centres": centres})


def changed_images(images, attention, keys, *, crop_threshold, crop_padding, drop_threshold):
    """[2 B, H, W, 3]: the crops of images [B, H, W, 3], then their erasures, by attention maps
    [B, h, w, M] and three keys (choice of the maps, thresholds of both)."""
    for_crop, for_drop = regions.pick(attention, keys[0], 2)
    shares = [
        jax.random.uniform(key, (len(images),), minval=least, maxval=most)
        for key, (least, most) in zip(keys[1:], (crop_threshold, drop_threshold), strict=True)
    ]
    found = regions.boxes(for_crop, shares[0], crop_padding, images.shape[1:3])
    return jnp.concatenate([regions.crop(images, found), regions.drop(images, for_drop, shares[1])])


def counterfactual(model, out, key):
    """The logits f32 [B, K] of the same features under attention drawn from U(0, 2)."""
    attention = out["head/attention"]
    fake = jax.random.uniform(key, attention.shape, maxval=FAKE_ATTENTION)
    (name,) = model.feature_maps[0]
    return model.head.classify(model.head.pool(fake, out[name]))


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
    means = shares @ jax.lax.stop_gradient(embeddings) / jnp.maximum(counts, 1)
    moved = jnp.where(counts > 0, own + rate * (means - targets), own)
    # Rows of one class are equal, so it does not matter which of them is written last.
    return distances, centres.at[labels].set(moved)


def _cross_entropy(logits, labels, mask):
    """The mean over one or more runs [n B, K] of the batch with labels [B] and mask [B]."""
    times = len(logits) // len(labels)
    goal = jax.nn.one_hot(jnp.tile(labels, times), logits.shape[-1])
    return losses.masked_mean(losses.cross_entropy(logits, goal), jnp.tile(mask, times))


def _at(message):
    return f"config.method_options.{message}"
