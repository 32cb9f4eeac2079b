"""The rows of vit.py: shapes, and the facts of each set of weights as stated by timm."""

from fgc_jax.models.backbone import CLIP, HALF, Backbone, timm_facts
from fgc_jax.models.backbones.vit import BASE, LARGE, SMALL, TINY, vit

GOOGLE = "https://storage.googleapis.com/vit_models"
FACEBOOK = "https://dl.fbaipublicfiles.com"
TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx"

# The recipes of "How to train your ViT" by data set, as in the names of the original files.
IN21K = {
    "tiny16": "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0",
    "small16": "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0",
    "base32": "B_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.03-do_0.0-sd_0.0",
    "base32_384": "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0",
    "base16": "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0",
    "large16": "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1",
}
IN1K = {
    "small16": "S_16-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0",
    "base32": "B_32-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.1-sd_0.1",
    "base16": "B_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1",
}


_384 = {"size": 384, "crop": 1.0}


def _google(file="", **facts):
    """Facts with the size and crop of most weights; file: below Google's folder."""
    url = f"{GOOGLE}/{file}" if file else ""
    return timm_facts(**{"norm": HALF, "crop": 0.9, "url": url} | facts)


def _tuned(recipe, rate="0.01", size=224):
    file = f"{recipe}--imagenet2012-steps_20k-lr_{rate}-res_{size}.npz"
    return _google(f"augreg/{file}", size=size, crop=1.0 if size == 384 else 0.9)


def _untuned(recipe):
    return _google(f"augreg/{recipe}.npz", classes=21843)


def _facebook(file, **facts):
    return timm_facts(url=f"{FACEBOOK}/{file}.pth", **facts)


def _self_taught(file, **facts):
    return _facebook(file, crop=0.9, classes=0, **facts)


def _clip(crop, classes=1000):
    return timm_facts(norm=CLIP, crop=crop, classes=classes)


def _vit(shape, patch, parameters, /, **weights) -> Backbone:
    return vit(shape, patch, parameters=parameters, weights=weights)


VITS = {
    "vit_tiny_patch16_224": _vit(
        TINY,
        16,
        5_717_416,
        augreg_in21k_ft_in1k=_tuned(IN21K["tiny16"], "0.03"),
        augreg_in21k=_untuned(IN21K["tiny16"]),
    ),
    "vit_small_patch16_224": _vit(
        SMALL,
        16,
        22_050_664,
        augreg_in21k_ft_in1k=_tuned(IN21K["small16"], "0.03"),
        augreg_in21k=_untuned(IN21K["small16"]),
        augreg_in1k=_tuned(IN1K["small16"]),
        dino=_self_taught("dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain"),
    ),
    "vit_small_patch16_384": _vit(
        SMALL,
        16,
        22_196_584,
        augreg_in21k_ft_in1k=_tuned(IN21K["small16"], "0.03", 384),
        augreg_in1k=_tuned(IN1K["small16"], size=384),
    ),
    "vit_base_patch32_224": _vit(
        BASE,
        32,
        88_224_232,
        augreg_in21k_ft_in1k=_tuned(IN21K["base32"], "0.03"),
        augreg_in21k=_untuned(IN21K["base32"]),
        augreg_in1k=_tuned(IN1K["base32"]),
        orig_in21k=_google(classes=0),
        sam_in1k=_google("sam/ViT-B_32.npz"),
    ),
    "vit_base_patch32_384": _vit(
        BASE,
        32,
        88_297_192,
        augreg_in21k_ft_in1k=_tuned(IN21K["base32_384"], "0.03", 384),
        augreg_in1k=_tuned(IN1K["base32"], size=384),
    ),
    "vit_base_patch16_224": _vit(
        BASE,
        16,
        86_567_656,
        augreg2_in21k_ft_in1k=_google(),
        augreg_in21k_ft_in1k=_tuned(IN21K["base16"]),
        augreg_in21k=_untuned(IN21K["base16"]),
        augreg_in1k=_tuned(IN1K["base16"]),
        orig_in21k_ft_in1k=_google(url=f"{TIMM}/jx_vit_base_p16_224-80ecf9dd.pth"),
        orig_in21k=_google(classes=0),
        sam_in1k=_google("sam/ViT-B_16.npz"),
        dino=_self_taught("dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain"),
        mae=_self_taught("mae/pretrain/mae_pretrain_vit_base", license="cc-by-nc-4.0"),
    ),
    "vit_base_patch16_384": _vit(
        BASE,
        16,
        86_859_496,
        augreg_in21k_ft_in1k=_tuned(IN21K["base16"], size=384),
        augreg_in1k=_tuned(IN1K["base16"], size=384),
        orig_in21k_ft_in1k=_google(url=f"{TIMM}/jx_vit_base_p16_384-83fb41ba.pth", **_384),
    ),
    "vit_large_patch16_224": _vit(
        LARGE,
        16,
        304_326_632,
        augreg_in21k_ft_in1k=_tuned(IN21K["large16"]),
        augreg_in21k=_untuned(IN21K["large16"]),
        orig_in21k=_google(classes=0),
        mae=_self_taught("mae/pretrain/mae_pretrain_vit_large", license="cc-by-nc-4.0"),
    ),
    "vit_large_patch16_384": _vit(
        LARGE, 16, 304_715_752, augreg_in21k_ft_in1k=_tuned(IN21K["large16"], size=384)
    ),
    "vit_base_patch16_clip_224": vit(
        BASE,
        16,
        parameters=86_568_424,
        pre_norm=True,
        epsilon=1e-5,
        weights={
            "laion2b_ft_in12k_in1k": _clip(0.95),
            "laion2b_ft_in12k": _clip(0.9, 11821),
            "laion2b_ft_in1k": _clip(1.0),
            "openai_ft_in12k_in1k": _clip(0.95),
            "openai_ft_in12k": _clip(0.9, 11821),
            "openai_ft_in1k": _clip(0.9),
        },
    ),
}


