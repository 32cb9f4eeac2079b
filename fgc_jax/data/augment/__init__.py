"""Augmentation on the device, inside the compiled step: pure functions of a key and a batch, with
random numbers for each image.

Between operations images are f32 RGB of 0..255: the range of the uint8 images from the host, with
fractions. `normalise` is applied after all operations.
"""

import jax
import jax.numpy as jnp

from fgc_jax import config
from fgc_jax.data.augment import colour, geometry, mixing, operation, policies

OPS = {
    "flip": geometry.flip,
    "crop": geometry.crop,
    "resized_crop": geometry.resized_crop,
    "rotate": geometry.rotate,
    "shear": geometry.shear,
    "translate": geometry.translate,
    "zoom": geometry.zoom,
    "symmetric_warp": geometry.symmetric_warp,
    "perspective": geometry.perspective,
    "colour_jitter": colour.colour_jitter,
    "lighting": colour.lighting,
    "greyscale": colour.greyscale,
    "blur": colour.gaussian_blur,
    "sharpen": colour.sharpen,
    "posterise": colour.posterised,
    "solarise": colour.solarised,
    "invert": colour.inverted,
    "autocontrast": colour.autocontrasted,
    "equalise": colour.equalised,
    "rand_augment": policies.rand_augment,
    "trivial_augment": policies.trivial_augment,
    "erase": mixing.erase,
    "mixup": mixing.mixup,
    "cutmix": mixing.cutmix,
    "mixup_or_cutmix": mixing.mixup_or_cutmix,
}

MIXING = ("mixup", "cutmix", "mixup_or_cutmix")  # those that give an image a second label


def build(ops):
    """The function (key, batch) -> batch that applies `ops` in their order.

    `ops`: pairs (name of OPS, dict of its options), e.g. `(("flip", {}), ("rotate", {"degrees":
    10.0}))`. The batch holds `image` uint8 or f32 `[B, H, W, 3]` of 0..255, `label` int32 `[B]` and
    `mask` f32 `[B]`; other entries are not changed. The result's images are f32 of 0..255,
    `[B, S, S, 3]` after a crop to S. mixup and cutmix add `label_b` and `weight` (see
    mixing.mixup_or_cutmix). The operations on image i depend only on the key and on i, except for
    the image mixed in.

    Consecutive operations that move pixels are combined into one sampling, unless their paddings
    differ. The padding of such a sequence begins at the border of its input picture, not at the
    border of an earlier crop in the sequence.

    Raises:
        ValueError: an unknown name, option or value, or an operation after one that mixes images;
            once called, a crop larger than the images.
    """
    ops = checked(ops)
    runs = _runs(_operations(ops))

    def augmented(key, batch):
        for_batch, for_images = jax.random.split(key)
        keys = operation.per_image(for_images, len(batch["image"]), len(ops))
        for run in runs:
            number, step = run[0]
            if isinstance(step, operation.Warp):
                batch = {**batch, "image": _warped(keys, run, batch["image"])}
                continue
            images = batch["image"].astype(jnp.float32)
            if isinstance(step, operation.Recolour):
                batch = {**batch, "image": step.apply(keys[number], images)}
            else:
                batch = step.apply(for_batch, keys[number], {**batch, "image": images})
        return {**batch, "image": batch["image"].astype(jnp.float32)}

    return augmented


def checked(ops):
    """`ops` as a tuple of pairs (name, options as a new dict).

    Raises:
        ValueError: a name, an option or a value is not allowed.
    """
    for name, options in ops:
        if name not in OPS:
            raise ValueError(f"unknown augmentation {name!r}, allowed: {', '.join(OPS)}")
        config.options(OPS[name], options, f"augmentation {name!r}: ")
    return tuple((name, dict(options)) for name, options in ops)


def normalise(images, mean, std):
    """uint8 or f32 `[B, H, W, 3]` of 0..255 -> f32 (images / 255 - mean) / std.

    `mean` and `std`: 3 numbers for images of 0..1, as stated with the pretrained weights.
    """
    mean = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, -1)
    std = jnp.asarray(std, jnp.float32).reshape(1, 1, 1, -1)
    return (images.astype(jnp.float32) / 255 - mean) / std


def _operations(ops):
    """[(number in `ops`, Warp | Recolour | Mix), ...]; a policy becomes several with one number."""
    steps = []
    for number, (name, options) in enumerate(ops):
        if any(isinstance(step, operation.Mix) for _, step in steps):
            raise ValueError(
                f"augmentation {name!r} follows {ops[number - 1][0]!r}: an operation that mixes "
                "images must be the last one"
            )
        at = f"augmentation {name!r}: "
        options = config.options(OPS[name], options, at)
        try:
            made = OPS[name](**options)
        except ValueError as error:
            raise ValueError(f"{at}{error}") from None
        steps += [(number, step) for step in (made if isinstance(made, tuple) else (made,))]
    return steps


def _runs(steps):
    """Cuts the steps into lists: of Warps that one sampling can do, or of one other step."""
    runs = []
    for number, step in steps:
        if isinstance(step, operation.Warp) and runs and _continues(runs[-1], step):
            runs[-1].append((number, step))
        else:
            runs.append([(number, step)])
    return runs


def _continues(run, warp):
    if not isinstance(run[0][1], operation.Warp):
        return False
    return warp.padding is None or all(w.padding in (None, warp.padding) for _, w in run)


def _warped(keys, run, images):
    """The images, uint8 or f32 `[B, H, W, 3]`, after a run of Warps."""
    shape, maps = images.shape[1:3], []
    for number, warp in run:
        maps.append(warp.maps(keys[number], shape))
        shape = (warp.size, warp.size) if warp.size else shape
    if all(warp.mirrors for _, warp in run):
        mirrored = geometry.compose(*maps)[:, 0, 0] < 0
        return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    padding = next((warp.padding for _, warp in run if warp.padding), "border")
    return geometry.sample(images, geometry.compose(*maps), shape, padding)
