"""Layers: batch statistics, pooling with ties, initial weights, block lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax.models import conv, layers


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.fixture
def norm():
    norm = layers.BatchNorm(4, epsilon=1e-3, momentum=0.8, rngs=nnx.Rngs(0))
    norm.scale[...] = jnp.asarray(normal(4, seed=1))
    norm.bias[...] = jnp.asarray(normal(4, seed=2))
    norm.mean[...] = jnp.asarray(normal(4, seed=3))
    norm.var[...] = jnp.asarray(1 + normal(4, seed=4) ** 2)
    return norm


def test_batch_norm_in_training(norm):
    x = 3 + 2 * normal(3, 5, 4, 4)
    mean, var = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
    y = norm(jnp.asarray(x))
    batch_mean, batch_var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    scale, bias = np.asarray(norm.scale[...]), np.asarray(norm.bias[...])
    expected = (x - batch_mean) / np.sqrt(batch_var + 1e-3) * scale + bias
    np.testing.assert_allclose(y, expected, atol=1e-5)
    unbiased = x.reshape(-1, 4).var(0, ddof=1)
    np.testing.assert_allclose(norm.mean[...], 0.8 * mean + 0.2 * batch_mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.8 * var + 0.2 * unbiased, rtol=1e-5)


def test_batch_norm_in_evaluation(norm):
    x = normal(3, 5, 4, 4)
    mean, var = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
    view = nnx.view(norm, use_running_average=True)
    y = view(jnp.asarray(x))
    scale, bias = np.asarray(norm.scale[...]), np.asarray(norm.bias[...])
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-3) * scale + bias, atol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], mean)
    np.testing.assert_array_equal(norm.var[...], var)
    assert not norm.use_running_average


def test_batch_norm_gradients(norm):
    """Against the derivative written out, through mean and variance (arXiv 1502.03167)."""
    x, g = normal(3, 5, 4, 4), normal(3, 5, 4, 4, seed=5)
    graphdef, params, stats = nnx.split(norm, nnx.Param, nnx.BatchStat)

    def loss(params, x):
        return jnp.sum(nnx.merge(graphdef, params, stats, copy=True)(x) * g)

    grads, dx = jax.grad(loss, (0, 1))(nnx.to_pure_dict(params), jnp.asarray(x))
    deviation = np.sqrt(x.var((0, 1, 2)) + 1e-3)
    unit = (x - x.mean((0, 1, 2))) / deviation
    axes = (0, 1, 2)
    expected = g - g.mean(axes) - unit * (g * unit).mean(axes)
    scale = np.asarray(norm.scale[...])
    np.testing.assert_allclose(dx, scale / deviation * expected, atol=1e-5)
    np.testing.assert_allclose(grads["scale"], (g * unit).sum(axes), rtol=1e-4)
    np.testing.assert_allclose(grads["bias"], g.sum(axes), rtol=1e-4)


def test_batch_norm_of_bfloat16_keeps_float32_statistics():
    norm = layers.BatchNorm(4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    # Mean and variance have no neighbour in bfloat16 that is nearer than 0.3 %.
    x = jnp.tile(jnp.asarray([1.0, 256.0], jnp.bfloat16).reshape(2, 1, 1, 1), (1, 64, 64, 4))
    assert norm(x).dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    np.testing.assert_allclose(norm.mean[...], 0.1 * 128.5 * np.ones(4), rtol=1e-5)
    unbiased = 127.5**2 * x[..., 0].size / (x[..., 0].size - 1)
    np.testing.assert_allclose(norm.var[...], (0.9 + 0.1 * unbiased) * np.ones(4), rtol=1e-5)


def test_batch_norm_of_one_value_is_finite(norm):
    assert np.isfinite(norm(jnp.ones((1, 1, 1, 4)))).all()
    assert np.isfinite(norm.var[...]).all()


def first_maximum(x, g, window, stride, padding):
    """The pooled values and the gradient, position by position in reading order."""
    b, height, width, c = x.shape
    h, w = g.shape[1:3]
    y, dx = np.full(g.shape, -np.inf, np.float32), np.zeros_like(x)
    for n, i, j, k in np.ndindex(b, h, w, c):
        best = None
        for u in range(i * stride - padding, i * stride - padding + window):
            for v in range(j * stride - padding, j * stride - padding + window):
                inside = 0 <= u < height and 0 <= v < width
                if inside and (best is None or x[n, u, v, k] > x[(n, *best, k)]):
                    best = u, v
        y[n, i, j, k] = x[(n, *best, k)]
        dx[(n, *best, k)] += g[n, i, j, k]
    return y, dx


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("window", "stride", "padding", "size"),
    [(3, 2, 1, (8, 8)), (3, 2, 1, (9, 7)), (2, 2, 0, (6, 6)), (2, 2, 0, (7, 5)), (3, 1, 1, (4, 5))],
)
def test_max_pool(plain, window, stride, padding, size):
    # Few different values, many of them equal, as after a ReLU.
    x = np.maximum(np.round(normal(2, *size, 3)), 0)
    h, w = ((n + 2 * padding - window) // stride + 1 for n in size)
    g = normal(2, h, w, 3, seed=1)
    if plain:
        with conv.plain():
            y, transpose = jax.vjp(lambda x: layers.max_pool(x, window, stride, padding), x)
    else:
        y, transpose = jax.vjp(lambda x: layers.max_pool(x, window, stride, padding), x)
    expected_y, expected_dx = first_maximum(x, g, window, stride, padding)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_allclose(transpose(jnp.asarray(g))[0], expected_dx, atol=1e-6)


def test_spatial_max():
    x = normal(2, 3, 4, 5).round()  # with ties
    y, transpose = jax.vjp(layers.spatial_max, x)
    g = normal(*y.shape, seed=1)
    flat, wanted = x.reshape(2, 12, 5), np.zeros((2, 12, 5), np.float32)
    np.testing.assert_array_equal(y, flat.max(1))
    np.put_along_axis(wanted, flat.argmax(1)[:, None], g[:, None], axis=1)
    np.testing.assert_array_equal(transpose(g)[0], wanted.reshape(x.shape))


def test_max_pool_of_bfloat16():
    x = jnp.asarray(normal(1, 6, 6, 2), jnp.bfloat16)
    y, transpose = jax.vjp(lambda x: layers.max_pool(x, 3, 2, 1), x)
    assert y.dtype == transpose(y)[0].dtype == jnp.bfloat16


def test_convolution_layer():
    layer = layers.Conv(8, 16, 3, stride=2, groups=4, use_bias=True, rngs=nnx.Rngs(0))
    assert layer.kernel[...].shape == (3, 3, 2, 16)
    layer.bias[...] = jnp.arange(16.0)
    x = jnp.asarray(normal(2, 5, 5, 8))
    unbiased = conv.conv2d(x, layer.kernel[...], stride=2, padding=1, groups=4)
    np.testing.assert_allclose(layer(x), np.asarray(unbiased) + np.arange(16), atol=1e-5)


def test_convolution_computes_in_its_dtype():
    layer = layers.Conv(4, 6, 3, use_bias=True, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert layer.kernel[...].dtype == layer.bias[...].dtype == jnp.float32
    assert layer(jnp.ones((1, 5, 5, 4))).dtype == jnp.bfloat16


def test_convolution_starts_kaiming_normal_over_the_fan_out():
    kernel = layers.Conv(64, 128, 3, rngs=nnx.Rngs(0)).kernel[...]
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 128)) ** 0.5, rtol=0.02)
    kernel = layers.Conv(512, 512, 3, groups=512, rngs=nnx.Rngs(0)).kernel[...]
    np.testing.assert_allclose(kernel.std(), (2 / 9) ** 0.5, rtol=0.05)


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="groups=3 must divide in_features=8"):
        layers.Conv(8, 9, 3, groups=3, rngs=nnx.Rngs(0))


def test_linear_is_float32():
    layer = layers.Linear(5, 3, rngs=nnx.Rngs(0))
    x = jnp.asarray(normal(2, 4, 5))
    expected = np.asarray(x) @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)
    assert layer(x.astype(jnp.bfloat16)).dtype == jnp.float32


def test_blocks_have_string_keys_and_keep_their_order():
    modules = [layers.Linear(2, 2, rngs=nnx.Rngs(0)) for _ in range(12)]
    blocks = layers.Blocks(module for module in modules)
    assert all(block is module for block, module in zip(blocks, modules, strict=True))
    assert len(blocks) == 12 and blocks[-1] is blocks[11] is modules[11]
    with pytest.raises(IndexError):
        blocks[12]
    state = nnx.to_pure_dict(nnx.state(blocks, nnx.Param))
    assert set(state) == {str(n) for n in range(12)}


def test_layer_norm_equals_its_formula():
    norm = layers.LayerNorm(6, epsilon=1e-3, rngs=nnx.Rngs(0))
    scale, bias, x = normal(6, seed=1), normal(6, seed=2), 5 + normal(3, 4, 6)
    norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * scale + bias
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, atol=1e-5)
    assert layers.LayerNorm(6, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(x).dtype == jnp.bfloat16


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    drop = layers.DropPath(0.25)
    x = jnp.ones((4000, 2, 3))
    y = np.asarray(drop(x, rngs=nnx.Rngs(0)))
    assert set(np.unique(y.min((1, 2)))) == {np.float32(0), np.float32(1 / 0.75)}
    np.testing.assert_array_equal(y.min((1, 2)), y.max((1, 2)))
    assert abs(y.mean() - 1) < 0.03
    assert nnx.view(drop, deterministic=True)(x) is x
    assert layers.DropPath(0.0)(x) is x


def test_drop_rates_rise_linearly_over_all_stages():
    assert layers.drop_rates(0.3, (1, 3)) == ((0.0,), pytest.approx((0.1, 0.2, 0.3)))
    assert layers.drop_rates(0.0, (2,)) == ((0.0, 0.0),)


def test_a_convolution_may_be_higher_than_wide():
    tall = layers.Conv(3, 5, (7, 1), rngs=nnx.Rngs(0))
    assert tall.kernel.shape == (7, 1, 3, 5)
    x = jnp.asarray(normal(2, 9, 8, 3))
    y = tall(x)
    assert y.shape == (2, 9, 8, 5)
    kernel = np.asarray(tall.kernel[...])[:, 0]
    column = np.pad(np.asarray(x)[0, :, 4], ((3, 3), (0, 0)))
    expected = sum(column[i : i + 9] @ kernel[i] for i in range(7))
    np.testing.assert_allclose(y[0, :, 4], expected, atol=1e-5)
