"""Augmentations on the device, compared with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from fgc_jax.data import augment


def batch(n=64):
    return np.random.default_rng(0).integers(0, 256, (n, 5, 4, 3), np.uint8)


def test_flip_mirrors_about_half_of_the_images():
    images = batch()
    flipped = np.asarray(jax.jit(augment.flip)(jax.random.key(0), images))
    assert flipped.dtype == np.uint8
    same = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert (same | mirrored).all()
    assert 16 < mirrored.sum() < 48


def test_flip_depends_on_the_key_alone():
    images = batch()
    one, again, other = (augment.flip(jax.random.key(seed), images) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (np.asarray(one) != np.asarray(other)).any()


def test_normalise():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = batch(2)
    got = jax.jit(augment.normalise, static_argnums=(1, 2))(images, mean, std)
    assert got.dtype == jnp.float32
    expected = (images / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert (np.asarray(got) < 0).any() and (np.asarray(got) > 1).any()
