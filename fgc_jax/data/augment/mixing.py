"""Operations that erase a part of an image or combine two images of a batch."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from fgc_jax.config.limits import Positive, Share, between, interval
from fgc_jax.data.augment import operation

GREY = 127.5
Level = Annotated[float, between(0, 255)]
Fill = None | Literal["noise"] | Level | tuple[Level, Level, Level]


def erase(
    *,
    p: Share = 0.25,
    scale: interval(0, 1) = (0.02, 0.33),
    ratio: interval(0.01, 100) = (0.3, 3.3),
    fill: Fill = None,
):
    """Random erasing, arXiv:1708.04896: with probability `p` a box is filled.

    `scale`: the box's share of the area, uniform; `ratio`: its height / width, uniform in the
    logarithm. `fill`: three numbers of 0..255, or one for all channels; or "noise": for each pixel
    a uniform random number of 0..255. None is mid-grey; a training run replaces it by the mean of
    its normalisation, so that the box becomes 0.
    """
    colour = GREY if fill in (None, "noise") else fill

    def apply(keys, images):
        _, height, width, _ = images.shape
        shares = operation.uniform(keys, 2 * operation.TRIES + 3)
        high, wide, fits = operation.boxes(shares[:, 3:], height, width, scale, ratio)
        high, wide = jnp.round(high), jnp.round(wide)
        top = jnp.floor(shares[:, 0] * (height - high + 1))
        left = jnp.floor(shares[:, 1] * (width - wide + 1))
        erased = fits & (shares[:, 2] < p)
        inside = _inside(top, left, top + high, left + wide, (height, width))
        if fill == "noise":
            noise = operation.uniform(
                jax.vmap(jax.random.fold_in, (0, None))(keys, 1), height * width * 3
            )
            colours = 255 * noise.reshape(images.shape)
        else:
            colours = jnp.asarray(colour, jnp.float32).reshape(1, 1, 1, -1)
        return jnp.where(inside & erased[:, None, None, None], colours, images)

    return operation.Recolour(apply)


def mixup(*, alpha: Positive = 0.2, p: Share = 1.0):
    """mixup, arXiv:1710.09412: with probability `p` an image becomes `weight` times itself plus
    (1 - weight) times another of the batch; weight is drawn from Beta(alpha, alpha)."""
    return mixup_or_cutmix(mixup_alpha=alpha, cutmix_alpha=1.0, p=p, cutmix=0.0)


def cutmix(*, alpha: Positive = 1.0, p: Share = 1.0):
    """CutMix, arXiv:1905.04899: with probability `p` a box is replaced by the same box of another
    image of the batch. Its share of the area is about 1 - lambda with lambda from Beta(alpha,
    alpha), and less if the box is cut off by the edge. `weight` is the share of unchanged pixels.
    """
    return mixup_or_cutmix(mixup_alpha=1.0, cutmix_alpha=alpha, p=p, cutmix=1.0)


def mixup_or_cutmix(
    *,
    mixup_alpha: Positive = 0.8,
    cutmix_alpha: Positive = 1.0,
    p: Share = 1.0,
    cutmix: Share = 0.5,
):
    """With probability `p` an image is mixed: by CutMix with probability `cutmix`, else by mixup.

    The batch gets `label_b` int32 `[B]`, the label of the image mixed in, and `weight` f32 `[B]`,
    the share of `label`; 1 for unchanged images. An image with mask 0 is neither changed nor mixed
    into another one.
    """

    def apply(key, keys, batch):
        images, mask = batch["image"], batch["mask"]
        count, height, width, _ = images.shape
        # The partner of each image is the one `distance` places later: a permutation in which no
        # image is its own partner.
        distance = jax.random.randint(key, (), 1, max(count, 2))
        partner = (jnp.arange(count) + distance) % count
        shares = operation.uniform(keys, 4)
        mixed = (shares[:, 0] < p) & (mask > 0) & (mask[partner] > 0)
        boxed = shares[:, 1] < cutmix
        alphas = jnp.where(boxed, cutmix_alpha, mixup_alpha)
        for_beta = jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
        share = jax.vmap(jax.random.beta)(for_beta, alphas, alphas)
        share = jnp.where(mixed, share, 1.0)
        left = 1 - _cut(shares[:, 2:], share, (height, width))
        kept = jnp.where(boxed[:, None, None, None], left, share[:, None, None, None])
        return {
            **batch,
            "image": kept * images + (1 - kept) * images[partner],
            "label_b": batch["label"][partner],
            "weight": jnp.where(boxed, left.mean((1, 2, 3)), share),
        }

    return operation.Mix(apply)


def _cut(centre, share, shape):
    """f32 `[B, H, W, 1]`: 1 in a box with about 1 - share of the area, around `centre` `[B, 2]`
    (y, x), in shares of the height and width."""
    centre = jnp.floor(centre * jnp.float32(shape)[None, :])
    half = 0.5 * jnp.sqrt(1 - share)
    high, wide = jnp.floor(half * shape[0]), jnp.floor(half * shape[1])
    y, x = centre[:, 0], centre[:, 1]
    return _inside(y - high, x - wide, y + high, x + wide, shape).astype(jnp.float32)


def _inside(top, left, bottom, right, shape):
    """bool `[B, H, W, 1]`: whether a pixel is in its image's box (half-open, may reach beyond)."""
    y = jnp.arange(shape[0])[None, :, None, None]
    x = jnp.arange(shape[1])[None, None, :, None]
    top, left, bottom, right = (e[:, None, None, None] for e in (top, left, bottom, right))
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)
