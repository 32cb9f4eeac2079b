"""ConvNeXt, V1 and V2 (global response normalisation in place of layer scale).

Papers: A ConvNet for the 2020s (arXiv 2201.03545); ConvNeXt V2: Co-designing and Scaling ConvNets
with Masked Autoencoders (arXiv 2301.00808). Names and numbers follow timm.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.models import bridge, layers
from fgc_jax.models.backbone import Backbone, timm_tag

STRIDES = {"stem": 4, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}


def _truncated(layer, rngs):
    """The layer, its kernel drawn as timm draws all of ConvNeXt's: normal of width 0.02."""
    shape = layer.kernel.shape
    layer.kernel = nnx.Param(0.02 * jax.random.truncated_normal(rngs.params(), -2, 2, shape))
    return layer


def _conv(*shape, dtype, rngs, **options):
    layer = layers.Conv(*shape, padding=0, use_bias=True, dtype=dtype, rngs=rngs, **options)
    return _truncated(layer, rngs)


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
        # The floor is on the square: the gradient of a square root at zero is not finite.
        norms = jnp.sqrt(jnp.maximum(squares, 1e-24))
        relative = norms / (norms.mean(-1, keepdims=True) + 1e-6)
        factor = 1 + self.scale[...].reshape(1, 1, 1, -1) * relative
        return (x * factor + self.bias[...].reshape(1, 1, 1, -1)).astype(self.dtype)


class Mlp(nnx.Module):
    """Two layers with four times the channels between them; `grn` puts ResponseNorm there.

    pointwise: the published weights of the layers are those of 1x1 convolutions.
    """

    def __init__(self, features, *, grn, pointwise, dtype, rngs):
        def make(inputs, outputs):
            if pointwise:
                return _conv(inputs, outputs, 1, dtype=dtype, rngs=rngs)
            return _truncated(layers.Linear(inputs, outputs, dtype=dtype, rngs=rngs), rngs)

        self.fc1 = make(features, 4 * features)
        self.grn = ResponseNorm(4 * features, dtype=dtype) if grn else None
        self.fc2 = make(4 * features, features)

    def __call__(self, x):
        x = jax.nn.gelu(self.fc1(x), approximate=False)
        if self.grn is not None:
            x = self.grn(x)
        return self.fc2(x)


class Block(nnx.Module):
    """Depthwise 7x7, layer norm, Mlp, layer scale if not `grn`: [B, H, W, C] -> the same shape."""

    def __init__(self, features, *, grn, pointwise, rate, dtype, rngs):
        dw = layers.Conv(
            features, features, 7, groups=features, use_bias=True, dtype=dtype, rngs=rngs
        )
        self.conv_dw = _truncated(dw, rngs)
        self.norm = layers.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(features, grn=grn, pointwise=pointwise, dtype=dtype, rngs=rngs)
        self.gamma = None if grn else nnx.Param(jnp.full(features, 1e-6))
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        y = self.mlp(self.norm(self.conv_dw(x)))
        if self.gamma is not None:
            y = y * self.gamma[...].astype(y.dtype).reshape(1, 1, 1, -1)
        return x + self.drop_path(y, rngs=rngs)


