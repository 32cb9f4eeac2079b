import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from fgc_jax.models import attention, conv

SHAPE = (2, 5, 7, 3, 8)  # Images, windows, tokens, heads, channels of a head.


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def reference(q, k, v, bias):
    """What PyTorch's scaled_dot_product_attention is stated to compute, in double."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = np.einsum("...qhd,...khd->...hqk", q, k) / np.sqrt(q.shape[-1])
    p = special.softmax(scores if bias is None else scores + np.asarray(bias), axis=-1)
    return np.einsum("...hqk,...khd->...qhd", p, v)


BIASES = {"none": None, "head": (3, 7, 7), "window": (5, 3, 7, 7), "one": (5, 1, 7, 1)}


@pytest.mark.parametrize("shape", BIASES.values(), ids=BIASES)
def test_both_forms_are_attention_and_have_its_gradients(shape):
    q, k, v = draw(3, *SHAPE)
    bias = None if shape is None else draw(*shape, seed=1)
    expected = reference(q, k, v, bias)
    slopes = []
    for form in (attention._attend, attention._platform_attend):
        np.testing.assert_allclose(form(q, k, v, bias), expected, atol=2e-6)
        wanted = (0, 1, 2) if bias is None else (0, 1, 2, 3)
        slope = jax.grad(lambda *x, form=form: jnp.sin(form(*x)).sum(), wanted)
        slopes.append(slope(q, k, v, bias))
    for mine, theirs in zip(*slopes, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_the_platform_chooses_the_form():
    q, k, v = draw(3, *SHAPE)

    def program():
        # Not the function itself, whose trace would be kept.
        return str(jax.make_jaxpr(lambda *x: attention.attend(*x))(q, k, v))

    own = program()
    with conv.plain():
        assert "custom_vjp" not in program()
    assert "custom_vjp" in own


def test_the_weights_are_float32_and_sum_to_one():
    q, k = draw(2, *SHAPE).astype(jnp.bfloat16)
    p = attention.attention_weights(q, k)
    assert (p.shape, p.dtype) == ((2, 5, 3, 7, 7), jnp.float32)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)


def test_bfloat16_keeps_its_dtype_and_the_softmax_its_digits():
    q, k, v = draw(3, *SHAPE).astype(jnp.bfloat16)
    y, pull = jax.vjp(attention._attend, q, k, v, None)
    assert y.dtype == jnp.bfloat16
    assert all(x.dtype == jnp.bfloat16 for x in pull(y)[:3])
    np.testing.assert_allclose(y.astype(jnp.float32), reference(q, k, v, None), atol=0.02)


def test_heads_are_split_as_the_fused_projection_has_them():
    qkv = draw(2, 7, 3 * 24)
    q, k, v = attention.split_heads(qkv, 3)
    np.testing.assert_array_equal(k[:, :, 1], qkv[:, :, 24 + 8 : 24 + 16])
    np.testing.assert_array_equal(attention.merge_heads(v), qkv[:, :, 48:])
    assert q.shape == (2, 7, 3, 8)


def test_gelu_is_exact_with_its_gradient():
    x = np.linspace(-12, 12, 4001)
    phi = 0.5 * (1 + special.erf(x / np.sqrt(2)))
    slope = phi + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    x32 = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(attention.gelu(x32), x * phi, atol=2e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(attention.gelu))(x32), slope, atol=2e-6)
    assert attention.gelu(x32.astype(jnp.bfloat16)).dtype == jnp.bfloat16
