import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import models
from fgc_jax.convert import timm
from fgc_jax.models import pretrained
from fgc_jax.models.backbones import resnetv2
from tests import networks, seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_the_weights_of_a_standardised_convolution_have_no_mean_and_no_scale():
    one, other = (
        resnetv2.StandardisedConv(3, 8, 3, dtype=jnp.float32, rngs=nnx.Rngs(0)) for _ in range(2)
    )
    other.kernel = nnx.Param(5 * one.kernel[...] + 2)
    x = jnp.asarray(seeded.images(2, 9, 7))
    networks.assert_near(other(x), one(x))
    assert one(x).std() > 1  # The kernel is not scaled down by its fan in.


def test_group_norm_is_per_image_and_group():
    norm = resnetv2.GroupNorm(64, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(3, 2, (2, 5, 4, 64)).astype(np.float32)
    grouped = np.float64(x).reshape(2, 20, 32, 2)
    mean, variance = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    expected = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    networks.assert_near(norm(jnp.asarray(x)), expected)


def test_weights_are_standardised_in_float32_under_bfloat16():
    conv = resnetv2.StandardisedConv(64, 8, 1, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    # Bfloat16 holds nothing of the differences between these weights.
    conv.kernel = nnx.Param(100 + 1e-3 * jax.random.normal(jax.random.key(0), (1, 1, 64, 8)))
    y = conv(jnp.ones((1, 1, 1, 64)).at[..., ::2].set(-1))
    assert y.dtype == jnp.bfloat16
    assert jnp.abs(y).max() > 1


def test_the_head_goes_to_timms_convolution_and_back():
    row = models.BACKBONES["resnetv2_50x1_bit"]
    pairs = pretrained.original_names(row)
    params = {"head": {"fc": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.zeros(3)}}}
    state = timm.to_state_dict(params, {}, pairs)
    shapes = {key: x.shape for key, x in state.items()}
    assert shapes == {"head.fc.weight": (3, 2, 1, 1), "head.fc.bias": (3,)}
    back, _ = timm.fill(params, {}, state, pairs)
    np.testing.assert_array_equal(back["head"]["fc"]["kernel"], params["head"]["fc"]["kernel"])
