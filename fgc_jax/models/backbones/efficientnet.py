"""EfficientNet, EfficientNet-Lite and EfficientNetV2: inverted residuals, mostly depthwise.

Papers: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (arXiv
1905.11946); EfficientNetV2: Smaller Models and Faster Training (arXiv 2104.00298); the Lite
variant is described in Google's tpu repository only. Names and numbers follow timm.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
from flax import nnx

from fgc_jax.models import bridge, conv, layers
from fgc_jax.models.backbone import Backbone


@dataclasses.dataclass(frozen=True)
class Style:
    """Settings of all blocks of a network.

    padding: None, or "SAME" for TensorFlow's; epsilon: of batch norm; squeeze: whether blocks
    with a depthwise convolution have squeeze-and-excitation; frugal: whether the backward pass
    computes activations and weighted maps again (see `_activated`).
    """

    padding: str | None
    epsilon: float
    activation: Callable
    squeeze: bool
    frugal: bool = True

    def makers(self, dtype, rngs):
        """Constructors of a convolution and a batch norm."""
        conv = functools.partial(layers.Conv, padding=self.padding, dtype=dtype, rngs=rngs)
        norm = functools.partial(layers.BatchNorm, epsilon=self.epsilon, dtype=dtype, rngs=rngs)
        return conv, norm


TORCH = Style(padding=None, epsilon=1e-5, activation=jax.nn.silu, squeeze=True)
TENSORFLOW = Style(padding="SAME", epsilon=1e-3, activation=jax.nn.silu, squeeze=True)
LITE = dataclasses.replace(TENSORFLOW, activation=layers.relu6, squeeze=False)


class SqueezeExcite(nnx.Module):
    """Multiplies the channels of x [B, H, W, C] by weights computed from their means.

    Paper: Squeeze-and-Excitation Networks (arXiv 1709.01507).
    """

    def __init__(self, features, squeezed, *, activation, dtype, rngs):
        conv = functools.partial(layers.Conv, use_bias=True, dtype=dtype, rngs=rngs)
        self.conv_reduce = conv(features, squeezed, 1)
        self.conv_expand = conv(squeezed, features, 1)
        self.activation = activation

    def __call__(self, x):
        y = self.activation(self.conv_reduce(x.mean((1, 2), keepdims=True)))
        return x * jax.nn.sigmoid(self.conv_expand(y))


def _squeeze(features, in_features, style, dtype, rngs):
    if not style.squeeze:
        return None
    # A quarter of the block's input, not of the expanded map. All widths are multiples of 8.
    return SqueezeExcite(
        features, in_features // 4, activation=style.activation, dtype=dtype, rngs=rngs
    )


def _activated(style, modules, x):
    """The activation of x, then the modules. On CPU only x is stored for the backward pass, because
    allocating memory takes more time there than computing an activation again.
    """
    chain = layers.Chain([style.activation, *filter(None, modules)])
    return bridge.run(chain, x, remat=style.frugal and not conv.is_plain())


class ConvBlock(nnx.Module):
    """One convolution: [B, H, W, C] -> [B, H / stride, W / stride, out_features].

    All blocks add their input if the shapes are equal. `stage.expansion` is for the blocks that
    expand.
    """

    def __init__(self, in_features, stage, *, stride, style, rate, dtype, rngs):
        conv, norm = style.makers(dtype, rngs)
        out_features = stage.out_features
        self.conv = conv(in_features, out_features, stage.kernel_size, stride=stride)
        self.bn1 = norm(out_features)
        self.style = style
        self.skip = stride == 1 and in_features == out_features
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        y = self.style.activation(self.bn1(self.conv(x)))
        return x + self.drop_path(y, rngs=rngs) if self.skip else y


class FusedBlock(nnx.Module):
    """Dense convolution that expands, then 1x1 without activation; shapes as in ConvBlock."""

    def __init__(self, in_features, stage, *, stride, style, rate, dtype, rngs):
        conv, norm = style.makers(dtype, rngs)
        inner, out_features = in_features * stage.expansion, stage.out_features
        self.conv_exp = conv(in_features, inner, stage.kernel_size, stride=stride)
        self.bn1 = norm(inner)
        self.conv_pwl, self.bn2 = conv(inner, out_features, 1), norm(out_features)
        self.style = style
        self.skip = stride == 1 and in_features == out_features
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        y = self.bn1(self.conv_exp(x))
        y = self.bn2(_activated(self.style, [self.conv_pwl], y))
        return x + self.drop_path(y, rngs=rngs) if self.skip else y


class SeparableBlock(nnx.Module):
    """Depthwise, then 1x1 without activation; shapes as in ConvBlock."""

    def __init__(self, in_features, stage, *, stride, style, rate, dtype, rngs):
        conv, norm = style.makers(dtype, rngs)
        groups, out_features = in_features, stage.out_features
        kernel_size = stage.kernel_size
        self.conv_dw = conv(in_features, in_features, kernel_size, stride=stride, groups=groups)
        self.bn1 = norm(in_features)
        self.se = _squeeze(in_features, in_features, style, dtype, rngs)
        self.conv_pw, self.bn2 = conv(in_features, out_features, 1), norm(out_features)
        self.style = style
        self.skip = stride == 1 and in_features == out_features
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        y = self.bn1(self.conv_dw(x))
        y = self.bn2(_activated(self.style, [self.se, self.conv_pw], y))
        return x + self.drop_path(y, rngs=rngs) if self.skip else y


class InvertedBlock(nnx.Module):
    """1x1 that expands, depthwise, then 1x1 without activation; shapes as in ConvBlock."""

    def __init__(self, in_features, stage, *, stride, style, rate, dtype, rngs):
        conv, norm = style.makers(dtype, rngs)
        inner, out_features = in_features * stage.expansion, stage.out_features
        self.conv_pw, self.bn1 = conv(in_features, inner, 1), norm(inner)
        self.conv_dw = conv(inner, inner, stage.kernel_size, stride=stride, groups=inner)
        self.bn2 = norm(inner)
        self.se = _squeeze(inner, in_features, style, dtype, rngs)
        self.conv_pwl, self.bn3 = conv(inner, out_features, 1), norm(out_features)
        self.style = style
        self.skip = stride == 1 and in_features == out_features
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        y = self.bn1(self.conv_pw(x))
        y = self.bn2(_activated(self.style, [self.conv_dw], y))
        y = self.bn3(_activated(self.style, [self.se, self.conv_pwl], y))
        return x + self.drop_path(y, rngs=rngs) if self.skip else y


@dataclasses.dataclass(frozen=True)
class Stage:
    """`repeats` blocks with out_features channels; the first has the stride."""

    block: type
    kernel_size: int
    stride: int
    expansion: int
    out_features: int
    repeats: int


def round_width(width: float) -> int:
    """The multiple of 8 nearest to `width`, but at least nine tenths of it."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def scale(stages, width: float, depths) -> tuple[Stage, ...]:
    """The stages with `width` times the channels and depths[i] times the blocks."""
    return tuple(
        dataclasses.replace(
            stage,
            out_features=round_width(width * stage.out_features),
            repeats=math.ceil(depth * stage.repeats),
        )
        for stage, depth in zip(stages, depths, strict=True)
    )


