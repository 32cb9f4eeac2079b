import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import numpy as safetensors

from fgc_jax import models
from fgc_jax.convert import timm
from fgc_jax.models import layers, pretrained
from fgc_jax.models.backbones import inception
from tests import networks, seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_grids_are_those_of_convolutions_without_padding():
    _, out = networks.shapes(seeded.config("inception_v3"), 5, 299, 203)
    assert {key: x.shape[1:] for key, x in out.items()} == {
        "stem": (147, 99, 64),
        "stage1": (71, 47, 192),
        "stage2": (35, 23, 288),
        "stage3": (17, 11, 768),
        "stage4": (8, 5, 2048),
        "features": (8, 5, 2048),
    }


def windows(x):
    """NaN around x [H, W], cut into its 3x3 windows: [H, W, 9]."""
    x = np.pad(x, 1, constant_values=np.nan)
    view = np.lib.stride_tricks.sliding_window_view(x, (3, 3))
    return view.reshape(*view.shape[:2], 9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 3), (5, 4)])
def test_means_of_neighbours_and_their_gradients(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    g = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    inside = ~np.isnan(windows(x))
    for only_inside in (False, True):
        count = inside.sum(-1) if only_inside else 9
        pool = functools.partial(inception._mean, inside=only_inside)
        mean, transpose = jax.vjp(pool, x[None, :, :, None])
        np.testing.assert_allclose(
            mean[0, :, :, 0], np.nansum(windows(x), -1) / count, rtol=1e-5, atol=1e-6
        )
        back = np.nansum(windows(g / count), -1)
        (dx,) = transpose(g[None, :, :, None])
        np.testing.assert_allclose(dx[0, :, :, 0], back, rtol=1e-5, atol=1e-6)


def test_the_pooled_branch_is_convolved_before_the_mean_or_after_the_maximum():
    """The order that the paper has and the one that is computed give the same numbers."""
    x = jnp.asarray(seeded.images(2, 9, 7))
    options = {"width": 8, "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    for pooling in ("mean", "mean_inside", "max"):
        block = inception.Mixed(3, {}, pooling, **options)
        if pooling == "max":
            pooled = layers.max_pool(x, 3, 1, 1)
        else:
            pooled = inception._mean(x, pooling == "mean_inside")
        expected = block.branch_pool(pooled)
        np.testing.assert_allclose(block(x), expected, rtol=1e-4, atol=1e-4)


def test_the_auxiliary_classifier_of_a_file_is_left_out_and_reported(tmp_path):
    config, params, stats = seeded.trees("inception_v3", 3)
    pairs = pretrained.original_names(models.BACKBONES["inception_v3"])
    state = timm.to_state_dict(params, stats, pairs)
    state |= {"AuxLogits.conv0.conv.weight": np.zeros((2, 2, 1, 1), np.float32)}
    path = tmp_path / "inception.safetensors"
    safetensors.save_file(state, path)
    loaded = models.load("inception_v3", str(path))
    assert loaded.num_classes == 3
    assert "left out on purpose: AuxLogits" in loaded.report
    with pytest.raises(ValueError, match=r"without a place in the model: AuxLogit\.conv"):
        safetensors.save_file(state | {"AuxLogit.conv": np.zeros(1, np.float32)}, path)
        models.load("inception_v3", str(path))
