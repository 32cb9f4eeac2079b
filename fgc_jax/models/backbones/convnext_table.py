"""The rows of ConvNeXt, V1 and V2."""

import functools

from fgc_jax.models.backbone import Backbone, by_tag, stage_layers, timm_tag
from fgc_jax.models.backbones import convnext


def row(depths, width, *, grn=False, pointwise=False, parameters=0, gflops=0.0, weights=()):
    """A row of BACKBONES; depths: blocks of each stage, width: channels of the first; see Mlp."""
    widths = tuple(width * 2**stage for stage in range(len(depths)))
    ordered, counts = stage_layers("stem", "stages", depths, "head/norm")
    channels = {"stem": widths[0]} | {f"stage{i}": w for i, w in enumerate(widths, start=1)}
    return Backbone(
        build=functools.partial(convnext.ConvNeXt, depths, widths, grn=grn, pointwise=pointwise),
        channels=channels | {"features": widths[-1], "pooled": widths[-1]},
        strides=convnext.STRIDES | {"features": 32, "pooled": 0},
        layers=ordered,
        depths=counts | {"pooled": len(ordered)},
        weights=by_tag(weights),
        head="gap",
        head_names={"head.fc": "fc"},
        # Weights of masked autoencoding alone have no norm after the pooling.
        optional=("head/norm",) if grn else (),
        parameters=parameters,
        gflops=gflops,
    )


_FILES = "https://dl.fbaipublicfiles.com/convnext/"
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def _in12k(model):
    """timm's own: trained on ImageNet-12k, and then fine-tuned on ImageNet-1k."""
    return (
        timm_tag(model, "in12k_ft_in1k", test_size=288, crop=0.95, test_crop=1.0),
        timm_tag(model, "in12k_ft_in1k_384", size=384, crop=1.0),
        timm_tag(model, "in12k", crop=0.95, classes=11821),
    )


def _meta(model):
    """Meta's, for every size of V1: of ImageNet-22k, ImageNet-1k and DINOv3."""

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
    """From CLIP's image encoder, trained on LAION-2B, then fine-tuned on ImageNet-12k."""
    tag = functools.partial(timm_tag, model, norm=_CLIP, crop=1.0)
    return (
        tag("clip_laion2b_augreg_ft_in12k_in1k", size=256),
        tag("clip_laion2b_augreg_ft_in12k_in1k_384", size=384),
        tag("clip_laion2b_augreg_ft_in12k", size=256, classes=11821),
    )


def _fcmae(model, *, in22k=False, test_crop=1.0):
    """Meta's V2: masked autoencoding (fcmae) only, and then fine-tuned on labels."""

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
