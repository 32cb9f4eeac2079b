"""Common parts of transformers: scaled dot-product attention, its weights, the MLP, exact GELU.

Paper: Attention Is All You Need (arXiv 1706.03762). Tokens are [..., T, C].
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from fgc_jax.models import conv, layers, position


def attend(q, k, v, bias=None):
    """softmax(q k^T / sqrt(d) + bias) v: q, k, v [..., T, heads, d] -> the same.

    bias broadcasts against [..., heads, T, T]. The softmax is in float32, the result in v's dtype.
    """
    return _platform_attend(q, k, v, bias) if conv.is_plain() else _attend(q, k, v, bias)


def _platform_attend(q, k, v, bias):
    flat = [x.reshape(-1, *x.shape[-3:]) for x in (q, k, v)]
    if bias is not None:
        t, heads = q.shape[-3:-1]
        bias = _broadcast(bias, (*q.shape[:-3], heads, t, t)).reshape(-1, heads, t, t)
    return jax.nn.dot_product_attention(*flat, bias=bias).reshape(v.shape)


@jax.custom_vjp
def _attend(q, k, v, bias):
    return _attend_forward(q, k, v, bias)[0]


# XLA:CPU takes up to twice as long for the products in the axis order of
# jax.nn.dot_product_attention. This gradient rule stores a quarter less for the backward pass than
# automatic differentiation.
def _attend_forward(q, k, v, bias):
    p = attention_weights(q, k, bias)
    y = jnp.einsum("...hqk,...hkd->...hqd", p.astype(v.dtype), v.swapaxes(-3, -2))
    y = y.swapaxes(-3, -2)
    return y, (q, k, v, bias, p, y)


def _attend_backward(residuals, g):
    q, k, v, bias, p, y = residuals
    q, k, v, y, g = (x.swapaxes(-3, -2) for x in (q, k, v, y, g))
    dv = jnp.einsum("...hqk,...hqd->...hkd", p.astype(g.dtype), g)
    dp = jnp.einsum("...hqd,...hkd->...hqk", g, v, preferred_element_type=jnp.float32)
    # The sum of p dp of the softmax's gradient, from shorter rows.
    inner = jnp.einsum("...qd,...qd->...q", g, y, preferred_element_type=jnp.float32)
    ds = p * (dp - inner[..., None])
    dbias = None
    if bias is not None:
        wide = functools.partial(_broadcast, shape=ds.shape)
        (dbias,) = jax.linear_transpose(wide, bias.astype(ds.dtype))(ds)
        dbias = dbias.astype(bias.dtype)
    ds = (ds * q.shape[-1] ** -0.5).astype(q.dtype)
    dq = jnp.einsum("...hqk,...hkd->...hqd", ds, k)
    dk = jnp.einsum("...hqk,...hqd->...hkd", ds, q)
    return *(x.swapaxes(-3, -2) for x in (dq, dk, dv)), dbias


_attend.defvjp(_attend_forward, _attend_backward)


def _broadcast(x, shape):
    return jnp.broadcast_to(x.reshape((1,) * (len(shape) - x.ndim) + x.shape), shape)


def attention_weights(q, k, bias=None):
    """softmax(q k^T / sqrt(d) + bias): q, k [..., T, heads, d] -> float32 [..., heads, T, T]."""
    q, k = q.swapaxes(-3, -2), k.swapaxes(-3, -2)
    scores = jnp.einsum("...hqd,...hkd->...hqk", q, k, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + _broadcast(bias.astype(jnp.float32), scores.shape)
    return jax.nn.softmax(scores, axis=-1)


def split_heads(qkv, heads):
    """The fused projection [..., T, 3 C] as q, k and v, each [..., T, heads, C / heads]."""
    qkv = qkv.reshape(*qkv.shape[:-1], 3, heads, -1)
    return qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]


def merge_heads(x):
    """[..., T, heads, d] -> [..., T, heads d]."""
    return x.reshape(*x.shape[:-2], -1)


@jax.custom_vjp
def gelu(x):
    """x Phi(x) with the error function, not the tanh approximation; computed in float32.

    Paper: Gaussian Error Linear Units (arXiv 1606.08415).
    """
    # On CPU 1.5 times as fast as jax.nn.gelu, whose erfc has more digits where x Phi(x) is tiny.
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * (1 + lax.erf(x32 * 0.5**0.5))).astype(x.dtype)


def _gelu_forward(x):
    return gelu(x), x


def _gelu_backward(x, g):
    # Automatic differentiation would store two more arrays of x's size for each layer. XLA would
    # too, if it recognised the erf of the forward pass: hence the other sign.
    x32 = x.astype(jnp.float32)
    below = 0.5 * (1 - lax.erf(x32 * -(0.5**0.5)))
    density = jnp.exp(-0.5 * x32 * x32) * (2 * jnp.pi) ** -0.5
    return ((g.astype(jnp.float32) * (below + x32 * density)).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def linear(in_features, out_features, *, use_bias=True, std=0.02, dtype, rngs):
    """A layers.Linear whose initial kernel is normal with the deviation `std`, as in timm."""
    layer = layers.Linear(in_features, out_features, use_bias=use_bias, dtype=dtype, rngs=rngs)
    shape = (in_features, out_features)
    layer.kernel = nnx.Param(std * jax.random.normal(rngs.params(), shape))
    return layer


class Mlp(nnx.Module):
    """Linear, GELU, linear: [..., C] -> [..., C], with `hidden` units between.

    std: deviation of the initial second kernel.
    """

    def __init__(self, features, hidden, *, std=0.02, dtype, rngs):
        self.fc1 = linear(features, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = linear(hidden, features, std=std, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.fc2(gelu(self.fc1(x)))


class Attention(nnx.Module):
    """Self-attention of tokens [..., T, C] with `heads` heads.

    std: deviation of the initial last kernel. Queries and keys are rotated by `turn` (see
    `position.rotation`) if there is one.
    """

    def __init__(self, features, heads, *, qkv_bias=True, std=0.02, dtype, rngs):
        self.qkv = linear(features, 3 * features, use_bias=qkv_bias, dtype=dtype, rngs=rngs)
        self.proj = linear(features, features, std=std, dtype=dtype, rngs=rngs)
        self.heads = heads

    def __call__(self, x, turn=None):
        return self.proj(merge_heads(attend(*self._split(x, turn))))

    def weights(self, x, turn=None):
        """Float32 [..., heads, T, T]: how much each token (row) takes from each token (column)."""
        q, k, _ = self._split(x, turn)
        return attention_weights(q, k)

    def _split(self, x, turn):
        q, k, v = split_heads(self.qkv(x), self.heads)
        if turn is not None:
            q, k = position.rotate(q, turn), position.rotate(k, turn)
        return q, k, v
