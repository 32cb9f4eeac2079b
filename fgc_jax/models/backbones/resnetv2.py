"""ResNetV2, with norm and ReLU before each convolution, and Big Transfer (BiT), with group norm and
standardised weights.

Papers: Identity Mappings in Deep Residual Networks (arXiv 1603.05027); Big Transfer (BiT): General
Visual Representation Learning (arXiv 1912.11370); Weight Standardization (arXiv 1903.10520).
Names and numbers follow timm.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.convert.timm import Pointwise
from fgc_jax.models import bridge, conv, layers
from fgc_jax.models.backbone import HALF, STRIDES, Backbone, counted, timm_facts

STEM = 64
WIDTHS = (256, 512, 1024, 2048)
GROUPS = 32


class GroupNorm(nnx.Module):
    """Normalises x [B, H, W, C] over positions and the channels of each of GROUPS groups;
    statistics in float32, output in `dtype`.

    Paper: Group Normalization (arXiv 1803.08494).
    """

    def __init__(self, features, *, dtype, rngs):
        del rngs  # Nothing is drawn; taken so that all layers are built alike.
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.dtype = dtype

    def __call__(self, x):
        x = x.astype(jnp.float32)
        b, _, _, c = x.shape

        def of_groups(values):
            mean = values.reshape(b, GROUPS, c // GROUPS).mean(-1)
            return jnp.repeat(mean, c // GROUPS, axis=-1).reshape(b, 1, 1, c)

        # Over positions first, because the channels of a position are contiguous in memory.
        mean = of_groups(x.mean((1, 2)))
        variance = of_groups(jnp.square(x).mean((1, 2))) - jnp.square(mean)
        factor = self.scale[...].reshape(1, 1, 1, c) * jax.lax.rsqrt(
            jnp.maximum(variance, 0) + 1e-5
        )
        shift = self.bias[...].reshape(1, 1, 1, c) - mean * factor
        return (x * factor + shift).astype(self.dtype)


class StandardisedConv(nnx.Module):
    """layers.Conv with the weights of each output channel normalised to mean 0 and variance 1, in
    float32."""

    def __init__(self, in_features, out_features, kernel_size, *, stride=1, dtype, rngs):
        self.kernel = layers.Conv(in_features, out_features, kernel_size, rngs=rngs).kernel
        self.stride = stride
        self.padding = kernel_size // 2
        self.dtype = dtype

    def __call__(self, x):
        kernel = self.kernel[...]
        centred = kernel - kernel.mean((0, 1, 2), keepdims=True)
        variance = jnp.square(centred).mean((0, 1, 2), keepdims=True)
        kernel = (centred * jax.lax.rsqrt(variance + 1e-8)).astype(self.dtype)
        return conv.conv2d(x.astype(self.dtype), kernel, stride=self.stride, padding=self.padding)


class Wrapped(nnx.Module):
    """A convolution in its own module, like those of the stem and the shortcuts in timm."""

    def __init__(self, conv):
        self.conv = conv

    def __call__(self, x):
        return self.conv(x)


class Bottleneck(nnx.Module):
    """1x1, 3x3 (strided), 1x1, each after norm and ReLU: [B, H, W, C] -> [B, H / stride,
    W / stride, width]. first: the first of its stage, with a convolution in the shortcut."""

    def __init__(self, in_features, width, *, stride, first, rate, make, norm):
        inner = width // 4
        self.downsample = Wrapped(make(in_features, width, 1, stride=stride)) if first else None
        self.norm1, self.conv1 = norm(in_features), make(in_features, inner, 1)
        self.norm2, self.conv2 = norm(inner), make(inner, inner, 3, stride=stride)
        self.norm3, self.conv3 = norm(inner), make(inner, width, 1)
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        y = jax.nn.relu(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        y = jax.nn.relu(self.norm2(self.conv1(y)))
        y = jax.nn.relu(self.norm3(self.conv2(y)))
        return self.drop_path(self.conv3(y), rngs=rngs) + shortcut


class Stage(nnx.Module):
    """The blocks of one grid."""

    def __init__(self, blocks):
        self.blocks = layers.Blocks(blocks)


class ResNetV2(nnx.Module):
    """Maps "stem" (before the pooling), "stage1" ... "stage4" (not normalised) and "features"
    (normalised).

    factor: width relative to ResNet-50. bit: BiT, with group norm, standardised weights and a
    pooling with zeros around the stem; otherwise batch norm as in ResNet.
    """

    def __init__(self, depths, factor=1, bit=False, *, setup, rngs):
        kinds = (StandardisedConv, GroupNorm) if bit else (layers.Conv, layers.BatchNorm)
        make, norm = (functools.partial(kind, dtype=setup.dtype, rngs=rngs) for kind in kinds)
        index = list(STRIDES).index(setup.last)  # "stem" is 0; "features" comes after "stage4".
        self.bit = bit
        self.remat = setup.remat
        rates = layers.drop_rates(setup.drop_path, depths)
        features = STEM * factor
        self.stem = Wrapped(make(3, features, 7, stride=2))
        stages = []
        for stage in range(min(index, len(depths))):
            blocks = []
            for rate in rates[stage]:
                first = not blocks
                stride = 2 if first and stage else 1
                width = WIDTHS[stage] * factor
                options = {"stride": stride, "first": first, "rate": rate}
                blocks.append(Bottleneck(features, width, make=make, norm=norm, **options))
                features = width
            stages.append(Stage(blocks))
        self.stages = layers.Blocks(stages)
        self.norm = norm(features) if setup.last == "features" else None

    def __call__(self, x, *, rngs=None):
        maps = {}
        x = maps["stem"] = self.stem(x)
        if self.bit:
            x = layers.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2, 0)
        else:
            x = layers.max_pool(x, 3, 2, 1)
        for index, stage in enumerate(self.stages, start=1):
            for block in stage.blocks:
                x = bridge.run(block, x, rngs=rngs, remat=self.remat)
            maps[f"stage{index}"] = x
        if self.norm is not None:
            maps["features"] = jax.nn.relu(self.norm(x))
        return maps


def row(depths, parameters=0, gflops=0.0, weights=None, *, factor=1, bit=False) -> Backbone:
    """A row of BACKBONES; `depths` counts the blocks of each stage."""
    blocks = [[f"stages/{n}/blocks/{i}" for i in range(depth)] for n, depth in enumerate(depths)]
    ordered, counts = counted({"stem": ("stem",)}, blocks)
    ordered[blocks[-1][-1]] += ("norm",)
    channels = {f"stage{i}": width * factor for i, width in enumerate(WIDTHS, start=1)}
    return Backbone(
        build=functools.partial(ResNetV2, depths, factor, bit),
        channels={"stem": STEM * factor} | channels | {"features": channels["stage4"]},
        strides=dict(STRIDES),
        layers=ordered,
        depths=counts,
        weights=weights or {},
        head="gap",
        head_names={Pointwise("head.fc"): "fc"},
        parameters=parameters,
        gflops=gflops,
    )


_A1H = {"a1h_in1k": timm_facts(norm=HALF, crop=0.95, test=(288, 1.0))}
_BIT = {
    "goog_in21k_ft_in1k": timm_facts(norm=HALF, size=448, crop=1.0, interpolation="bilinear"),
    "goog_in21k": timm_facts(norm=HALF, interpolation="bilinear", classes=21843),
}
# Paper: Knowledge distillation: A good teacher is patient and consistent (arXiv 2106.05237).
_DISTILLED = {"goog_distilled_in1k": timm_facts(norm=HALF)}
_50, _101 = (3, 4, 6, 3), (3, 4, 23, 3)


RESNETV2S = {
    "resnetv2_50": row(_50, 25_549_352, 4.09, _A1H),
    "resnetv2_101": row(_101, 44_541_480, 7.8, _A1H),
    "resnetv2_50x1_bit": row(_50, 25_549_352, 4.09, _DISTILLED | _BIT, bit=True),
    "resnetv2_101x1_bit": row(_101, 44_541_480, 31.2, _BIT, bit=True),
    "resnetv2_101x3_bit": row(_101, 387_934_888, 278.0, _BIT, factor=3, bit=True),
}
