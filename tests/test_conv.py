"""Every form of the convolution gives the sums and gradients of lax.conv_general_dilated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax.models import conv, conv_forms

DENSE, GROUPED, DEPTHWISE = (6, 10, 1), (64, 96, 32), (8, 8, 8)
MULTIPLIED = (4, 8, 4)  # two outputs a channel

CASES = [
    # kernel size, stride, padding, (channels in, channels out, groups), (height, width)
    (1, 1, 0, DENSE, (5, 4)),
    (1, 2, 0, DENSE, (5, 4)),
    (1, 2, "SAME", DENSE, (6, 7)),
    (1, 1, 1, DENSE, (5, 4)),
    (3, 1, 1, DENSE, (6, 5)),
    (3, 1, 0, DENSE, (6, 5)),
    (3, 2, 1, DENSE, (9, 8)),
    (3, 2, "SAME", DENSE, (9, 8)),
    (3, 3, 1, DENSE, (10, 11)),
    (2, 3, 0, DENSE, (9, 8)),
    (2, 2, 0, DENSE, (8, 6)),
    (2, 2, 0, DENSE, (9, 7)),
    (4, 4, 0, (3, 10, 1), (12, 11)),
    (5, 1, "SAME", DENSE, (7, 6)),
    (5, 2, 2, DENSE, (10, 11)),
    (7, 2, 3, (3, 10, 1), (15, 12)),
    (7, 1, 0, DENSE, (7, 7)),
    (3, 1, 1, GROUPED, (5, 6)),
    (3, 2, 1, GROUPED, (7, 6)),
    (5, 2, "SAME", GROUPED, (7, 6)),
    (1, 1, 0, GROUPED, (3, 4)),
    (3, 1, 1, MULTIPLIED, (5, 6)),
    (3, 1, 1, DEPTHWISE, (6, 5)),
    (3, 2, "SAME", DEPTHWISE, (9, 8)),
    (3, 2, 1, DEPTHWISE, (37, 8)),
    (5, 1, 2, DEPTHWISE, (5, 5)),
    (5, 2, "SAME", DEPTHWISE, (10, 11)),
    (7, 1, 3, DEPTHWISE, (6, 7)),
    (3, 3, 0, DEPTHWISE, (11, 10)),
    (1, 1, 0, DEPTHWISE, (3, 4)),
]


def arrays(size, kernel_size, channels, dtype=jnp.float32, batch=3):
    features_in, features_out, groups = channels
    random = np.random.default_rng(0)
    x = random.standard_normal((batch, *size, features_in), np.float32)
    shape = (kernel_size, kernel_size, features_in // groups, features_out)
    kernel = random.standard_normal(shape, np.float32)
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def with_gradients(x, kernel, **options):
    """The output and both gradients for an upstream gradient that differs everywhere."""
    y, transpose = jax.vjp(lambda x, kernel: conv.conv2d(x, kernel, **options), x, kernel)
    upstream = jnp.sin(1 + jnp.arange(y.size)).reshape(y.shape).astype(y.dtype)
    return y, *transpose(upstream)


def both(x, kernel, **options):
    """(ours, lax.conv), each with gradients, compiled as one program."""

    def run(x, kernel):
        ours = with_gradients(x, kernel, **options)
        with conv.plain():
            return ours, with_gradients(x, kernel, **options)

    return jax.jit(run)(x, kernel)


def assert_close(ours, expected, tolerance=1e-5):
    for ours_array, array in zip(ours, expected, strict=True):
        assert ours_array.shape == array.shape and ours_array.dtype == array.dtype
        ours_array, array = np.asarray(ours_array, np.float64), np.asarray(array, np.float64)
        np.testing.assert_allclose(ours_array, array, atol=tolerance * np.abs(array).max(), rtol=0)


@pytest.mark.parametrize(("kernel_size", "stride", "padding", "channels", "size"), CASES)
def test_equals_lax_conv(kernel_size, stride, padding, channels, size):
    x, kernel = arrays(size, kernel_size, channels)
    assert_close(*both(x, kernel, stride=stride, padding=padding, groups=channels[2]))


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, "SAME")])
def test_weight_gradient_of_large_arrays(monkeypatch, stride, padding):
    monkeypatch.setattr(conv_forms, "_CACHED", 0)
    x, kernel = arrays((9, 8), 3, DENSE)
    assert_close(*both(x, kernel, stride=stride, padding=padding))


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (7, 1), (7, 2)])
def test_depthwise_in_chunks(monkeypatch, kernel_size, stride):
    x, kernel = arrays((9, 8), kernel_size, DEPTHWISE, batch=6)
    monkeypatch.setattr(conv_forms, "_CHUNK", x.size // 3)
    assert_close(*both(x, kernel, stride=stride, padding=kernel_size // 2, groups=8))


@pytest.mark.parametrize("channels", [DENSE, GROUPED, DEPTHWISE])
def test_bfloat16(channels):
    x, kernel = arrays((6, 5), 3, channels, jnp.bfloat16)
    options = {"stride": 1, "padding": 1, "groups": channels[2]}
    ours, expected = both(x, kernel, **options)
    assert all(array.dtype == jnp.bfloat16 for array in ours)
    assert_close(ours, expected, tolerance=2**-7)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_bfloat16_is_summed_in_float32(kernel_size):
    x = jnp.ones((1, kernel_size, kernel_size, 4096 // kernel_size), jnp.bfloat16)
    kernel = jnp.ones((kernel_size, kernel_size, x.shape[-1], 2), jnp.bfloat16)
    # A sum kept in bfloat16, whose integers end at 256, would stop there.
    y = conv.conv2d(x, kernel, padding=0)
    np.testing.assert_allclose(np.asarray(y, np.float32), x.size, rtol=2**-8)


@pytest.mark.parametrize(("size", "top", "bottom"), [(8, 0, 1), (9, 1, 1)])
def test_same_puts_the_odd_row_last(size, top, bottom):
    x, kernel = arrays((size, size), 3, DEPTHWISE)
    padded = jnp.pad(x, ((0, 0), (top, bottom), (top, bottom), (0, 0)))
    ours = conv.conv2d(x, kernel, stride=2, padding="SAME", groups=8)
    expected = conv.conv2d(padded, kernel, stride=2, padding=0, groups=8)
    assert ours.shape[1:3] == (-(-size // 2),) * 2
    assert_close([ours], [expected])


@pytest.mark.parametrize("channels", [DENSE, DEPTHWISE])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_second_derivatives(channels, kernel_size):
    x, kernel = arrays((5, 4), kernel_size, channels)

    def penalty(x, kernel):
        def loss(x, kernel):
            y = conv.conv2d(x, kernel, stride=2, padding=kernel_size // 2, groups=channels[2])
            return jnp.sum(jnp.tanh(y))

        return sum(jnp.sum(jnp.square(part)) for part in jax.grad(loss, (0, 1))(x, kernel))

    ours = jax.jit(jax.grad(penalty, (0, 1)))(x, kernel)
    with conv.plain():
        expected = jax.jit(lambda x, kernel: jax.grad(penalty, (0, 1))(x, kernel))(x, kernel)
    assert_close(ours, expected)


def test_plain_is_the_platforms_convolution():
    x, kernel = arrays((6, 5), 3, DEPTHWISE)

    def primitives():
        program = jax.make_jaxpr(lambda x: conv.conv2d(x, kernel, padding=1, groups=8))(x)
        return "conv_general_dilated" in str(program)

    assert not primitives()
    with pytest.raises(RuntimeError, match="stop"), conv.plain():
        assert conv.is_plain() and primitives()
        raise RuntimeError("stop")
    assert not conv.is_plain() and not primitives()


def test_other_platforms_take_the_plain_form(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert conv.is_plain()


def test_bad_shapes_are_named():
    x, kernel = arrays((4, 4), 3, DENSE)
    with pytest.raises(ValueError, match=r"takes 12 channels.*\(3, 4, 4, 6\)"):
        conv.conv2d(x, kernel, padding=1, groups=2)
    with pytest.raises(ValueError, match="'VALID'"):
        conv.conv2d(x, kernel, padding="VALID")
