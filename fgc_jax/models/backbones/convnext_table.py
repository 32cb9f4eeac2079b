"""The rows of ConvNeXt, V1 and V2."""

import functools

from fgc_jax.models.backbone import CLIP, Backbone, stage_layers, timm_facts
from fgc_jax.models.backbones import convnext


def row(depths, width, parameters=0, gflops=0.0, weights=None, *, grn=False, pointwise=False):
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
        weights=weights or {},
        head="gap",
        head_names={"head.fc": "fc"},
        # Weights of masked autoencoding alone have no norm after the pooling.
        optional=("head/norm",) if grn else (),
        parameters=parameters,
        gflops=gflops,
    )


_FILES = "https://dl.fbaipublicfiles.com/convnext/"
_LARGER = (288, 1.0)  # Pixels and crop in tests.

# timm's own: trained on ImageNet-12k, and then fine-tuned on ImageNet-1k.
_IN12K = {
    "in12k_ft_in1k": timm_facts(crop=0.95, test=_LARGER),
    "in12k_ft_in1k_384": timm_facts(size=384, crop=1.0),
    "in12k": timm_facts(crop=0.95, classes=11821),
}


def _meta_facts(file, **facts):
    return timm_facts(url=f"{_FILES}{{model}}_{file}.pth", **facts)


# Meta's, for every size of V1: of ImageNet-22k, ImageNet-1k and DINOv3.
_META = {
    "fb_in22k_ft_in1k": _meta_facts("22k_1k_224", test=_LARGER),
    "fb_in22k_ft_in1k_384": _meta_facts("22k_1k_384", size=384, crop=1.0),
    "fb_in22k": _meta_facts("22k_224", classes=21841),
    "fb_in1k": _meta_facts("1k_224_ema", test=_LARGER),
    "dinov3_lvd1689m": timm_facts(crop=1.0, license="dinov3-license", classes=0),
}
# From CLIP's image encoder, trained on LAION-2B, then fine-tuned on ImageNet-12k.
_CLIP = {
    "clip_laion2b_augreg_ft_in12k_in1k": timm_facts(norm=CLIP, size=256, crop=1.0),
    "clip_laion2b_augreg_ft_in12k_in1k_384": timm_facts(norm=CLIP, size=384, crop=1.0),
    "clip_laion2b_augreg_ft_in12k": timm_facts(norm=CLIP, size=256, crop=1.0, classes=11821),
}


def _fcmae_facts(file, **facts):
    url = f"{_FILES}convnextv2/{file}.pt"
    return timm_facts(url=url, license="cc-by-nc-4.0", **facts)


def _fcmae(test_crop=1.0):
    """Meta's V2: masked autoencoding (fcmae) only, and then fine-tuned on labels."""
    return {
        "fcmae_ft_in1k": _fcmae_facts("im1k/{model}_1k_224_ema", test=(288, test_crop)),
        "fcmae": _fcmae_facts("pt_only/{model}_1k_224_fcmae", classes=0),
    }


_FCMAE = {
    "fcmae_ft_in22k_in1k": _fcmae_facts("im22k/{model}_22k_224_ema", test=_LARGER),
    "fcmae_ft_in22k_in1k_384": _fcmae_facts("im22k/{model}_22k_384_ema", size=384, crop=1.0),
    **_fcmae(),
}
_SMALL_FCMAE = _fcmae(test_crop=0.95)


_ATTO, _NANO, _TINY, _BASE = (2, 2, 6, 2), (2, 2, 8, 2), (3, 3, 9, 3), (3, 3, 27, 3)
# timm computes the smallest four of V2 with 1x1 convolutions.
_v2 = functools.partial(row, grn=True)
_v2_small = functools.partial(row, grn=True, pointwise=True)

CONVNEXTS = {
    "convnext_tiny": row(_TINY, 96, 28_589_128, 4.46, _IN12K | _META),
    "convnext_small": row(_BASE, 96, 50_223_688, 8.68, _IN12K | _META),
    "convnext_base": row(_BASE, 128, 88_591_464, 15.4, _META | _CLIP),
    "convnext_large": row(_BASE, 192, 197_767_336, 34.4, _META),
    "convnextv2_atto": _v2_small(_ATTO, 40, 3_708_400, 0.547, _SMALL_FCMAE),
    "convnextv2_femto": _v2_small(_ATTO, 48, 5_233_240, 0.78, _SMALL_FCMAE),
    "convnextv2_pico": _v2_small(_ATTO, 64, 9_066_280, 1.37, _SMALL_FCMAE),
    "convnextv2_nano": _v2_small(_NANO, 80, 15_623_800, 2.45, _FCMAE),
    "convnextv2_tiny": _v2(_TINY, 96, 28_635_496, 4.46, _FCMAE),
    "convnextv2_base": _v2(_BASE, 128, 88_717_800, 15.4, _FCMAE),
    "convnextv2_large": _v2(_BASE, 192, 197_956_840, 34.4, _FCMAE),
}