class EfficientNet(nnx.Module):
    """Maps "stem", "stage1", "stage2", ... and "features" (after conv_head)."""

    def __init__(self, stages, stem, head, style, *, setup, rngs):
        # Blocks that are computed again completely need not do it for their parts.
        style = dataclasses.replace(style, frugal=not setup.remat)
        conv, norm = style.makers(setup.dtype, rngs)
        names = ["stem", *(f"stage{i + 1}" for i in range(len(stages))), "features"]
        self.last, self.remat = setup.last, setup.remat
        self.activation = style.activation
        repeats = [stage.repeats for stage in stages]
        # In timm the rate of the last block is just below the maximum.
        rates = layers.drop_rates(setup.drop_path * (1 - 1 / sum(repeats)), repeats)
        self.conv_stem, self.bn1 = conv(3, stem, 3, stride=2), norm(stem)
        features, built = stem, []
        for stage, stage_rates in list(zip(stages, rates, strict=True))[: names.index(setup.last)]:
            blocks = []
            for index, rate in enumerate(stage_rates):
                blocks.append(
                    stage.block(
                        features,
                        stage,
                        stride=stage.stride if index == 0 else 1,
                        style=style,
                        rate=rate,
                        dtype=setup.dtype,
                        rngs=rngs,
                    )
                )
                features = stage.out_features
            built.append(layers.Blocks(blocks))
        self.blocks = layers.Blocks(built)
        if setup.last == "features":
            self.conv_head, self.bn2 = conv(features, head, 1), norm(head)

    def __call__(self, x, *, rngs=None):
        maps = {}
        x = maps["stem"] = self.activation(self.bn1(self.conv_stem(x)))
        for stage, blocks in enumerate(self.blocks, start=1):
            for block in blocks:
                x = bridge.run(block, x, rngs=rngs, remat=self.remat)
            maps[f"stage{stage}"] = x
        if self.last == "features":
            maps["features"] = self.activation(self.bn2(self.conv_head(x)))
        return maps


def row(stages, *, stem, head, style, weights=None, parameters=0, gflops=0.0) -> Backbone:
    """A row of BACKBONES; stem, head: channels of the first and the last convolution."""
    ordered = {"conv_stem": ("conv_stem", "bn1")}
    depths, strides, channels = {"stem": 1}, {"stem": 2}, {"stem": stem}
    total = 2
    for number, stage in enumerate(stages):
        for index in range(stage.repeats):
            name = f"blocks/{number}/{index}"
            ordered[name] = (name,)
        total *= stage.stride
        name = f"stage{number + 1}"
        depths[name], strides[name], channels[name] = len(ordered), total, stage.out_features
    ordered["conv_head"] = ("conv_head", "bn2")
    return Backbone(
        build=functools.partial(EfficientNet, tuple(stages), stem, head, style),
        channels=channels | {"features": head},
        strides=strides | {"features": total},
        layers=ordered,
        depths=depths | {"features": len(ordered)},
        weights=weights or {},
        head="gap",
        head_names={"classifier": "fc"},
        parameters=parameters,
        gflops=gflops,
    )
