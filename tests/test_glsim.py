"""GLSim: the second look at the patches that are most like the image."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import models
from fgc_jax.models import glsim, regions
from tests import seeded, small_networks


def test_boxes_hold_the_patches_most_like_the_class_token():
    rng = np.random.default_rng(0)
    grid, token = rng.normal(size=(3, 4, 5, 6)), rng.normal(size=(3, 1, 1, 6))
    likeness = glsim.similarity(jnp.float32(grid), jnp.float32(token))
    boxes = glsim.patch_boxes(likeness, 3, (32, 41))
    for image in range(3):
        cosines = {}
        for row in range(4):
            for column in range(5):
                one, other = grid[image, row, column], token[image, 0, 0]
                cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
                np.testing.assert_allclose(likeness[image, row, column], cosine, atol=1e-6)
                cosines[row, column] = cosine
        rows, columns = zip(*sorted(cosines, key=cosines.get)[-3:], strict=True)
        right = math.ceil((max(columns) + 1) * 41 / 5)
        expected = [8 * min(rows), 8 * max(rows) + 8, math.floor(min(columns) * 41 / 5), right]
        np.testing.assert_array_equal(boxes[image], expected)


def test_one_patch_is_a_box_and_zeros_are_like_nothing():
    likeness = glsim.similarity(jnp.zeros((1, 2, 2, 3)), jnp.ones((1, 1, 1, 3)))
    np.testing.assert_array_equal(likeness, np.zeros((1, 2, 2)))
    np.testing.assert_array_equal(glsim.patch_boxes(likeness, 1, (8, 6)), [[0, 4, 0, 3]])
    with pytest.raises(ValueError, match="top=5 of a grid of 2 x 2 patches"):
        glsim.patch_boxes(likeness, 5, (8, 6))


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        ((4,), {}, "feature_map='features.pooled'"),
        ((4, 6), {}, "feature_map='features.pooled'"),
        ((4, 4), {"top": 0}, "top=0 must be at least 1"),
    ],
)
def test_wrong_options_are_refused(channels, options, message):
    with pytest.raises(ValueError, match=message):
        glsim.GlSim(channels, 3, rngs=nnx.Rngs(0), **options)


def test_the_classifier_looks_again_with_the_same_network(monkeypatch):
    monkeypatch.setitem(models.BACKBONES, "small", small_networks.SMALL["vit"])
    changes = {"head": "glsim", "head_options": {"top": 2}, "feature_map": "features+pooled"}
    config = seeded.config("small", **changes)
    params, stats, _ = models.initialise(config, 5, seed=0)
    graphdef = models.evaluation_graphdef(models.abstract(config, 5))
    images = jnp.asarray(seeded.images(2, 48, 64))
    logits, out = models._forward(graphdef, params, stats, images)
    assert out["head/attention"].shape == (2, 3, 4, 1)
    boxes = glsim.patch_boxes(glsim.similarity(out["features"], out["pooled"]), 2, (48, 64))
    np.testing.assert_array_equal(out["head/boxes"], boxes)
    _, again = models._forward(graphdef, params, stats, regions.crop(images, boxes))

    def joined(live):
        tokens = jnp.concatenate([out["pooled"], again["pooled"]], axis=2)[:, 0]
        return live.head.fc(live.head.norm(live.head.block(tokens))[:, 0])

    expected, _ = models.apply(graphdef, params, stats, joined)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(out["pooled"] - again["pooled"]).max() > 1e-3


def test_gradients_at_a_constant_image_are_finite():
    head = glsim.GlSim((4, 4), 3, top=2, rngs=nnx.Rngs(0))
    head = nnx.view(head, deterministic=True)

    def loss(grid, token):
        _, named = head.look((grid, token), (6, 6))
        maps = (grid, token, grid, token)
        return head(maps)[0].sum() + named["attention"].sum()

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    for value in (0.0, 5.0):
        maps = jnp.full((2, 3, 3, 4), value), jnp.full((2, 1, 1, 4), value)
        found = step(*maps)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
