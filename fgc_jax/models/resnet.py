"""ResNet and ResNeXt, v1.5: the stride of a bottleneck is on its 3x3 convolution.

Papers: Deep Residual Learning for Image Recognition (arXiv 1512.03385); Aggregated Residual
Transformations for Deep Neural Networks (arXiv 1611.05431). Names and numbers follow timm.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.models import bridge, layers
from fgc_jax.models.backbone import Backbone, timm_tag, torchvision2_tag, torchvision_tag

WIDTHS = (64, 128, 256, 512)


def _zero_scale(norm, features):
    # timm's default: a residual branch starts as zero, so that a new block is the identity.
    norm.scale = nnx.Param(jnp.zeros(features))


def _downsample(in_features, out_features, stride, dtype, rngs):
    if stride == 1 and in_features == out_features:
        return None
    return layers.Blocks(
        [
            layers.Conv(in_features, out_features, 1, stride=stride, dtype=dtype, rngs=rngs),
            layers.BatchNorm(out_features, dtype=dtype, rngs=rngs),
        ]
    )


def _shortcut(downsample, x):
    if downsample is None:
        return x
    conv, norm = downsample
    return norm(conv(x))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions: [B, H, W, C] -> [B, H / stride, W / stride, width]."""

    expansion = 1

    def __init__(self, in_features, width, *, stride, groups, group_width, rate=0.0, dtype, rngs):
        del groups, group_width  # Of the bottleneck only.
        make = functools.partial(layers.Conv, dtype=dtype, rngs=rngs)
        norm = functools.partial(layers.BatchNorm, dtype=dtype, rngs=rngs)
        self.conv1, self.bn1 = make(in_features, width, 3, stride=stride), norm(width)
        self.conv2, self.bn2 = make(width, width, 3), norm(width)
        self.downsample = _downsample(in_features, width, stride, dtype, rngs)
        self.drop_path = layers.DropPath(rate)
        _zero_scale(self.bn2, width)

    def __call__(self, x, *, rngs=None):
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.drop_path(self.bn2(self.conv2(y)), rngs=rngs)
        return jax.nn.relu(y + _shortcut(self.downsample, x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (strided, grouped), 1x1: [B, H, W, C] -> [B, H / stride, W / stride, 4 width]."""

    expansion = 4

    def __init__(self, in_features, width, *, stride, groups, group_width, rate=0.0, dtype, rngs):
        make = functools.partial(layers.Conv, dtype=dtype, rngs=rngs)
        norm = functools.partial(layers.BatchNorm, dtype=dtype, rngs=rngs)
        inner, out_features = width * group_width // 64 * groups, 4 * width
        self.conv1, self.bn1 = make(in_features, inner, 1), norm(inner)
        self.conv2, self.bn2 = make(inner, inner, 3, stride=stride, groups=groups), norm(inner)
        self.conv3, self.bn3 = make(inner, out_features, 1), norm(out_features)
        self.downsample = _downsample(in_features, out_features, stride, dtype, rngs)
        if groups > 1:
            # timm's fan out counts every output channel, not only those of one group.
            self.conv2.kernel = nnx.Param(self.conv2.kernel[...] * groups**-0.5)
        self.drop_path = layers.DropPath(rate)
        _zero_scale(self.bn3, out_features)

    def __call__(self, x, *, rngs=None):
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = self.drop_path(self.bn3(self.conv3(y)), rngs=rngs)
        return jax.nn.relu(y + _shortcut(self.downsample, x))


class ResNet(nnx.Module):
    """Maps "stem" (after the first ReLU, before the pooling), "stage1" ... "stage4", "features"."""

    def __init__(
        self,
        block,
        depths,
        groups=1,
        group_width=64,
        *,
        dtype,
        rngs,
        last="features",
        drop_path=0.0,
        remat=False,
    ):
        stages = list(_strides()).index(last)  # "stem" is 0; "features" comes after "stage4".
        self.stages = min(stages, len(depths))
        self.remat = remat
        rates = layers.drop_rates(drop_path, depths)
        self.conv1 = layers.Conv(3, 64, 7, stride=2, padding=3, dtype=dtype, rngs=rngs)
        self.bn1 = layers.BatchNorm(64, dtype=dtype, rngs=rngs)
        features = 64
        for stage in range(self.stages):
            blocks = []
            for index in range(depths[stage]):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(
                    block(
                        features,
                        WIDTHS[stage],
                        stride=stride,
                        groups=groups,
                        group_width=group_width,
                        rate=rates[stage][index],
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                features = WIDTHS[stage] * block.expansion
            setattr(self, f"layer{stage + 1}", layers.Blocks(blocks))

    def __call__(self, x, *, rngs=None):
        maps = {}
        x = maps["stem"] = jax.nn.relu(self.bn1(self.conv1(x)))
        x = layers.max_pool(x, 3, 2, 1)
        for stage in range(1, self.stages + 1):
            for block in getattr(self, f"layer{stage}"):
                x = bridge.run(block, x, rngs=rngs, remat=self.remat)
            maps[f"stage{stage}"] = x
        if self.stages == len(WIDTHS):
            maps["features"] = x
        return maps


def _strides():
    return {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32, "features": 32}


def row(block, depths, groups=1, group_width=64, *, parameters=0, weights=()) -> Backbone:
    """A row of BACKBONES; `depths` counts the blocks of each stage."""
    ordered = {"stem": ("conv1", "bn1")}
    layer_counts = {"stem": 1}
    for stage, depth in enumerate(depths, start=1):
        for index in range(depth):
            name = f"layer{stage}/{index}"
            ordered[name] = (name,)
        layer_counts[f"stage{stage}"] = len(ordered)
    channels = {f"stage{i}": w * block.expansion for i, w in enumerate(WIDTHS, start=1)}
    return Backbone(
        build=functools.partial(ResNet, block, depths, groups, group_width),
        channels={"stem": 64} | channels | {"features": channels["stage4"]},
        strides=_strides(),
        layers=ordered,
        depths=layer_counts | {"features": len(ordered)},
        weights={facts.source.rpartition(".")[2]: facts for facts in weights},
        head="gap",
        head_names={"fc": "fc"},
        parameters=parameters,
    )


def _timm(model, tag, file):
    releases = "https://github.com/huggingface/pytorch-image-models/releases/download"
    url = f"{releases}/v0.1-rsb-weights/{file}.pth"
    return timm_tag(model, tag, test_size=288, crop=0.95, test_crop=1.0, url=url)


RESNETS = {
    "resnet18": row(
        BasicBlock,
        (2, 2, 2, 2),
        parameters=11_689_512,
        weights=(
            _timm("resnet18", "a1_in1k", "resnet18_a1_0-d63eafa0"),
            torchvision_tag("resnet18", "f37072fd"),
        ),
    ),
    "resnet34": row(
        BasicBlock,
        (3, 4, 6, 3),
        parameters=21_797_672,
        weights=(
            _timm("resnet34", "a1_in1k", "resnet34_a1_0-46f8f793"),
            torchvision_tag("resnet34", "b627a593"),
        ),
    ),
    "resnet50": row(
        Bottleneck,
        (3, 4, 6, 3),
        parameters=25_557_032,
        weights=(
            _timm("resnet50", "a1_in1k", "resnet50_a1_0-14fe96d1"),
            torchvision_tag("resnet50", "0676ba61"),
            torchvision2_tag("resnet50", "11ad3fa6"),
        ),
    ),
    "resnet101": row(
        Bottleneck,
        (3, 4, 23, 3),
        parameters=44_549_160,
        weights=(
            _timm("resnet101", "a1h_in1k", "resnet101_a1h-36d3f2aa"),
            torchvision_tag("resnet101", "63fe2227"),
            torchvision2_tag("resnet101", "cd907fc2"),
        ),
    ),
    "resnet152": row(
        Bottleneck,
        (3, 8, 36, 3),
        parameters=60_192_808,
        weights=(
            _timm("resnet152", "a1h_in1k", "resnet152_a1h-dc400468"),
            torchvision_tag("resnet152", "394f9c45"),
            torchvision2_tag("resnet152", "f82ba261"),
        ),
    ),
    "resnext50_32x4d": row(
        Bottleneck,
        (3, 4, 6, 3),
        groups=32,
        group_width=4,
        parameters=25_028_904,
        weights=(
            _timm("resnext50_32x4d", "a1h_in1k", "resnext50_32x4d_a1h-0146ab0a"),
            torchvision_tag("resnext50_32x4d", "7cdf4587"),
            torchvision2_tag("resnext50_32x4d", "1a0047aa"),
        ),
    ),
}
