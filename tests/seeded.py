"""Weights and images that NumPy alone reproduces, for comparisons with PyTorch networks."""

import math
import re
import zlib
from collections.abc import Mapping

import jax
import numpy as np

from fgc_jax import models
from fgc_jax.config import ModelSettings, read
from fgc_jax.convert import timm
from fgc_jax.models import pretrained

# The last convolution of a residual branch; the first block of a stage has none.
_EFFICIENTNET_BRANCH = re.compile(r"blocks\.\d+\.[1-9]\d*\.conv_pwl\.weight")


def config(backbone: str, **changes) -> ModelSettings:
    """A model config with the backbone's original head and random weights, and changes to it."""
    return read(
        ModelSettings, {**vars(models.original_config(backbone)), **changes}, "config.model"
    )


# Of vision transformers: as large as what they scale, or are added to.
_LAYER_SCALES = ("ls1.gamma", "ls2.gamma", "gamma_1", "gamma_2")
_TOKENS = ("cls_token", "reg_token", "pos_embed")


def value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 weight for a key of a state dict: depends on nothing but its name and shape.

    Uniform numbers, whose stream NumPy is unlikely ever to change. Statistics and scales of batch
    norm are far from 0 and 1, so that a wrong epsilon, order or name shows.
    """
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    unit = rng.random(shape, dtype=np.float32)
    if key.endswith("running_var") or (key.endswith("weight") and len(shape) == 1):
        return unit + np.float32(0.5)
    centred = 2 * unit - 1
    if key.endswith(_LAYER_SCALES):
        return unit + np.float32(0.5)
    if key.endswith(_TOKENS):
        return centred
    if len(shape) < 2:
        # Gates of squeeze-and-excitation stand open, or little of an image passes many of them.
        middle = np.float32(key.endswith("se.conv_expand.bias"))
        return np.float32(0.2) * centred + middle
    # Activations keep their size through ReLUs; residual branches add up, so theirs are smaller.
    gain = 1 if key.startswith("layer") else 2
    if _EFFICIENTNET_BRANCH.fullmatch(key):
        gain = 0.04
    return np.float32(math.sqrt(3 * gain / math.prod(shape[1:]))) * centred


def state_dict(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {key: value(key, tuple(shape)) for key, shape in shapes.items()}


def images(batch: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Float32 [batch, height, width, 3], smooth at several scales, about normalised."""
    rng = np.random.Generator(np.random.PCG64(seed))
    total = np.zeros((batch, height, width, 3), np.float32)
    for cells in (4, 16, 64):
        grid = 2 * rng.random((batch, cells, cells, 3), dtype=np.float32) - 1
        rows = np.arange(height) * cells // height
        columns = np.arange(width) * cells // width
        total += grid[:, rows][:, :, columns]
    return total


def disk(size: int) -> np.ndarray:
    """Float32 [1, size, size, 3] in [-1, 1]: a bright disk on a dark ground."""
    steps = np.linspace(-1, 1, size, dtype=np.float32)
    inside = np.square(steps[:, None]) + np.square(steps[None, :]) < 0.5
    grey = np.where(inside, np.float32(0.9), np.float32(-0.9))
    return np.repeat(grey[None, :, :, None], 3, axis=3)


def trees(backbone: str, num_classes: int = 1000, state=None, **changes):
    """(config, params, stats) filled from `state`, or with `value` of timm's keys."""
    settings = config(backbone, **changes)
    params, stats = models.split(models.abstract(settings, num_classes))
    pairs = pretrained.original_names(models.BACKBONES[backbone])
    if state is None:
        zeros = (jax.tree.map(lambda x: np.broadcast_to(0, x.shape), t) for t in (params, stats))
        like = timm.to_state_dict(*zeros, pairs)
        state = state_dict({key: x.shape for key, x in like.items()})
    return settings, *timm.fill(params, stats, state, pairs)
