"""ResNet v1.5 (a bottleneck's stride is on its 3x3 convolution), ResNeXt, Wide ResNet, ResNet-D.

Papers: Deep Residual Learning for Image Recognition (arXiv 1512.03385); Aggregated Residual
Transformations for Deep Neural Networks (arXiv 1611.05431); Wide Residual Networks (arXiv
1605.07146); for ResNet-D, Bag of Tricks for Image Classification (arXiv 1812.01187); for
anti-aliasing, Making Convolutional Networks Shift-Invariant Again (arXiv 1904.11486). Names and
numbers follow timm.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgc_jax.models import bridge, layers
from fgc_jax.models.backbone import STRIDES, Backbone, counted

WIDTHS = (64, 128, 256, 512)


def _zero_scale(norm, features):
    # timm's default: a residual branch is zero at first, so that a new block is the identity.
    norm.scale = nnx.Param(jnp.zeros(features))


def halve(x):
    """Means of 2x2 windows, [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C]; a window over an odd
    edge averages only the values inside x."""
    _, h, w, _ = x.shape
    total = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    total = total[:, ::2] + total[:, 1::2]
    total = total[:, :, ::2] + total[:, :, 1::2]
    rows, columns = (2 - (2 * np.arange(-(-n // 2)) == n - 1) for n in (h, w))
    count = (rows[:, None] * columns).astype(np.float32)[None, :, :, None]
    return (total / count).astype(x.dtype)


def _downsample(in_features, out_features, stride, average, dtype, rngs):
    if stride == 1 and in_features == out_features:
        return None
    conv = functools.partial(layers.Conv, in_features, out_features, 1, dtype=dtype, rngs=rngs)
    norm = layers.BatchNorm(out_features, dtype=dtype, rngs=rngs)
    if not average:
        return layers.Chain([conv(stride=stride), norm])
    return layers.Chain([halve if stride == 2 else layers.same, conv(), norm])


def _shortcut(downsample, x):
    return x if downsample is None else downsample(x)


@dataclasses.dataclass(frozen=True)
class Form:
    """What sets variants of the same size apart.

    groups, group_width: of the 3x3 convolution of a bottleneck, as for 64 channels in all. deep:
    ResNet-D, with three 3x3 convolutions instead of the first one, and average pooling instead of
    the strides of shortcuts. antialias: 2x2 means also replace all other strides and the max
    pooling; bottlenecks only.
    """

    groups: int = 1
    group_width: int = 64
    deep: bool = False
    antialias: bool = False


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions: [B, H, W, C] -> [B, H / stride, W / stride, width]."""

    expansion = 1

    def __init__(self, in_features, width, form, *, stride, rate=0.0, dtype, rngs):
        make = functools.partial(layers.Conv, dtype=dtype, rngs=rngs)
        norm = functools.partial(layers.BatchNorm, dtype=dtype, rngs=rngs)
        self.conv1, self.bn1 = make(in_features, width, 3, stride=stride), norm(width)
        self.conv2, self.bn2 = make(width, width, 3), norm(width)
        self.downsample = _downsample(in_features, width, stride, form.deep, dtype, rngs)
        self.drop_path = layers.DropPath(rate)
        _zero_scale(self.bn2, width)

    def __call__(self, x, *, rngs=None):
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.drop_path(self.bn2(self.conv2(y)), rngs=rngs)
        return jax.nn.relu(y + _shortcut(self.downsample, x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (strided, grouped), 1x1: [B, H, W, C] -> [B, H / stride, W / stride, 4 width]."""

    expansion = 4

    def __init__(self, in_features, width, form, *, stride, rate=0.0, dtype, rngs):
        make = functools.partial(layers.Conv, dtype=dtype, rngs=rngs)
        norm = functools.partial(layers.BatchNorm, dtype=dtype, rngs=rngs)
        groups, out_features = form.groups, 4 * width
        inner = width * form.group_width // 64 * groups
        self.conv1, self.bn1 = make(in_features, inner, 1), norm(inner)
        self.halves = form.antialias and stride == 2
        stride_here = 1 if self.halves else stride
        self.conv2, self.bn2 = make(inner, inner, 3, stride=stride_here, groups=groups), norm(inner)
        self.conv3, self.bn3 = make(inner, out_features, 1), norm(out_features)
        self.downsample = _downsample(in_features, out_features, stride, form.deep, dtype, rngs)
        if groups > 1:
            # timm's fan out counts every output channel, not only those of one group.
            self.conv2.kernel = nnx.Param(self.conv2.kernel[...] * groups**-0.5)
        self.drop_path = layers.DropPath(rate)
        _zero_scale(self.bn3, out_features)

    def __call__(self, x, *, rngs=None):
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = halve(y) if self.halves else y
        y = self.drop_path(self.bn3(self.conv3(y)), rngs=rngs)
        return jax.nn.relu(y + _shortcut(self.downsample, x))


class ResNet(nnx.Module):
    """Maps "stem" (after the first ReLU, before the pooling), "stage1" ... "stage4", "features".

    last_stride: of the last stage; 1 keeps the grid of the previous stage, without dilation.
    """

    def __init__(self, block, depths, form, *, last_stride=2, setup, rngs):
        dtype = setup.dtype
        stages = list(STRIDES).index(setup.last)  # "stem" is 0; "features" comes after "stage4".
        self.stages = min(stages, len(depths))
        self.antialias = form.antialias
        self.remat = setup.remat
        rates = layers.drop_rates(setup.drop_path, depths)
        conv = functools.partial(layers.Conv, dtype=dtype, rngs=rngs)
        norm = functools.partial(layers.BatchNorm, dtype=dtype, rngs=rngs)
        if form.deep:
            first = [conv(3, 32, 3, stride=2), norm(32), jax.nn.relu]
            second = [conv(32, 32, 3), norm(32), jax.nn.relu]
            self.conv1 = layers.Chain([*first, *second, conv(32, 64, 3)])
        else:
            self.conv1 = conv(3, 64, 7, stride=2)
        self.bn1 = norm(64)
        features = 64
        for stage in range(self.stages):
            blocks = []
            for index in range(depths[stage]):
                entry = last_stride if stage == 3 else min(stage, 1) + 1
                stride = entry if index == 0 else 1
                rate = rates[stage][index]
                options = {"stride": stride, "rate": rate, "dtype": dtype, "rngs": rngs}
                blocks.append(block(features, WIDTHS[stage], form, **options))
                features = WIDTHS[stage] * block.expansion
            setattr(self, f"layer{stage + 1}", layers.Blocks(blocks))

    def __call__(self, x, *, rngs=None):
        if self.antialias and any(side % 32 for side in x.shape[1:3]):
            raise ValueError(
                "an anti-aliased ResNet needs images whose sides are multiples of 32, not "
                f"{x.shape[1]}x{x.shape[2]}"
            )
        maps = {}
        x = maps["stem"] = jax.nn.relu(self.bn1(self.conv1(x)))
        x = halve(x) if self.antialias else layers.max_pool(x, 3, 2, 1)
        for stage in range(1, self.stages + 1):
            for block in getattr(self, f"layer{stage}"):
                x = bridge.run(block, x, rngs=rngs, remat=self.remat)
            maps[f"stage{stage}"] = x
        if self.stages == len(WIDTHS):
            maps["features"] = x
        return maps


def adapted(row: Backbone, *, last_stride: Literal[1, 2] = 2) -> Backbone:
    """The row with stride 1 instead of 2 in its last stage, as in CAL (arXiv 2108.08728)."""
    strides = row.strides | dict.fromkeys(("stage4", "features"), 16 * last_stride)
    build = functools.partial(row.build, last_stride=last_stride)
    return dataclasses.replace(row, build=build, strides=strides)


def row(block, depths, *, parameters=0, gflops=0.0, weights=None, **form) -> Backbone:
    """A row of BACKBONES; `depths` counts the blocks of each stage, form: the fields of Form."""
    blocks = [[f"layer{n}/{i}" for i in range(depth)] for n, depth in enumerate(depths, start=1)]
    ordered, counts = counted({"stem": ("conv1", "bn1")}, blocks)
    channels = {f"stage{i}": w * block.expansion for i, w in enumerate(WIDTHS, start=1)}
    return Backbone(
        build=functools.partial(ResNet, block, depths, Form(**form)),
        channels={"stem": 64} | channels | {"features": channels["stage4"]},
        strides=dict(STRIDES),
        layers=ordered,
        depths=counts,
        weights=weights or {},
        head="gap",
        head_names={"fc": "fc"},
        parameters=parameters,
        gflops=gflops,
        adapt=adapted,
    )
