"""What covers parts of an image or puts two images of a batch together."""

import math

import jax
import jax.numpy as jnp

from fgc_jax.data.augment import operation

IMAGENET_MEAN = (123.675, 116.28, 103.53)


def erase(*, p=0.25, scale=(0.02, 0.33), ratio=(0.3, 3.3), fill=IMAGENET_MEAN):
    """Random erasing, arXiv:1708.04896: with probability `p` a box is filled.

    `scale`: the box's share of the area, uniform; `ratio`: its height / width, uniform in the
    logarithm. `fill`: a colour of 0..255, by default ImageNet's mean, which normalising makes 0; or
    "noise": each number of 0..255 as likely for each pixel.
    """
    operation.check_number("p", p, 0, 1)
    operation.check_interval("scale", scale, 0, 1)
    operation.check_interval("ratio", ratio, 0.01, 100)
    if fill != "noise":
        if isinstance(fill, str) or not hasattr(fill, "__len__") or len(fill) != 3:
            raise ValueError(f"fill must be 'noise' or three numbers of 0..255, got {fill!r}")
        for value in fill:
            operation.check_number("fill", value, 0, 255)

    def apply(keys, images):
        _, height, width, _ = images.shape
        for_box, for_place, for_chance, for_fill = operation.split(keys, 4)
        high, wide, fits = operation.boxes(for_box, height, width, scale, ratio)
        high, wide = jnp.round(high), jnp.round(wide)
        place = operation.uniform(for_place, 0.0, 1.0, (2,))
        top = jnp.floor(place[:, 0] * (height - high + 1))
        left = jnp.floor(place[:, 1] * (width - wide + 1))
        erased = fits & operation.chance(for_chance, p)
        inside = _inside(top, left, top + high, left + wide, (height, width))
        if fill == "noise":
            colours = operation.uniform(for_fill, 0.0, 255.0, images.shape[1:])
        else:
            colours = jnp.asarray(fill, jnp.float32).reshape(1, 1, 1, 3)
        return jnp.where(inside & erased[:, None, None, None], colours, images)

    return operation.Recolour(apply)


def mixup(*, alpha=0.2, p=1.0):
    """mixup, arXiv:1710.09412: with probability `p` an image becomes `weight` times itself plus
    (1 - weight) times another of the batch; weight is drawn from Beta(alpha, alpha)."""
    return mixup_or_cutmix(mixup_alpha=alpha, cutmix_alpha=1.0, p=p, cutmix=0.0)


def cutmix(*, alpha=1.0, p=1.0):
    """CutMix, arXiv:1905.04899: with probability `p` a box shows the same place of another image of
    the batch; its share of the area is about 1 - lambda of Beta(alpha, alpha), and less where it
    meets the edge. `weight` is the share of pixels that are left."""
    return mixup_or_cutmix(mixup_alpha=1.0, cutmix_alpha=alpha, p=p, cutmix=1.0)


def mixup_or_cutmix(*, mixup_alpha=0.8, cutmix_alpha=1.0, p=1.0, cutmix=0.5):
    """With probability `p` an image is mixed: by CutMix with probability `cutmix`, else by mixup.

    The batch gets `label_b` int32 `[B]`, the label of the image mixed in, and `weight` f32 `[B]`,
    the share of `label`; 1 for images that stay as they are. An image with mask 0 is never mixed in
    nor mixed.
    """
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if alpha == 0:
            raise ValueError(f"{name} must be above 0, got 0")
        operation.check_number(name, alpha, 0, math.inf)
    operation.check_number("p", p, 0, 1)
    operation.check_number("cutmix", cutmix, 0, 1)

    def apply(key, batch):
        images, mask = batch["image"], batch["mask"]
        count, height, width, _ = images.shape
        for_batch, for_images = jax.random.split(key)
        # Everyone's partner is the image so many places further on: a permutation in which no
        # image meets itself.
        distance = jax.random.randint(for_batch, (), 1, max(count, 2))
        partner = (jnp.arange(count) + distance) % count
        keys = operation.split(operation.per_image(for_images, count), 4)
        mixed = operation.chance(keys[0], p) & (mask > 0) & (mask[partner] > 0)
        boxed = operation.chance(keys[1], cutmix)
        alphas = jnp.where(boxed, cutmix_alpha, mixup_alpha)
        share = jax.vmap(lambda key, alpha: jax.random.beta(key, alpha, alpha))(keys[2], alphas)
        share = jnp.where(mixed, share, 1.0)
        left = 1 - _cut(keys[3], share, (height, width))
        kept = jnp.where(boxed[:, None, None, None], left, share[:, None, None, None])
        return {
            **batch,
            "image": kept * images + (1 - kept) * images[partner],
            "label_b": batch["label"][partner],
            "weight": jnp.where(boxed, left.mean((1, 2, 3)), share),
        }

    return operation.Mix(apply)


def _cut(keys, share, shape):
    """f32 `[B, H, W, 1]`, 1 in a box of about 1 - share of the area around a random pixel."""
    centre = jnp.floor(operation.uniform(keys, 0.0, 1.0, (2,)) * jnp.asarray(shape)[None, :])
    half = 0.5 * jnp.sqrt(1 - share)
    high, wide = jnp.floor(half * shape[0]), jnp.floor(half * shape[1])
    y, x = centre[:, 0], centre[:, 1]
    return _inside(y - high, x - wide, y + high, x + wide, shape).astype(jnp.float32)


def _inside(top, left, bottom, right, shape):
    """bool `[B, H, W, 1]`: is a pixel in its image's box (half-open, may reach beyond)?"""
    y = jnp.arange(shape[0])[None, :, None, None]
    x = jnp.arange(shape[1])[None, None, :, None]
    top, left, bottom, right = (e[:, None, None, None] for e in (top, left, bottom, right))
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)