def _deit3(shape, size, letter, parameters):
    """DeiT-III with a patch of 16: trained on ImageNet-1k, or on 22k and then 1k."""
    file = f"deit/deit_3_{letter}_{size}"
    return vit(
        shape,
        16,
        parameters=parameters,
        embed_prefix=False,
        layer_scale=1e-6,
        weights={
            "fb_in1k": _facebook(f"{file}_1k", size=size, crop=1.0 if size == 384 else 0.9),
            "fb_in22k_ft_in1k": _facebook(f"{file}_21k", size=size, crop=1.0),
        },
    )


DEIT3S = {
    "deit3_small_patch16_224": _deit3(SMALL, 224, "small", 22_059_496),
    "deit3_small_patch16_384": _deit3(SMALL, 384, "small", 22_205_416),
    "deit3_base_patch16_224": _deit3(BASE, 224, "base", 86_585_320),
    "deit3_base_patch16_384": _deit3(BASE, 384, "base", 86_877_160),
    "deit3_large_patch16_224": _deit3(LARGE, 224, "large", 304_374_760),
    "deit3_large_patch16_384": _deit3(LARGE, 384, "large", 304_763_880),
}


def _dinov2(shape, letter, registers, parameters):
    suffix = "_reg4_pretrain" if registers else "_pretrain"
    file = f"dinov2/dinov2_vit{letter}14/dinov2_vit{letter}14{suffix}"
    return vit(
        shape,
        14,
        parameters=parameters,
        registers=registers,
        embed_prefix=not registers,
        layer_scale=1e-5,
        weights={"lvd142m": _facebook(file, size=518, crop=1.0, classes=0)},
    )


DINOV2S = {
    "vit_small_patch14_dinov2": _dinov2(SMALL, "s", 0, 22_056_192),
    "vit_base_patch14_dinov2": _dinov2(BASE, "b", 0, 86_579_712),
    "vit_large_patch14_dinov2": _dinov2(LARGE, "l", 0, 304_367_616),
    "vit_small_patch14_reg4_dinov2": _dinov2(SMALL, "s", 4, 22_057_344),
    "vit_base_patch14_reg4_dinov2": _dinov2(BASE, "b", 4, 86_582_016),
    "vit_large_patch14_reg4_dinov2": _dinov2(LARGE, "l", 4, 304_370_688),
}

VITS |= DEIT3S | DINOV2S
