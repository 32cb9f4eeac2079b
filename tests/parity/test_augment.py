"""Augmentations against torchvision, PyTorch and Pillow on the same parameters, by `make parity`.

The table of differences: .venv-parity/bin/python -m pytest -n0 -s tests/parity/test_augment.py
"""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as tv

from fgc_jax.data.augment import colour, geometry, mixing, policies

BILINEAR = InterpolationMode.BILINEAR
PHOTO = cv2.resize(skimage.data.chelsea(), (160, 120), interpolation=cv2.INTER_AREA)
SHAPE = PHOTO.shape[:2]
LEVELS = jnp.asarray(PHOTO, jnp.float32)
TENSOR = torch.from_numpy(PHOTO).permute(2, 0, 1)
FLOAT = TENSOR.float() / 255


def array(result):
    """Levels 0..255 `[H, W, 3]` of a torch image uint8 or of 0..1, or of a Pillow image."""
    if isinstance(result, Image.Image):
        return np.asarray(result, np.float32)
    scale = 1 if result.dtype == torch.uint8 else 255
    return result.permute(1, 2, 0).numpy().astype(np.float32) * scale


def report(name, oracle, ours, theirs, limit):
    difference = np.abs(np.asarray(ours, np.float32) - array(theirs)).mean()
    print(f"\n| {name} | {oracle} | {difference:.1e} | {limit} |", end=" ")
    # The operation must do something, or the comparison shows nothing.
    if array(theirs).shape == PHOTO.shape:
        assert np.abs(array(theirs) - PHOTO).mean() > 1
    assert difference <= limit


def pil(change, *args):
    return change(Image.fromarray(PHOTO), *args)


# Mean absolute differences in units of 1/255. Torchvision's luma weights add up to 0.9999, ours to
# 1; Pillow's results are whole levels, cut off or rounded, which alone makes up to 0.5.
COLOURS = {
    "brightness": (lambda x: colour.adjust_brightness(x, 1.4), tv.adjust_brightness, 1.4, 1e-4),
    "contrast": (lambda x: colour.adjust_contrast(x, 1.5), tv.adjust_contrast, 1.5, 0.01),
    "saturation": (lambda x: colour.adjust_saturation(x, 1.7), tv.adjust_saturation, 1.7, 0.02),
    "saturation 0": (lambda x: colour.adjust_saturation(x, 0.0), tv.adjust_saturation, 0, 0.02),
    "hue": (lambda x: colour.adjust_hue(x, 0.3), tv.adjust_hue, 0.3, 1e-4),
    "hue below 0": (lambda x: colour.adjust_hue(x, -0.45), tv.adjust_hue, -0.45, 1e-4),
    "sharpness": (lambda x: colour.adjust_sharpness(x, 4.0), tv.adjust_sharpness, 4.0, 1e-4),
    "solarise": (lambda x: colour.solarise(x, 128.0), tv.solarize, 128 / 255, 1e-4),
}


@pytest.mark.parametrize("name", COLOURS)
def test_colours(name):
    ours, theirs, amount, limit = COLOURS[name]
    report(name, "torchvision, float", ours(LEVELS), theirs(FLOAT, amount), limit)


