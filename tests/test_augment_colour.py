"""Colours: parameters that change nothing, extremes that are known, and what is drawn."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax.data.augment import colour

COUNT = 256


def picture():
    return np.random.default_rng(0).integers(0, 256, (16, 12, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: colour.adjust_brightness(x, 1.0),
        lambda x: colour.adjust_contrast(x, 1.0),
        lambda x: colour.adjust_saturation(x, 1.0),
        lambda x: colour.adjust_sharpness(jnp.asarray(x), 1.0),
        lambda x: colour.adjust_hue(x, 0.0),
        lambda x: colour.adjust_hue(x, 1.0),
        lambda x: colour.posterise(x, 8),
        lambda x: colour.solarise(x, 256.0),
        lambda x: colour.invert(colour.invert(x)),
        lambda x: colour.blur(x, 0.01, 3),
        lambda x: colour.adjust_lighting(x, 0.0, 1.0),
    ],
)
def test_what_changes_nothing(change):
    np.testing.assert_allclose(change(picture()), picture(), atol=2e-4)


def test_extremes():
    image = picture()
    assert not np.asarray(colour.adjust_brightness(image, 0.0)).any()
    luma = np.dot(image, colour.LUMA)
    flat = np.asarray(colour.adjust_contrast(image, 0.0))
    np.testing.assert_allclose(flat, np.full_like(flat, luma.mean()), rtol=1e-5)
    grey = np.asarray(colour.adjust_saturation(image, 0.0))
    np.testing.assert_allclose(grey, np.repeat(luma[..., None], 3, -1), atol=1e-3)
    np.testing.assert_array_equal(colour.solarise(image, 0.0), 255 - image)
    np.testing.assert_array_equal(colour.posterise(image, 1), np.where(image >= 128, 128, 0))
    np.testing.assert_array_equal(colour.posterise(image - 0.0001, 4), image // 16 * 16)
    bright = np.asarray(colour.adjust_brightness(image, 3.0))
    np.testing.assert_array_equal(bright, np.minimum(3 * image, 255))


def test_grey_stays_grey():
    image = np.repeat(picture()[..., :1], 3, axis=-1)
    for changed in (colour.adjust_hue(image, 0.3), colour.adjust_saturation(image, 1.9)):
        np.testing.assert_allclose(changed, image, atol=1e-3)


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.1, 0.4])
def test_hue_is_that_of_hsv(shift):
    image = picture()

    def turned(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
        return np.array(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)) * 255

    expected = np.apply_along_axis(turned, -1, image.astype(np.float64))
    np.testing.assert_allclose(colour.adjust_hue(image, shift), expected, atol=2e-3)


def test_autocontrast_uses_all_levels():
    image = 100 + 20 * picture() / 255
    image[..., 2] = 7
    stretched = np.asarray(colour.autocontrast(image))
    np.testing.assert_allclose(stretched[..., :2].min((0, 1)), 0, atol=1e-3)
    np.testing.assert_allclose(stretched[..., :2].max((0, 1)), 255, atol=1e-3)
    np.testing.assert_array_equal(stretched[..., 2], 7)


def test_equalise_makes_levels_as_frequent():
    skewed = np.random.default_rng(0).beta(2, 8, (64, 64, 3)) * 255
    skewed[..., 1] = 30
    equal = np.asarray(colour.equalise(jnp.float32(skewed)))
    quarters = np.histogram(equal[..., 0], 4, (0, 256))[0]
    assert abs(quarters - 1024).max() < 100
    np.testing.assert_array_equal(equal[..., 1], 30)


def test_blur_keeps_the_energy_of_a_point():
    image = np.zeros((33, 33, 3), np.float32)
    image[16, 16] = 255
    spread = np.asarray(colour.blur(image, 2.0, 6))
    assert abs(spread.sum() / image.sum() - 1) < 1e-5
    places = np.arange(33) - 16
    deviation = np.sqrt((spread[..., 0].sum(0) * places**2).sum() / 255)
    assert 1.9 < deviation < 2.01
    np.testing.assert_allclose(spread, spread.transpose(1, 0, 2), rtol=1e-5)


def test_sharpness_leaves_the_border_and_small_pictures():
    changed = np.array(colour.adjust_sharpness(jnp.asarray(picture()), 0.0))
    assert (changed[1:-1, 1:-1] != picture()[1:-1, 1:-1]).any()
    changed[1:-1, 1:-1] = picture()[1:-1, 1:-1]
    np.testing.assert_array_equal(changed, picture())
    small = picture()[:2]
    np.testing.assert_array_equal(colour.adjust_sharpness(small, 0.0), small)


def drawn(made, image=None):
    """What an operation makes of COUNT equal images, and the image."""
    image = np.full((4, 4, 3), 100, np.float32) if image is None else image
    keys = jax.random.split(jax.random.key(0), COUNT)
    images = np.broadcast_to(image, (COUNT, *image.shape))
    return np.asarray(jax.jit(made.apply)(keys, images)), image


def test_brightness_is_uniform_around_one():
    out, _ = drawn(colour.colour_jitter(brightness=0.4))
    factors = out[:, 0, 0, 0] / 100
    assert 0.6 <= factors.min() < 0.62 and 1.38 < factors.max() <= 1.4
    assert np.histogram(factors, 4, (0.6, 1.4))[0].min() > COUNT / 4 * 0.6


def test_jitter_draws_each_part_on_its_own():
    made = colour.colour_jitter(brightness=0.4, saturation=0.5)
    out, _ = drawn(made, np.full((4, 4, 3), (90, 100, 130), np.float32))
    pixels = out[:, 0, 0]
    # Neither changes the ratio of the other: luma by one, spread over luma by the other.
    luma, spread = pixels @ colour.LUMA, np.ptp(pixels, axis=1)
    assert abs(np.corrcoef(luma, spread / luma)[0, 1]) < 0.15
    assert (spread / luma).std() > 0.05 and luma.std() > 10


@pytest.mark.parametrize(
    ("made", "share"),
    [
        (colour.greyscale(p=0.2), 0.2),
        (colour.inverted(p=0.5), 0.5),
        (colour.gaussian_blur(p=0.7, sigma=(1.0, 2.0)), 0.7),
        (colour.sharpen(p=0.3, factor=(3.0, 4.0)), 0.3),
        (colour.lighting(p=0.5), 0.75),
        (colour.colour_jitter(contrast=0.5, p=0.4), 0.4),
    ],
)
def test_share_of_images_that_change(made, share):
    out, image = drawn(made, picture())
    changed = np.array([(one != image).any() for one in out])
    assert abs(changed.mean() - share) < 0.1


def test_lighting_shifts_and_stretches_logits():
    image = np.full((2, 2, 3), 255 / 2, np.float32)
    levels = drawn(colour.lighting(brightness=0.2, contrast=0.0, p=1.0), image)[0][:, 0, 0, 0] / 255
    assert 0.4 <= levels.min() < 0.41 and 0.59 < levels.max() <= 0.6001
    image = np.full((2, 2, 3), 255 * 0.8, np.float32)
    levels = drawn(colour.lighting(brightness=0.0, contrast=0.2, p=1.0), image)[0][:, 0, 0, 0] / 255
    factors = np.log(levels / (1 - levels)) / np.log(4)
    assert 0.8 <= factors.min() + 1e-3 and factors.max() <= 1.25 + 1e-3
    assert factors.min() < 0.82 and factors.max() > 1.22
    assert 0.4 < (factors < 1).mean() < 0.6
