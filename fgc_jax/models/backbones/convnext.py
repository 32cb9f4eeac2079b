"""ConvNeXt, V1 and V2 (global response normalisation instead of layer scale).

Papers: A ConvNet for the 2020s (arXiv 2201.03545); ConvNeXt V2: Co-designing and Scaling ConvNets
with Masked Autoencoders (arXiv 2301.00808). Names and numbers follow timm.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.models import attention, bridge, layers

STRIDES = {"stem": 4, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}


def _conv(*shape, dtype, rngs, **options):
    """A convolution with timm's initialisation for ConvNeXt."""
    layer = layers.Conv(*shape, use_bias=True, dtype=dtype, rngs=rngs, **options)
    layer.kernel = nnx.Param(0.02 * jax.random.normal(rngs.params(), layer.kernel.shape))
    return layer


class ResponseNorm(nnx.Module):
    """Global response normalisation of x [B, H, W, C]: the norms of an image's channels over all
    positions, relative to their mean, scale the channels. Statistics in float32."""

    def __init__(self, features, *, dtype):
        self.scale = nnx.Param(jnp.zeros(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.dtype = dtype

    def __call__(self, x):
        x = x.astype(jnp.float32)
        squares = jnp.square(x).sum((1, 2), keepdims=True)
        # The lower limit is on the square: the gradient of a square root at zero is not finite.
        norms = jnp.sqrt(jnp.maximum(squares, 1e-24))
        relative = norms / (norms.mean(-1, keepdims=True) + 1e-6)
        factor = 1 + self.scale[...].reshape(1, 1, 1, -1) * relative
        return (x * factor + self.bias[...].reshape(1, 1, 1, -1)).astype(self.dtype)


class Mlp(nnx.Module):
    """Two layers with four times the channels between them; `grn` adds ResponseNorm between them.

    pointwise: the published weights of the layers are those of 1x1 convolutions.
    """

    def __init__(self, features, *, grn, pointwise, dtype, rngs):
        make = functools.partial(_conv, kernel_size=1) if pointwise else attention.linear
        self.fc1 = make(features, 4 * features, dtype=dtype, rngs=rngs)
        self.grn = ResponseNorm(4 * features, dtype=dtype) if grn else None
        self.fc2 = make(4 * features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = attention.gelu(self.fc1(x))
        if self.grn is not None:
            x = self.grn(x)
        return self.fc2(x)


class Block(nnx.Module):
    """Depthwise 7x7, layer norm, Mlp, layer scale if not `grn`: [B, H, W, C] -> the same shape."""

    def __init__(self, features, *, grn, pointwise, rate, dtype, rngs):
        self.conv_dw = _conv(features, features, 7, groups=features, dtype=dtype, rngs=rngs)
        self.norm = layers.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(features, grn=grn, pointwise=pointwise, dtype=dtype, rngs=rngs)
        self.gamma = None if grn else nnx.Param(jnp.full(features, 1e-6))
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        y = self.mlp(self.norm(self.conv_dw(x)))
        if self.gamma is not None:
            y = layers.scaled(y, self.gamma)
        return x + self.drop_path(y, rngs=rngs)


def _downsample(in_features, features, dtype, rngs):
    if in_features == features:
        return None
    norm = layers.LayerNorm(in_features, dtype=dtype, rngs=rngs)
    conv = _conv(in_features, features, 2, stride=2, padding=0, dtype=dtype, rngs=rngs)
    return layers.Chain([norm, conv])


class Stage(nnx.Module):
    """`downsample` (layer norm and 2x2 convolution, not in the first stage) and `blocks`."""

    def __init__(self, in_features, features, rates, *, dtype, rngs, **options):
        self.downsample = _downsample(in_features, features, dtype, rngs)
        self.blocks = layers.Blocks(
            Block(features, rate=rate, dtype=dtype, rngs=rngs, **options) for rate in rates
        )

    def __call__(self, x, *, rngs=None, remat=False):
        if self.downsample is not None:
            x = self.downsample(x)
        for block in self.blocks:
            x = bridge.run(block, x, rngs=rngs, remat=remat)
        return x


class Head(nnx.Module):
    """The layer norm before the linear layer of the published classifier."""

    def __init__(self, features, *, dtype, rngs):
        self.norm = layers.LayerNorm(features, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.norm(x.astype(jnp.float32).mean((1, 2), keepdims=True))


class ConvNeXt(nnx.Module):
    """Maps "stem", "stage1" ... "stage4", "features" (the last stage's) and "pooled".

    Raises ValueError for images smaller than the stride of the last map.
    """

    def __init__(self, depths, widths, *, grn, pointwise, setup, rngs):
        dtype, last = setup.dtype, setup.last
        names = list(STRIDES)
        self.last, self.remat = last, setup.remat
        count = names.index(last) if last in names else len(depths)
        rates = layers.drop_rates(setup.drop_path, depths)
        options = {"grn": grn, "pointwise": pointwise, "dtype": dtype, "rngs": rngs}
        stem = _conv(3, widths[0], 4, stride=4, padding=0, dtype=dtype, rngs=rngs)
        self.stem = layers.Chain([stem, layers.LayerNorm(widths[0], dtype=dtype, rngs=rngs)])
        self.stages = layers.Blocks(
            Stage(widths[max(i - 1, 0)], widths[i], rates[i], **options) for i in range(count)
        )
        self.head = Head(widths[-1], dtype=dtype, rngs=rngs) if last == "pooled" else None

    def __call__(self, x, *, rngs=None):
        least = STRIDES.get(self.last, 32)
        if min(x.shape[1:3]) < least:
            raise ValueError(
                f"ConvNeXt needs images of at least {least} x {least} pixels, "
                f"not {x.shape[1]} x {x.shape[2]}"
            )
        maps = {}
        x = maps["stem"] = self.stem(x)
        for index, stage in enumerate(self.stages, start=1):
            x = maps[f"stage{index}"] = stage(x, rngs=rngs, remat=self.remat)
        if self.last not in STRIDES:
            maps["features"] = x
        if self.head is not None:
            maps["pooled"] = self.head(x)
        return maps