WHOLE = {
    "posterise": (lambda x: colour.posterise(x, 3), lambda: tv.posterize(TENSOR, 3), 0),
    "invert": (colour.invert, lambda: tv.invert(TENSOR), 0),
    "equalise": (colour.equalise, lambda: tv.equalize(TENSOR), 0),
    "equalise, Pillow": (colour.equalise, lambda: pil(ImageOps.equalize), 0),
    "autocontrast": (colour.autocontrast, lambda: tv.autocontrast(FLOAT), 1e-4),
    "autocontrast, Pillow": (colour.autocontrast, lambda: pil(ImageOps.autocontrast), 0.51),
    "solarise, Pillow": (
        lambda x: colour.solarise(x, 100.0),
        lambda: pil(ImageOps.solarize, 100),
        0,
    ),
    "greyscale": (colour.grey, lambda: tv.rgb_to_grayscale(FLOAT, 1), 0.02),
    "greyscale, Pillow": (
        lambda x: jnp.repeat(colour.grey(x), 3, -1),
        lambda: pil(ImageOps.grayscale).convert("RGB"),
        0.3,
    ),
    "blur": (
        lambda x: colour.blur(x, 1.7, 6),
        lambda: tv.gaussian_blur(FLOAT, [13, 13], [1.7, 1.7]),
        1e-4,
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_fixed_changes(name):
    ours, theirs, limit = WHOLE[name]
    oracle = "Pillow" if "Pillow" in name else "torchvision"
    report(name, oracle, ours(LEVELS), theirs(), limit)


def test_lighting_equals_fastais_formula():
    logits = torch.logit(FLOAT.double().clamp(1e-7, 1 - 1e-7))
    theirs = torch.sigmoid((logits + np.log(0.6 / 0.4)) * 1.2).float()
    ours = colour.adjust_lighting(LEVELS, float(np.log(0.6 / 0.4)), 1.2)
    report("lighting", "PyTorch, logit and sigmoid", ours, theirs, 1e-4)


def warped(maps, padding="zeros", size=SHAPE):
    return geometry.sample(LEVELS[None], maps, size, padding)[0]


BEFORE = ((0, 0), (160, 0), (160, 120), (0, 120))
AFTER = ((4, 9), (150, 3), (139, 110), (12, 118))

GEOMETRY = {
    "rotate": (
        lambda: warped(geometry.rotation_map(jnp.float32([17.0]))),
        lambda: tv.rotate(FLOAT, 17.0, BILINEAR),
    ),
    "shear": (
        lambda: warped(geometry.affine(xy=0.3, yx=0.0)),
        lambda: tv.affine(FLOAT, 0, [0, 0], 1, [np.degrees(np.arctan(0.3)), 0], BILINEAR),
    ),
    "translate": (
        lambda: warped(geometry.affine(x=-12.0, y=7.0)),
        lambda: tv.affine(FLOAT, 0.0, [12, -7], 1.0, [0.0, 0.0], BILINEAR),
    ),
    "zoom": (
        lambda: warped(geometry.affine(xx=1 / 1.3, yy=1 / 1.3)),
        lambda: tv.affine(FLOAT, 0.0, [0, 0], 1.3, [0.0, 0.0], BILINEAR),
    ),
    "perspective": (
        lambda: warped(
            geometry.perspective_map(
                [
                    ((x - 80, y - 60), (u - 80, v - 60))
                    for (x, y), (u, v) in zip(BEFORE, AFTER, strict=True)
                ]
            )
        ),
        lambda: tv.perspective(FLOAT, BEFORE, AFTER, BILINEAR),
    ),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_warps(name):
    ours, theirs = GEOMETRY[name]
    report(name, "torchvision, float", ours(), theirs(), 2e-4)


def test_resized_crop():
    top, left, high, wide, size = 20, 30, 70, 90, (64, 64)
    maps = geometry.crop_map(*(jnp.float32([x]) for x in (top, left, high, wide)), SHAPE, size)
    theirs = tv.resized_crop(FLOAT, top, left, high, wide, list(size), BILINEAR, antialias=False)
    # Where torchvision repeats the crop's outermost pixels we see what really is beyond.
    inner = np.s_[1:-1, 1:-1]
    ours = warped(maps, size=size)[inner]
    report("resized_crop", "torchvision, float", ours, theirs[(slice(None), *inner)], 1e-4)


@pytest.mark.parametrize(("padding", "mode"), [("reflect", "reflection"), ("border", "border")])
def test_paddings(padding, mode):
    matrix = np.array([[1.9, 0.4, 30.0], [-0.6, 2.2, -9.0], [0.002, -0.003, 1.0]], np.float32)
    y, x = np.meshgrid(np.arange(120) - 59.5, np.arange(160) - 79.5, indexing="ij")
    u, v, depth = np.einsum("ij,jhw->ihw", matrix, np.stack([x, y, np.ones_like(x)]))
    grid = np.stack([u / depth / 79.5, v / depth / 59.5], -1)[None].astype(np.float32)
    theirs = torch.nn.functional.grid_sample(
        FLOAT[None], torch.from_numpy(grid), padding_mode=mode, align_corners=True
    )[0]
    report(f"padding {padding}", "grid_sample", warped(matrix[None], padding), theirs, 1e-3)


def test_erase():
    colour = (123.675, 116.28, 103.53)
    fill = torch.tensor(colour)[:, None, None]
    theirs = tv.erase(TENSOR.float(), 10, 20, 30, 40, fill) / 255
    inside = mixing._inside(*(jnp.float32([x]) for x in (10, 20, 40, 60)), SHAPE)[0]
    ours = jnp.where(inside, jnp.float32(colour).reshape(1, 1, 3), LEVELS)
    report("erase", "torchvision", ours, theirs, 1e-4)


KINDS = (
    "Brightness Color Contrast Sharpness Posterize Solarize AutoContrast Equalize "
    "ShearX ShearY TranslateX TranslateY Rotate Identity"
).split()
SPACES = {
    "rand_augment": (policies.RAND, v2.RandAugment(interpolation=BILINEAR)),
    "trivial_augment": (policies.TRIVIAL, v2.TrivialAugmentWide(interpolation=BILINEAR)),
}


@pytest.mark.parametrize("policy", SPACES)
def test_policies(policy):
    strengths, transform = SPACES[policy]
    space = transform._AUGMENTATION_SPACE
    assert set(space) == set(KINDS)

    @jax.jit
    def both(kind, share):
        maps = policies.affine_maps(strengths, kind, share, SHAPE)
        moved = geometry.sample(LEVELS[None], maps, SHAPE, "zeros")
        return policies.recolour(strengths, kind, share, moved)[0]

    worst = {}
    for number, kind in enumerate(KINDS):
        magnitudes, signed = space[kind]
        for place in (1, 9, 17, 30):
            for sign in (-1, 1) if signed else (1,):
                table = magnitudes(policies.BINS, *SHAPE)
                amount = 0.0 if table is None else sign * float(table[place])
                theirs = transform._apply_image_or_video_transform(
                    FLOAT if kind not in ("Posterize", "Equalize") else TENSOR,
                    kind,
                    amount,
                    interpolation=BILINEAR,
                    fill={torch.Tensor: None},
                )
                share = jnp.float32([sign * place / (policies.BINS - 1)])
                ours = np.asarray(both(jnp.int32([number]), share))
                difference = np.abs(ours - array(theirs)).mean()
                worst[kind] = max(worst.get(kind, 0.0), difference)
    for kind, difference in worst.items():
        # Their luma weights add up to 0.9999, ours to 1.
        limit = 0.02 if kind in ("Color", "Contrast") else 1e-3
        print(f"\n| {policy}: {kind} | torchvision | {difference:.1e} | {limit} |", end=" ")
        assert difference <= limit
