"""The forms of a convolution on CPU: each defines the forward sum and both gradients.

Arrays are float32, [B, H, W, C], kernels [kh, kw, Cin, Cout] without groups or [kh, kw, 1, C]
depthwise; pads is ((top, bottom), (left, right)). `conv` chooses among them by shape.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")

# Bytes of the upstream gradient up to which the weight gradient is a convolution with this array as
# its kernel; a larger array does not stay in the cache between the k * k reads.
_CACHED = 16 * 2**20
# Rows that one expression adds up in the weight gradient of a depthwise convolution.
_FOLD = 16
# Numbers of the input that it reads at a time (2 MiB).
_CHUNK = 2**19
# Taps of a depthwise convolution above which sum and input gradient are computed in chunks too. If
# XLA:CPU fuses them with neighbours such as a layer norm, it may store the window of every tap.
_TAPS = 25


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to compute a convolution of float32 arrays and its two gradients."""

    forward: Callable  # (x, kernel, stride, pads) -> y
    input_gradient: Callable  # (g, kernel, shape of x, stride, pads) -> gradient of x
    kernel_gradient: Callable  # (x, g, shape of kernel, stride, pads) -> gradient of kernel


def taps(phase, kernel_size, stride, before):
    """Pairs (i, shift): tap i connects output u + shift to input stride * u + phase.

    before is the padding before the axis. The shift decreases by one from pair to pair.
    """
    return [
        (i, (phase + before - i) // stride)
        for i in range(kernel_size)
        if (phase + before - i) % stride == 0
    ]


def window(x, row, column, stride, height, width):
    """x[:, row::stride, column::stride], limited to [B, height, width, C]."""
    b, _, _, c = x.shape
    stop = (b, row + (height - 1) * stride + 1, column + (width - 1) * stride + 1, c)
    return lax.slice(x, (0, row, column, 0), stop, (1, stride, stride, 1))


def interleave(phases, stride, height, width):
    """Joins stride * stride arrays [B, h, w, C]: phases[a][b] holds rows a::stride, columns b::.

    The result is limited to [B, height, width, C].
    """
    if stride == 1:
        return phases[0][0][:, :height, :width]
    b, h, w, c = phases[0][0].shape
    y = jnp.stack([phase for row in phases for phase in row], axis=3)
    y = y.reshape(b, h, w, stride, stride, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, h * stride, w * stride, c)[:, :height, :width]


def lax_conv(x, kernel, stride, pads, groups=1):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT, feature_group_count=groups
    )


def _rows(x):
    """[..., C] -> [N, C]."""
    return x.reshape(-1, x.shape[-1])


# 1x1: three matrix products. Defined here, because automatic differentiation gives a transposed
# product for which XLA stores the whole upstream gradient transposed.


def _pointwise(x, kernel, stride, pads):
    return lax.dot_general(x[:, ::stride, ::stride], kernel[0, 0], (((3,), (0,)), ((), ())))


def _pointwise_input_gradient(g, kernel, shape, stride, pads):
    dx = lax.dot_general(_rows(g), kernel[0, 0], (((1,), (1,)), ((), ())))
    dx = dx.reshape(*g.shape[:3], shape[3])
    if stride == 1:
        return dx
    (high, wide), (h, w) = shape[1:3], g.shape[1:3]
    after = high - (h - 1) * stride - 1, wide - (w - 1) * stride - 1
    spread = ((0, after[0], stride - 1), (0, after[1], stride - 1))
    return lax.pad(dx, np.float32(0), ((0, 0, 0), *spread, (0, 0, 0)))


def _pointwise_kernel_gradient(x, g, shape, stride, pads):
    return _product(x[:, ::stride, ::stride], g).reshape(shape)


def _product(x, g):
    """The sum over all positions of x's channels times g's: [Cx, Cg]."""
    return lax.dot_general(_rows(x), _rows(g), (((0,), (0,)), ((), ())))


POINTWISE = Form(_pointwise, _pointwise_input_gradient, _pointwise_kernel_gradient)


# Depthwise: shifted multiply-adds, which XLA fuses into one loop.


def _pad(x, pads):
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def _channels(weights):
    return weights.reshape(1, 1, 1, -1)


def _depthwise(x, kernel, stride, pads):
    size = kernel.shape[:2]
    height, width = (
        (n + sum(pad) - k) // stride + 1 for n, pad, k in zip(x.shape[1:3], pads, size, strict=True)
    )

    def add_taps(x):
        # Without the barrier, taps without a margin read x itself, so x is stored as well.
        x = lax.optimization_barrier(_pad(x, pads))
        return sum(
            window(x, i, j, stride, height, width) * _channels(kernel[i, j])
            for i in range(size[0])
            for j in range(size[1])
        )

    return _in_chunks(add_taps, x, size)


def _in_chunks(function, x, size):
    """function(x), for a large kernel of `size` on some images at a time."""
    some = _some_images(x)
    if math.prod(size) <= _TAPS or some == len(x):
        return function(x)
    y = lax.map(function, x.reshape(-1, some, *x.shape[1:]))
    return y.reshape(-1, *y.shape[2:])


def _some_images(x):
    """How many images [B, H, W, C] to read at a time, a divisor of B."""
    b = len(x)
    if jax.device_count() > 1:
        return b  # With a loop over the batch every device would compute the whole batch.
    each = x.size // b
    return max(n for n in range(1, b + 1) if b % n == 0 and (n == 1 or n * each <= _CHUNK))


