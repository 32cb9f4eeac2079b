"""Examples of what each augmentation does to a picture."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from fgc_jax import data
from fgc_jax.data import augment, images, pipeline

ALWAYS = {"p": 1.0}
ROWS = (
    ("flip", {}),
    ("crop", {}),  # size: three quarters of the side
    ("resized_crop", {}),
    ("rotate", {"degrees": 20.0, "padding": "zeros"}),
    ("rotate", {"degrees": 20.0}),
    ("shear", {"x": 0.3, "y": 0.1}),
    ("translate", {"padding": "border"}),
    ("zoom", {"scale": (1.0, 1.5)}),
    ("symmetric_warp", {}),
    ("perspective", ALWAYS),
    ("colour_jitter", {"brightness": 0.5}),
    ("colour_jitter", {"contrast": 0.8}),
    ("colour_jitter", {"saturation": 0.9}),
    ("colour_jitter", {"hue": 0.5}),
    ("lighting", ALWAYS),
    ("greyscale", ALWAYS),
    ("blur", {"sigma": (0.5, 4.0), **ALWAYS}),
    ("sharpen", {"factor": (0.0, 6.0), **ALWAYS}),
    ("posterise", {"bits": 3, **ALWAYS}),
    ("solarise", ALWAYS),
    ("invert", ALWAYS),
    ("autocontrast", ALWAYS),
    ("equalise", ALWAYS),
    ("rand_augment", {}),
    ("trivial_augment", {}),
    ("erase", ALWAYS),
    ("erase", {"fill": "noise", **ALWAYS}),
    ("mixup", {"alpha": 0.4}),
    ("cutmix", {}),
    ("mixup_or_cutmix", {}),
)
PARTNERS = 7  # other birds in the batch, to mix in


def batch(path: Path | None, size: int) -> dict[str, np.ndarray]:
    """The picture (None: a synthetic bird) before PARTNERS other birds, `[size, size, 3]` each.

    Raises:
        ValueError: the picture cannot be read.
    """
    birds = data.load("synthetic_birds", "", {"size": size}).splits["train"]
    pictures = [birds.read(i * (len(birds) // (PARTNERS + 1))) for i in range(PARTNERS + 1)]
    if path is not None:
        transform = pipeline.Transform(size, "short_side", size, False, "bilinear")
        pictures[0] = pipeline.transform_image(transform, images.decode(path))
    count = len(pictures)
    return {
        "image": np.stack(pictures),
        "label": np.arange(count, dtype=np.int32),
        "mask": np.ones(count, np.float32),
    }


def rows(batch: dict, draws: int, seed: int) -> Iterator[tuple[str, dict, np.ndarray]]:
    """Yields for each of ROWS its name, its options, and its results for the first image of a
    batch: uint8 `[draws, S, S, 3]`."""
    for number, (name, options) in enumerate(ROWS):
        if name == "crop":
            options = {"size": 3 * batch["image"].shape[1] // 4}
        step = jax.jit(augment.build(((name, options),)))
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), number), draws)
        found = [np.asarray(step(key, batch)["image"][0]) for key in keys]
        yield name, options, np.clip(np.round(found), 0, 255).astype(np.uint8)
