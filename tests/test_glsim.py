"""GLSim: the second look at the patches that are most like the image."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import models
from fgc_jax.models import regions
from fgc_jax.models.classifier import Classifier
from fgc_jax.models.heads import glsim
from tests import networks, seeded, slopes, small_networks
from tests.by_hand import resized
from tests.test_parts import numpy_block


def box_by_hand(grid, token, top, size):
    """(box, cosine of each patch) of the patches [h, w, C] of an image."""
    h, w, _ = grid.shape
    cosines = {
        (row, column): grid[row, column] @ token / np.linalg.norm(grid[row, column])
        for row in range(h)
        for column in range(w)
    }
    rows, columns = zip(*sorted(cosines, key=cosines.get)[-top:], strict=True)
    edges = []
    for cells, count, side in ((rows, h, size[0]), (columns, w, size[1])):
        edges.append(math.floor(min(cells) * side / count))
        edges.append(math.ceil((max(cells) + 1) * side / count))
    return edges, np.array([*cosines.values()]).reshape(h, w) / np.linalg.norm(token)


def test_boxes_hold_the_patches_most_like_the_class_token():
    rng = np.random.default_rng(0)
    grid, token = rng.normal(size=(3, 4, 5, 6)), rng.normal(size=(3, 1, 1, 6))
    likeness = glsim.similarity(jnp.float32(grid), jnp.float32(token))
    boxes = glsim.patch_boxes(likeness, 3, (32, 41))
    for image in range(3):
        box, cosines = box_by_hand(grid[image], token[image, 0, 0], 3, (32, 41))
        networks.assert_near(likeness[image], cosines)
        np.testing.assert_array_equal(boxes[image], box)


def test_one_patch_is_a_box_and_zeros_are_like_nothing():
    likeness = glsim.similarity(jnp.zeros((1, 2, 2, 3)), jnp.ones((1, 1, 1, 3)))
    np.testing.assert_array_equal(likeness, np.zeros((1, 2, 2)))
    np.testing.assert_array_equal(glsim.patch_boxes(likeness, 1, (8, 6)), [[0, 4, 0, 3]])
    with pytest.raises(ValueError, match="top=5 is more than the 2 x 2 patches"):
        glsim.patch_boxes(likeness, 5, (8, 6))


def test_the_classifier_looks_again_with_the_same_network(monkeypatch):
    monkeypatch.setitem(models.BACKBONES, "small", small_networks.SMALL["vit"])
    changes = {"head": "glsim", "head_options": {"top": 2}, "feature_map": "features+pooled"}
    config = seeded.config("small", **changes)
    params, stats, _ = models.initialise(config, 5, seed=0)
    graphdef = models.evaluation_graphdef(models.abstract(config, 5))
    images = jnp.asarray(seeded.images(2, 48, 64))
    logits, out = models.forward(graphdef, params, stats, images)
    assert out["head/attention"].shape == (2, 3, 4, 1)
    boxes = glsim.patch_boxes(glsim.similarity(out["features"], out["pooled"]), 2, (48, 64))
    np.testing.assert_array_equal(out["head/boxes"], boxes)
    _, again = models.forward(graphdef, params, stats, regions.crop(images, boxes))

    def joined(live):
        tokens = jnp.concatenate([out["pooled"], again["pooled"]], axis=2)[:, 0]
        return live.head.fc(live.head.norm(live.head.block(tokens))[:, 0])

    expected, _ = models.apply(graphdef, params, stats, joined)
    networks.assert_near(logits, expected)
    assert np.abs(out["pooled"] - again["pooled"]).max() > 1e-3


def linear_patches(images, kernel):
    """(features [B, h / 2, w / 2, C], their means [B, 1, 1, C]) of images [B, h, w, 3]."""
    b, h, w, c = images.shape
    x = images.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3)
    x = x.reshape(b, h // 2, w // 2, -1) @ kernel
    return x, x.mean((1, 2), keepdims=True)


class LinearPatches(nnx.Module):
    def __init__(self):
        self.kernel = nnx.Param(jnp.zeros((12, 4)))

    def __call__(self, images, *, rngs=None):
        return dict(
            zip(("features", "pooled"), linear_patches(images, self.kernel[...]), strict=True)
        )


def test_both_looks_train_the_network():
    """The gradients of the logits are those of a formula, for backbone and head."""
    head = glsim.GlSim((4, 4), 3, top=2, rngs=nnx.Rngs(0))
    model = Classifier(LinearPatches(), head, feature_maps=(("features", "pooled"),))
    graphdef, (weights, stats) = models.evaluation_graphdef(model), models.split(model)
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape), weights)
    images = seeded.images(2, 8, 12)
    seen = []

    def computed(weights):
        logits, _ = models.apply(graphdef, weights, stats, lambda live: live(images)[0])
        return logits.ravel()

    def reference(weights):
        grid, whole = linear_patches(np.float64(images), weights["backbone"]["kernel"])
        crops = []
        for image, patches, token in zip(images, grid, whole[:, 0, 0], strict=True):
            (top, bottom, left, right), _ = box_by_hand(patches, token, 2, (8, 12))
            seen.append((bottom - top) * (right - left))
            crops.append(resized(np.float64(image[top:bottom, left:right]), 8, 12))
        _, part = linear_patches(np.stack(crops), weights["backbone"]["kernel"])
        block, norm, fc = (weights["head"][name] for name in ("block", "norm", "fc"))
        x, _ = numpy_block(block, np.concatenate([whole, part], axis=2)[:, 0], heads=1)
        x = x[:, 0] - x[:, 0].mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]
        return (x @ fc["kernel"] + fc["bias"]).ravel()

    slopes.assert_those_of(reference, computed, weights)
    assert max(seen) < 8 * 12
