"""The layers of all backbones and heads; arrays are [B, H, W, C]."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from fgc_jax.models import conv, conv_forms

relu6 = jax.nn.relu6


def same(x):
    """The identity, used in variants without the layer."""
    return x


def scaled(x, gamma):
    """x [..., C] times the parameter gamma [C], in x's dtype."""
    return x * gamma[...].astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def pair(value):
    """(rows, columns) from an int for both or from such a pair."""
    return (value, value) if isinstance(value, int) else tuple(value)


class Conv(nnx.Module):
    """Convolution; `kernel` is [kh, kw, in_features / groups, out_features].

    kernel_size and padding are an int or (rows, columns); padding may also be "SAME"
    (TensorFlow's asymmetric rule) or None for kernel_size // 2. The weights are float32; the
    convolution computes in `dtype`.
    """

    def __init__(
        self,
        in_features,
        out_features,
        kernel_size,
        *,
        stride=1,
        padding=None,
        groups=1,
        use_bias=False,
        dtype=jnp.float32,
        rngs,
    ):
        if in_features % groups or out_features % groups:
            raise ValueError(
                f"groups={groups} must divide in_features={in_features} and "
                f"out_features={out_features}"
            )
        rows, columns = pair(kernel_size)
        shape = (rows, columns, in_features // groups, out_features)
        # Kaiming normal over the fan out, the initialisation of torchvision and timm.
        std = (2.0 / (rows * columns * out_features // groups)) ** 0.5
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None
        self.stride = stride
        self.padding = (rows // 2, columns // 2) if padding is None else padding
        self.groups = groups
        self.dtype = dtype

    def __call__(self, x):
        y = conv.conv2d(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )
        if self.bias is not None:
            y = y + self.bias[...].astype(self.dtype).reshape(1, 1, 1, -1)
        return y


class BatchNorm(nnx.Module):
    """Batch normalisation over [B, H, W], statistics in float32, output in `dtype`.

    The running statistics follow PyTorch: old * momentum + new * (1 - momentum), where the new
    variance is the unbiased one (divided by n - 1); the batch itself is normalised with the
    biased one. (flax stores the biased variance instead.)
    """

    def __init__(self, features, *, epsilon=1e-5, momentum=0.9, dtype=jnp.float32, rngs):
        del rngs  # Nothing is drawn; taken so that all layers are built alike.
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.epsilon = epsilon
        self.momentum = momentum
        self.dtype = dtype
        self.use_running_average = False

    def set_view(self, use_running_average: bool | None = None):
        """Called by nnx.view.

        Args:
          use_running_average: if True, normalise with the stored statistics and leave them.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x):
        x32 = x.astype(jnp.float32)
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            axes = tuple(range(x.ndim - 1))
            mean = x32.mean(axes)
            var = jnp.maximum(jnp.square(x32).mean(axes) - jnp.square(mean), 0.0)
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            # Not `self.mean[...] =`: that reads the sharding of a traced array, and JAX searches
            # the whole trace for its error message (ResNet-50, four passes: 50 s instead of 3).
            self.mean.set_value(self._blend(self.mean[...], mean))
            self.var.set_value(self._blend(self.var[...], unbiased))
        factor = self.scale[...] * lax.rsqrt(var + self.epsilon)
        shift = self.bias[...] - mean * factor
        shape = (1,) * (x.ndim - 1) + (-1,)
        return (x32 * factor.reshape(shape) + shift.reshape(shape)).astype(self.dtype)

    def _blend(self, old, new):
        return self.momentum * old + (1.0 - self.momentum) * lax.stop_gradient(new)


class LayerNorm(nnx.Module):
    """Layer normalisation of the last axis, statistics in float32, output in `dtype`."""

    def __init__(self, features, *, epsilon=1e-6, dtype=jnp.float32, rngs):
        del rngs  # Nothing is drawn; taken so that all layers are built alike.
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x):
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        shape = (1,) * (x.ndim - 1) + (-1,)
        y = centred * lax.rsqrt(variance + self.epsilon) * self.scale[...].reshape(shape)
        return (y + self.bias[...].reshape(shape)).astype(self.dtype)


class Linear(nnx.Module):
    """Affine map of the last axis, computed in `dtype`; `kernel` is [in_features, out_features]."""

    def __init__(self, in_features, out_features, *, use_bias=True, dtype=jnp.float32, rngs):
        self.kernel = _kaiming_uniform(in_features, out_features, rngs)
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None
        self.dtype = dtype
        self.lora_factor = None

    def add_lora(self, rank, factor, *, rngs):
        """Adds `factor` times the product of two new kernels, `lora_a` [in_features, rank] and
        `lora_b` [rank, out_features]; `lora_b` starts as zero. See `models.lora`."""
        in_features, out_features = self.kernel.shape
        self.lora_a = _kaiming_uniform(in_features, rank, rngs)
        self.lora_b = nnx.Param(jnp.zeros((rank, out_features)))
        self.lora_factor = factor

    def __call__(self, x):
        # As rows: for the gradient of a product with all of x XLA:CPU stores transposed copies.
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        y = rows @ self.kernel[...].astype(self.dtype)
        if self.bias is not None:
            y = y + self.bias[...].astype(self.dtype).reshape(1, -1)
        if self.lora_factor is not None:
            # In this order all arrays for the new kernels have a width of only `rank`.
            thin = self.lora_factor * (rows @ self.lora_a[...].astype(self.dtype))
            y = y + thin @ self.lora_b[...].astype(self.dtype)
        return y.reshape(*x.shape[:-1], y.shape[-1])


def _kaiming_uniform(in_features, out_features, rngs):
    """PyTorch's initial weights of a linear layer."""
    bound = in_features**-0.5
    shape = (in_features, out_features)
    return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))


class DropPath(nnx.Module):
    """Stochastic depth: in training the branch x [B, ...] of an image is 0 with probability
    `rate`, else divided by 1 - rate.

    Paper: Deep Networks with Stochastic Depth (arXiv 1603.09382).
    """

    def __init__(self, rate):
        self.rate = rate
        self.deterministic = False

    def set_view(self, deterministic: bool | None = None):
        """Called by nnx.view.

        Args:
          deterministic: if True, keep every branch.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(self, x, *, rngs=None):
        if self.deterministic or not self.rate:
            return x
        keep = 1 - self.rate
        kept = jax.random.bernoulli(rngs.dropout(), keep, (len(x),) + (1,) * (x.ndim - 1))
        return x * (kept / keep).astype(x.dtype)


def drop_rates(rate, depths):
    """Rates of stochastic depth of the blocks, a tuple for each stage: linear from 0 to `rate`."""
    rates = iter(np.linspace(0, rate, sum(depths)).tolist())
    return tuple(tuple(next(rates) for _ in range(depth)) for depth in depths)


class Blocks(nnx.Module):
    """Modules in order, as attributes "0", "1", ... so that every key of the state is a string."""

    def __init__(self, modules):
        modules = tuple(modules)
        self.length = len(modules)
        for index, module in enumerate(modules):
            setattr(self, str(index), module)

    def __len__(self):
        return self.length

    def __iter__(self):
        return (getattr(self, str(index)) for index in range(self.length))

    def __getitem__(self, index):
        return getattr(self, str(range(self.length)[index]))


class Chain(Blocks):
    """Modules and functions, each called with the result of the previous one."""

    def __call__(self, x, *, rngs=None):
        for module in self:
            x = module(x)
        return x


def spatial_max(x):
    """Maximum over the positions of x [B, H, W, C]: [B, C].

    Among equal values the gradient goes to the first in reading order, as in PyTorch's max pooling.
    That of `x.max((1, 2))` divides by the number of values equal to the maximum, which is zero, and
    the gradient NaN, where the compiler computes x twice with different rounding.
    """
    x = x.reshape(len(x), -1, x.shape[-1])
    first = jnp.argmax(x, axis=1, keepdims=True)
    places = lax.broadcasted_iota(first.dtype, x.shape, 1)
    return jnp.where(places == first, x, 0).sum(1)


def max_pool(x, window, stride, padding):
    """Maximum of each window [window, window] of x [B, H, W, C]; padding is an int on each side.

    Among equal values the gradient goes to the first in reading order, as in PyTorch. On CPU the
    gradient is defined here (reverse mode only), because XLA:CPU's takes about six times as long.
    """
    if conv.is_plain():
        return _max_pool(x, window, stride, padding)
    return _max_pool_on_cpu(x, window, stride, padding)


def _max_pool(x, window, stride, padding):
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(
        x, lowest, lax.max, (1, window, window, 1), (1, stride, stride, 1), pads
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool_on_cpu(x, window, stride, padding):
    return _max_pool(x, window, stride, padding)


def _max_pool_forward(x, window, stride, padding):
    y = _max_pool(x, window, stride, padding)
    return y, (x, y)


def _max_pool_backward(window, stride, padding, residuals, g):
    x, y = residuals
    b, height, width, c = x.shape
    h, w = y.shape[1:3]
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(x, edge, constant_values=-jnp.inf)
    first = jnp.full(y.shape, -1, jnp.int8)
    for tap in reversed(range(window * window)):
        value = conv_forms.window(padded, tap // window, tap % window, stride, h, w)
        first = jnp.where(value == y, jnp.int8(tap), first)
    # Without the barrier the position is computed again for every tap.
    first, g = lax.optimization_barrier((first, g))

    steps = -(-height // stride), -(-width // stride)
    taps = [conv_forms.taps(phase, window, stride, padding) for phase in range(stride)]

    def phase(rows, columns):
        total = jnp.zeros((b, *steps, c), g.dtype)
        for i, u in rows:
            for j, v in columns:
                part = jnp.where(first == i * window + j, g, 0)
                margins = ((-u, steps[0] + u - h, 0), (-v, steps[1] + v - w, 0))
                total = total + lax.pad(
                    part, np.array(0, g.dtype), ((0, 0, 0), *margins, (0, 0, 0))
                )
        return total

    dx = [[phase(rows, columns) for columns in taps] for rows in taps]
    return (conv_forms.interleave(dx, stride, height, width),)


_max_pool_on_cpu.defvjp(_max_pool_forward, _max_pool_backward)
