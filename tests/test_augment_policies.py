"""RandAugment and TrivialAugment: all operations, their strengths, and one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax.data.augment import geometry, operation, policies

COUNT = 1024


@pytest.fixture
def seen(monkeypatch):
    """What the operations were told: (kind, share) of each warp and each recolouring."""
    calls = {"maps": [], "recolour": []}

    def maps(strengths, kind, share, shape):
        calls["maps"].append((np.asarray(kind), np.asarray(share)))
        return geometry.affine()

    def recolour(strengths, kind, share, images):
        calls["recolour"].append((np.asarray(kind), np.asarray(share)))
        return images

    monkeypatch.setattr(policies, "affine_maps", maps)
    monkeypatch.setattr(policies, "recolour", recolour)
    return calls


def draw(parts):
    keys = jax.random.split(jax.random.key(0), COUNT)
    for part in parts:
        if isinstance(part, operation.Warp):
            part.maps(keys, (8, 8))
        else:
            part.apply(keys, jnp.zeros((COUNT, 2, 2, 3)))


def test_trivial_augment_draws_all_operations_and_strengths(seen):
    draw(policies.trivial_augment())
    ((kind, share),) = seen["maps"]
    for one, other in zip(seen["maps"][0], seen["recolour"][0], strict=True):
        np.testing.assert_array_equal(one, other)
    counts = np.bincount(kind, minlength=policies.KINDS)
    assert len(counts) == 14 and counts.min() > 45 and counts.max() < 105
    steps = np.abs(share) * 30
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert len(np.unique(np.round(steps))) == 31
    assert 0.4 < (share < 0).mean() < 0.6


def test_rand_augment_draws_as_often_as_it_says_with_one_strength(seen):
    parts = policies.rand_augment(num_ops=3, magnitude=12)
    draw(parts)
    assert len(seen["maps"]) == len(seen["recolour"]) == 3
    kinds = [kind for kind, _ in seen["maps"]]
    for kind, share in seen["maps"]:
        np.testing.assert_allclose(np.abs(share), 0.4, atol=1e-6)
        assert np.bincount(kind, minlength=14).min() > 45
    assert np.abs(np.corrcoef(kinds) - np.eye(3)).max() < 0.1


@pytest.mark.parametrize("strengths", [policies.RAND, policies.TRIVIAL])
def test_an_image_is_moved_or_recoloured_or_left(strengths):
    kind, share = jnp.arange(14), jnp.full(14, -2 / 3)
    maps = np.asarray(policies.affine_maps(strengths, kind, share, (40, 40)))
    moved = (np.abs(maps - np.eye(3)) > 1e-6).any((1, 2))
    np.testing.assert_array_equal(moved, (np.arange(14) >= 8) & (np.arange(14) < 13))
    image = np.random.default_rng(0).integers(20, 200, (1, 40, 40, 3)).astype(np.float32)
    images = np.repeat(image, 14, axis=0)
    out = np.asarray(policies.recolour(strengths, kind, share, images))
    changed = (out != images).any((1, 2, 3))
    np.testing.assert_array_equal(changed, np.arange(14) < 8)
    assert len({one.tobytes() for one in out}) == 9


def test_strengths():
    """The corners of the tables, by hand: 40 pixels, the strongest of the 31."""
    ones = jnp.ones(1)

    def moves(strengths, kind):
        return np.asarray(policies.affine_maps(strengths, jnp.array([kind]), ones, (40, 40)))[0]

    assert moves(policies.RAND, policies.TRANSLATE_X)[0, 2] == -18
    assert moves(policies.TRIVIAL, policies.TRANSLATE_Y)[1, 2] == -32
    turned = moves(policies.RAND, policies.ROTATE)
    np.testing.assert_allclose(turned[0, 0], np.sqrt(3) / 2, rtol=1e-5)
    sheared = moves(policies.TRIVIAL, policies.SHEAR_X)
    np.testing.assert_allclose(sheared[0, 1:], (0.99, 19.8), rtol=1e-5)
    image = np.full((1, 4, 4, 3), 101, np.float32)
    for strengths, factor, bits in ((policies.RAND, 1.9, 4), (policies.TRIVIAL, 1.99, 2)):
        bright, posterised, solarised = (
            policies.recolour(strengths, jnp.array([kind]), ones, image)[0, 0, 0, 0]
            for kind in (0, 4, 5)
        )
        np.testing.assert_allclose(bright, 101 * factor, rtol=1e-5)
        assert posterised == 101 // 2 ** (8 - bits) * 2 ** (8 - bits)
        assert solarised == 255 - 101