def _gather_plan(shape, kernel_shape, g_shape, stride, pads):
    """The parts of g that each phase of the input reads: lists of taps by axis, and g's padding."""
    axes, margins = [], []
    for n, k, (before, _), m in zip(shape[1:3], kernel_shape[:2], pads, g_shape[1:3], strict=True):
        steps = -(-n // stride)
        phases = [taps(phase, k, stride, before) for phase in range(stride)]
        shifts = [shift for phase in phases for _, shift in phase]
        low = max(0, -min(shifts))
        margins.append((low, max(0, steps + max(shifts) - m)))
        axes.append((steps, [[(i, shift + low) for i, shift in phase] for phase in phases]))
    return axes, margins


def _depthwise_input_gradient(g, kernel, shape, stride, pads):
    # Reads g at fixed offsets; the transpose of the forward sum would test bounds for each tap.
    ((height, tall), (width, wide)), margins = _gather_plan(
        shape, kernel.shape, g.shape, stride, pads
    )

    def add_taps(g):
        # Without the barrier the padding is recomputed inside every tap.
        g = lax.optimization_barrier(_pad(g, margins))
        zero = jnp.zeros((len(g), height, width, shape[3]), g.dtype)
        phases = [
            [
                sum(
                    (
                        window(g, u, v, 1, height, width) * _channels(kernel[i, j])
                        for i, u in rows
                        for j, v in columns
                    ),
                    start=zero,
                )
                for columns in wide
            ]
            for rows in tall
        ]
        return interleave(phases, stride, *shape[1:3])

    return _in_chunks(add_taps, g, kernel.shape[:2])


def _depthwise_kernel_gradient(x, g, shape, stride, pads):
    # Adds up to _FOLD rows in one fused expression, so that less is left for the reduction after
    # it, which is far slower in XLA than the products. Some images at a time, to stay in the cache;
    # one row of taps at a time, to keep the program small.
    b, h, w, c = g.shape
    rest = -(-h // _FOLD)
    fold = -(-h // rest)
    reach = (rest * fold - 1) * stride + 1
    top = pads[0][0]
    height = ((0, 0, 0), (top, reach + shape[0] - 1 - top - x.shape[1], 0))
    x = lax.pad(x, np.float32(0), (*height, (*pads[1], 0), (0, 0, 0)))
    g = jnp.pad(g, ((0, 0), (0, rest * fold - h), (0, 0), (0, 0)))
    some = _some_images(x)

    def add_taps(x, g, row):
        x = lax.dynamic_slice_in_dim(x, row, reach, axis=1)
        parts = [
            sum(
                window(x, t * rest * stride, j, stride, rest, w) * g[:, t * rest : (t + 1) * rest]
                for t in range(fold)
            )
            for j in range(shape[1])
        ]
        return jnp.stack(parts).sum((1, 2, 3))

    def add_images(x, g):
        return lax.map(lambda row: add_taps(x, g, row), jnp.arange(shape[0]))

    if some == b:
        return add_images(x, g).reshape(shape)

    def add_chunk(first):
        # A slice, not an element of an array of chunks: for that XLA would copy all of x first.
        return add_images(*(lax.dynamic_slice_in_dim(array, first, some) for array in (x, g)))

    return lax.map(add_chunk, jnp.arange(0, b, some)).sum(0).reshape(shape)


DEPTHWISE = Form(_depthwise, _depthwise_input_gradient, _depthwise_kernel_gradient)


# The general case: XLA's own convolution, except for strided input gradients and large arrays.


def _dense(x, kernel, stride, pads):
    # Without the barrier XLA may fuse consecutive convolutions and poolings into one program that
    # computes each of them many times: VGG-16 takes ten times as long.
    return lax_conv(lax.optimization_barrier(x), kernel, stride, pads)


def _dense_input_gradient(g, kernel, shape, stride, pads):
    # One convolution without stride for each phase of the input, instead of one over an array
    # that is mostly zeros.
    height, width = (-(-n // stride) for n in shape[1:3])
    tall, wide = (
        [taps(phase, k, stride, before) for phase in range(stride)]
        for k, (before, _) in zip(kernel.shape[:2], pads, strict=True)
    )
    kernel = kernel.transpose(0, 1, 3, 2)

    def phase(rows, columns):
        if not rows or not columns:
            return jnp.zeros((shape[0], height, width, shape[3]), g.dtype)
        part = kernel[rows[-1][0] :: -stride][: len(rows)]
        part = part[:, columns[-1][0] :: -stride][:, : len(columns)]
        margins = [
            (-axis[-1][1], steps + axis[0][1] - m)
            for axis, steps, m in zip((rows, columns), (height, width), g.shape[1:3], strict=True)
        ]
        return lax_conv(g, part, 1, margins)

    return interleave(
        [[phase(rows, columns) for columns in wide] for rows in tall], stride, *shape[1:3]
    )


def _dense_kernel_gradient(x, g, shape, stride, pads):
    if g.size * g.dtype.itemsize > _CACHED:
        return _imagewise_kernel_gradient(x, g, shape, stride, pads)
    kernel = jnp.zeros(shape, x.dtype)
    _, transpose = jax.vjp(lambda kernel: lax_conv(x, kernel, stride, pads), kernel)
    return transpose(g)[0]


def _imagewise_kernel_gradient(x, g, shape, stride, pads):
    """Image by image, one matrix product for each row of taps."""
    size = g.shape[1:3]

    def add_image(total, image):
        x, g = image[0][None], image[1][None]
        rows = [
            jnp.concatenate([window(x, i, j, stride, *size) for j in range(shape[1])], axis=-1)
            for i in range(shape[0])
        ]
        return total + jnp.stack([_product(row, g) for row in rows]).reshape(shape), None

    return lax.scan(add_image, jnp.zeros(shape, x.dtype), (_pad(x, pads), g))[0]


DENSE = Form(_dense, _dense_input_gradient, _dense_kernel_gradient)
