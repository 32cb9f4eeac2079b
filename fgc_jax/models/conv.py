"""Two-dimensional convolution in a form that is fast on the current platform.

XLA:CPU takes 20 to 70 times longer than necessary for the gradients of depthwise and grouped
convolutions, and several times longer for some other gradients. On CPUs `conv2d` therefore defines
the forward sum and both gradients itself, in one of several forms; `_form` chooses it by shape.
On other platforms, and inside `plain()`, it is `lax.conv_general_dilated`. Results are equal up to
the rounding of float32 sums.

Limits of the CPU forms: they are reverse-mode rules (`jax.custom_vjp`), so `jax.jvp` and
`jax.linearize` do not work and `jax.hessian` must be reverse over reverse; kernel sizes and padding
are static; there is no dilation. Derivatives of any order by reverse mode are correct, but only
the first is fast.
"""

import contextlib
import contextvars
import functools

import jax
import jax.numpy as jnp
from jax import lax

from fgc_jax.models import conv_forms

_PLAIN = contextvars.ContextVar("plain", default=False)

# Channels in one block of a grouped convolution: two vectors of 16 float32, the least that keeps
# the multiply-add units busy. Wider blocks multiply more zeros.
_BLOCK = 32
# Blocks of one convolution, each compiled by itself: more would only lengthen compilation.
_BLOCKS = 16


@contextlib.contextmanager
def plain():
    """A context in which `conv2d` is traced as XLA's own convolution (for tests, FLOPs, export).

    The choice is made at trace time: a jitted function that was traced before keeps its form.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def is_plain():
    """Whether convolutions and poolings that are traced now use XLA's own form."""
    return _PLAIN.get() or jax.default_backend() != "cpu"


def conv2d(x, kernel, *, stride=1, padding, groups=1):
    """Convolves x [B, H, W, Cin] with kernel [kh, kw, Cin / groups, Cout] to [B, h, w, Cout].

    padding is an int, the same on every side, (rows, columns), or "SAME": TensorFlow's rule,
    h = ceil(H / stride), with the odd row or column at the bottom right. The result has x's
    dtype; bfloat16 inputs are summed in float32. Raises ValueError if the channels do not fit the
    groups.
    """
    if x.shape[-1] != kernel.shape[2] * groups or kernel.shape[3] % groups:
        raise ValueError(
            f"a kernel of shape {kernel.shape} in {groups} groups takes "
            f"{kernel.shape[2] * groups} channels and gives a multiple of {groups}; "
            f"x has shape {x.shape}"
        )
    pads = _pads(x.shape, kernel.shape, stride, padding)
    if is_plain():
        return conv_forms.lax_conv(x, kernel, stride, pads, groups)
    y = _on_cpu(x.astype(jnp.float32), kernel.astype(jnp.float32), stride, pads, groups)
    return y.astype(x.dtype)


def _pads(shape, kernel_shape, stride, padding):
    if padding == "SAME":
        pads = lax.padtype_to_pads(shape[1:3], kernel_shape[:2], (stride, stride), "SAME")
        return tuple((int(low), int(high)) for low, high in pads)
    if isinstance(padding, str):
        raise ValueError(f"padding is an int, (rows, columns) or 'SAME', not {padding!r}")
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    return ((rows, rows), (columns, columns))


def _on_cpu(x, kernel, stride, pads, groups):
    if groups > 1 and kernel.shape[2:] != (1, groups):
        return _grouped(x, kernel, stride, pads, groups)
    if groups == 1 and kernel.shape[:2] == x.shape[1:3] and pads == ((0, 0), (0, 0)):
        # The kernel covers all of x (VGG's first fully connected layer): one matrix product.
        x, kernel = x.reshape(len(x), 1, 1, -1), kernel.reshape(1, 1, -1, kernel.shape[3])
    elif groups == 1 and kernel.shape[:2] == (stride, stride) and pads == ((0, 0), (0, 0)):
        # No two windows overlap: one matrix product of patches.
        x, kernel = _patches(x, stride), kernel.reshape(1, 1, -1, kernel.shape[3])
        stride = 1
    return _convolve(x, kernel, _form(kernel.shape, pads, groups), stride, pads)


def _patches(x, size):
    """[B, H, W, C] -> [B, H // size, W // size, size * size * C]."""
    b, h, w, c = x.shape
    h, w = h // size, w // size
    x = x[:, : h * size, : w * size].reshape(b, h, size, w, size, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, size * size * c)


def _form(kernel_shape, pads, groups):
    """The rule: one channel a group, a matrix product, or the general case."""
    if groups > 1:
        return conv_forms.DEPTHWISE
    if kernel_shape[:2] == (1, 1) and pads == ((0, 0), (0, 0)):
        return conv_forms.POINTWISE
    return conv_forms.DENSE


def _grouped(x, kernel, stride, pads, groups):
    """Joins neighbouring groups into dense blocks, with zeros between the groups."""
    height, width, features_in, features_out = kernel.shape
    features_out //= groups
    widest = max(_BLOCK, features_in, features_in * groups // _BLOCKS)
    joined = max(n for n in range(1, groups + 1) if groups % n == 0 and n * features_in <= widest)
    blocks = groups // joined
    split = kernel.reshape(height, width, features_in, blocks, joined, features_out)
    dense = jnp.einsum("hwibjo,jk->bhwkijo", split, jnp.eye(joined))
    dense = dense.reshape(blocks, height, width, joined * features_in, joined * features_out)
    outputs = [
        _on_cpu(part, weights[0], stride, pads, 1)
        for part, weights in zip(
            jnp.split(x, blocks, axis=-1), jnp.split(dense, blocks), strict=True
        )
    ]
    return jnp.concatenate(outputs, axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, form, stride, pads):
    return form.forward(x, kernel, stride, pads)


def _convolve_forward(x, kernel, form, stride, pads):
    return form.forward(x, kernel, stride, pads), (x, kernel)


def _convolve_backward(form, stride, pads, residuals, g):
    x, kernel = residuals
    return (
        form.input_gradient(g, kernel, x.shape, stride, pads),
        form.kernel_gradient(x, g, kernel.shape, stride, pads),
    )


_convolve.defvjp(_convolve_forward, _convolve_backward)