def _downsample(in_features, features, dtype, rngs):
    if in_features == features:
        return None
    norm = layers.LayerNorm(in_features, dtype=dtype, rngs=rngs)
    return layers.Chain([norm, _conv(in_features, features, 2, stride=2, dtype=dtype, rngs=rngs)])


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
    """The layer norm that the published classifier has before its linear layer."""

    def __init__(self, features, *, dtype, rngs):
        self.norm = layers.LayerNorm(features, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.norm(x.astype(jnp.float32).mean((1, 2), keepdims=True))


class ConvNeXt(nnx.Module):
    """Maps "stem", "stage1" ... "stage4", "features" (the last stage's) and "pooled".

    Raises ValueError for images smaller than the stride of the last map.
    """

    def __init__(
        self,
        depths,
        widths,
        *,
        grn,
        pointwise,
        dtype,
        rngs,
        last="features",
        drop_path=0.0,
        remat=False,
    ):
        names = list(STRIDES)
        self.last = last
        self.remat = remat
        count = names.index(last) if last in names else len(depths)
        rates = layers.drop_rates(drop_path, depths)
        options = {"grn": grn, "pointwise": pointwise, "dtype": dtype, "rngs": rngs}
        stem = _conv(3, widths[0], 4, stride=4, dtype=dtype, rngs=rngs)
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


def row(depths, width, *, grn=False, pointwise=False, parameters=0, gflops=0.0, weights=()):
    """A row of BACKBONES; depths: blocks of each stage, width: channels of the first; see Mlp."""
    widths = tuple(width * 2**stage for stage in range(len(depths)))
    ordered, counts = {"stem": ("stem",)}, {"stem": 1}
    for stage, depth in enumerate(depths):
        for index in range(depth):
            name = f"stages/{stage}/blocks/{index}"
            joined = stage > 0 and index == 0
            ordered[name] = (f"stages/{stage}/downsample", name) if joined else (name,)
        counts[f"stage{stage + 1}"] = len(ordered)
    counts["features"] = len(ordered)
    ordered["head/norm"] = ("head/norm",)
    channels = {"stem": widths[0]} | {f"stage{i}": w for i, w in enumerate(widths, start=1)}
    return Backbone(
        build=functools.partial(ConvNeXt, depths, widths, grn=grn, pointwise=pointwise),
        channels=channels | {"features": widths[-1], "pooled": widths[-1]},
        strides=STRIDES | {"features": 32, "pooled": 0},
        layers=ordered,
        depths=counts | {"pooled": len(ordered)},
        weights={facts.source.rpartition(".")[2]: facts for facts in weights},
        head="gap",
        head_names={"head.fc": "fc"},
        parameters=parameters,
        gflops=gflops,
    )


_FILES = "https://dl.fbaipublicfiles.com/convnext/"
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def _in12k(model):
    """timm's own: trained on ImageNet-12k, and fine-tuned on ImageNet-1k from there."""
    return (
        timm_tag(model, "in12k_ft_in1k", test_size=288, crop=0.95, test_crop=1.0),
        timm_tag(model, "in12k_ft_in1k_384", size=384, crop=1.0),
        timm_tag(model, "in12k", crop=0.95, classes=11821),
    )


def _meta(model):
    """Meta's, which every size of V1 has: ImageNet-22k's, ImageNet-1k's, and DINOv3's."""

    def tag(name, file, **facts):
        return timm_tag(model, name, url=f"{_FILES}{model}_{file}.pth", **facts)

    larger = {"test_size": 288, "test_crop": 1.0}
    return (
        tag("fb_in22k_ft_in1k", "22k_1k_224", **larger),
        tag("fb_in22k_ft_in1k_384", "22k_1k_384", size=384, crop=1.0),
        tag("fb_in22k", "22k_224", classes=21841),
        tag("fb_in1k", "1k_224_ema", **larger),
        timm_tag(model, "dinov3_lvd1689m", crop=1.0, licence="dinov3-license", classes=0),
    )


def _clip(model):
    """From CLIP's image encoder, trained on LAION-2B, by way of ImageNet-12k."""
    tag = functools.partial(timm_tag, model, norm=_CLIP, crop=1.0)
    return (
        tag("clip_laion2b_augreg_ft_in12k_in1k", size=256),
        tag("clip_laion2b_augreg_ft_in12k_in1k_384", size=384),
        tag("clip_laion2b_augreg_ft_in12k", size=256, classes=11821),
    )


def _fcmae(model, *, in22k=False, test_crop=1.0):
    """Meta's V2: masked autoencoding (fcmae) alone, and fine-tuned on labels from there."""

    def tag(name, file, **facts):
        url = f"{_FILES}convnextv2/{file.format(model)}.pt"
        return timm_tag(model, name, url=url, licence="cc-by-nc-4.0", **facts)

    larger = {"test_size": 288, "test_crop": test_crop}
    labelled = (
        tag("fcmae_ft_in22k_in1k", "im22k/{}_22k_224_ema", **larger),
        tag("fcmae_ft_in22k_in1k_384", "im22k/{}_22k_384_ema", size=384, crop=1.0),
    )
    return (
        *(labelled if in22k else ()),
        tag("fcmae_ft_in1k", "im1k/{}_1k_224_ema", **larger),
        tag("fcmae", "pt_only/{}_1k_224_fcmae", classes=0),
    )


_ATTO, _TINY, _BASE = (2, 2, 6, 2), (3, 3, 9, 3), (3, 3, 27, 3)
# timm computes the smallest four of V2 with 1x1 convolutions.
_v2 = functools.partial(row, grn=True)
_v2_small = functools.partial(row, grn=True, pointwise=True)

CONVNEXTS = {
    "convnext_tiny": row(
        _TINY,
        96,
        parameters=28_589_128,
        gflops=4.46,
        weights=_in12k("convnext_tiny") + _meta("convnext_tiny"),
    ),
    "convnext_small": row(
        _BASE,
        96,
        parameters=50_223_688,
        gflops=8.68,
        weights=_in12k("convnext_small") + _meta("convnext_small"),
    ),
    "convnext_base": row(
        _BASE,
        128,
        parameters=88_591_464,
        gflops=15.4,
        weights=_meta("convnext_base") + _clip("convnext_base"),
    ),
    "convnext_large": row(
        _BASE,
        192,
        parameters=197_767_336,
        gflops=34.4,
        weights=_meta("convnext_large"),
    ),
    "convnextv2_atto": _v2_small(
        _ATTO,
        40,
        parameters=3_708_400,
        gflops=0.547,
        weights=_fcmae("convnextv2_atto", test_crop=0.95),
    ),
    "convnextv2_femto": _v2_small(
        _ATTO,
        48,
        parameters=5_233_240,
        gflops=0.78,
        weights=_fcmae("convnextv2_femto", test_crop=0.95),
    ),
    "convnextv2_pico": _v2_small(
        _ATTO,
        64,
        parameters=9_066_280,
        gflops=1.37,
        weights=_fcmae("convnextv2_pico", test_crop=0.95),
    ),
    "convnextv2_nano": _v2_small(
        (2, 2, 8, 2),
        80,
        parameters=15_623_800,
        gflops=2.45,
        weights=_fcmae("convnextv2_nano", in22k=True),
    ),
    "convnextv2_tiny": _v2(
        _TINY,
        96,
        parameters=28_635_496,
        gflops=4.46,
        weights=_fcmae("convnextv2_tiny", in22k=True),
    ),
    "convnextv2_base": _v2(
        _BASE,
        128,
        parameters=88_717_800,
        gflops=15.4,
        weights=_fcmae("convnextv2_base", in22k=True),
    ),
    "convnextv2_large": _v2(
        _BASE,
        192,
        parameters=197_956_840,
        gflops=34.4,
        weights=_fcmae("convnextv2_large", in22k=True),
    ),
}
