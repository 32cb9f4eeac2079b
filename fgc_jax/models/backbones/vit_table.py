"""The rows of vit.py: shapes, and the facts of each set of weights as stated by timm."""

from fgc_jax.models.backbone import HALF, IMAGENET, timm_tag
from fgc_jax.models.backbones.vit import BASE, LARGE, SMALL, TINY, vit

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
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


def _facts(model, tag, *, norm=HALF, **facts):
    """Sizes and crops of all weights of a model."""
    size = 384 if model.endswith("_384") else 224
    crop = 1.0 if size == 384 else 0.9
    return timm_tag(model, tag, **{"norm": norm, "size": size, "crop": crop} | facts)


def _tuned(model, recipe, rate="0.01", tag="augreg_in21k_ft_in1k"):
    size = 384 if model.endswith("_384") else 224
    file = f"{recipe}--imagenet2012-steps_20k-lr_{rate}-res_{size}.npz"
    return _facts(model, tag, url=f"{GOOGLE}/augreg/{file}")


def _untuned(model, recipe):
    return _facts(model, "augreg_in21k", url=f"{GOOGLE}/augreg/{recipe}.npz", classes=21843)


def _self_taught(model, tag, file, licence="apache-2.0"):
    url = f"{FACEBOOK}/{file}"
    return _facts(model, tag, norm=IMAGENET, url=url, licence=licence, classes=0)


def _orig(model, file):
    return _facts(model, "orig_in21k_ft_in1k", url=f"{TIMM}/{file}.pth")


VITS = {
    "vit_tiny_patch16_224": vit(
        TINY,
        16,
        parameters=5_717_416,
        weights=(
            _tuned("vit_tiny_patch16_224", IN21K["tiny16"], "0.03"),
            _untuned("vit_tiny_patch16_224", IN21K["tiny16"]),
        ),
    ),
    "vit_small_patch16_224": vit(
        SMALL,
        16,
        parameters=22_050_664,
        weights=(
            _tuned("vit_small_patch16_224", IN21K["small16"], "0.03"),
            _untuned("vit_small_patch16_224", IN21K["small16"]),
            _tuned("vit_small_patch16_224", IN1K["small16"], tag="augreg_in1k"),
            _self_taught(
                "vit_small_patch16_224",
                "dino",
                "dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
            ),
        ),
    ),
    "vit_small_patch16_384": vit(
        SMALL,
        16,
        parameters=22_196_584,
        weights=(
            _tuned("vit_small_patch16_384", IN21K["small16"], "0.03"),
            _tuned("vit_small_patch16_384", IN1K["small16"], tag="augreg_in1k"),
        ),
    ),
    "vit_base_patch32_224": vit(
        BASE,
        32,
        parameters=88_224_232,
        weights=(
            _tuned("vit_base_patch32_224", IN21K["base32"], "0.03"),
            _untuned("vit_base_patch32_224", IN21K["base32"]),
            _tuned("vit_base_patch32_224", IN1K["base32"], tag="augreg_in1k"),
            _facts("vit_base_patch32_224", "orig_in21k", classes=0),
            _facts("vit_base_patch32_224", "sam_in1k", url=f"{GOOGLE}/sam/ViT-B_32.npz"),
        ),
    ),
    "vit_base_patch32_384": vit(
        BASE,
        32,
        parameters=88_297_192,
        weights=(
            _tuned("vit_base_patch32_384", IN21K["base32_384"], "0.03"),
            _tuned("vit_base_patch32_384", IN1K["base32"], tag="augreg_in1k"),
        ),
    ),
    "vit_base_patch16_224": vit(
        BASE,
        16,
        parameters=86_567_656,
        weights=(
            _facts("vit_base_patch16_224", "augreg2_in21k_ft_in1k"),
            _tuned("vit_base_patch16_224", IN21K["base16"]),
            _untuned("vit_base_patch16_224", IN21K["base16"]),
            _tuned("vit_base_patch16_224", IN1K["base16"], tag="augreg_in1k"),
            _orig("vit_base_patch16_224", "jx_vit_base_p16_224-80ecf9dd"),
            _facts("vit_base_patch16_224", "orig_in21k", classes=0),
            _facts("vit_base_patch16_224", "sam_in1k", url=f"{GOOGLE}/sam/ViT-B_16.npz"),
            _self_taught(
                "vit_base_patch16_224",
                "dino",
                "dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
            ),
            _self_taught(
                "vit_base_patch16_224",
                "mae",
                "mae/pretrain/mae_pretrain_vit_base.pth",
                "cc-by-nc-4.0",
            ),
        ),
    ),
    "vit_base_patch16_384": vit(
        BASE,
        16,
        parameters=86_859_496,
        weights=(
            _tuned("vit_base_patch16_384", IN21K["base16"]),
            _tuned("vit_base_patch16_384", IN1K["base16"], tag="augreg_in1k"),
            _orig("vit_base_patch16_384", "jx_vit_base_p16_384-83fb41ba"),
        ),
    ),
    "vit_large_patch16_224": vit(
        LARGE,
        16,
        parameters=304_326_632,
        weights=(
            _tuned("vit_large_patch16_224", IN21K["large16"]),
            _untuned("vit_large_patch16_224", IN21K["large16"]),
            _facts("vit_large_patch16_224", "orig_in21k", classes=0),
            _self_taught(
                "vit_large_patch16_224",
                "mae",
                "mae/pretrain/mae_pretrain_vit_large.pth",
                "cc-by-nc-4.0",
            ),
        ),
    ),
    "vit_large_patch16_384": vit(
        LARGE,
        16,
        parameters=304_715_752,
        weights=(_tuned("vit_large_patch16_384", IN21K["large16"]),),
    ),
    "vit_base_patch16_clip_224": vit(
        BASE,
        16,
        parameters=86_568_424,
        pre_norm=True,
        epsilon=1e-5,
        weights=tuple(
            _facts("vit_base_patch16_clip_224", tag, norm=CLIP, crop=crop, classes=classes)
            for tag, crop, classes in (
                ("laion2b_ft_in12k_in1k", 0.95, 1000),
                ("laion2b_ft_in12k", 0.9, 11821),
                ("laion2b_ft_in1k", 1.0, 1000),
                ("openai_ft_in12k_in1k", 0.95, 1000),
                ("openai_ft_in12k", 0.9, 11821),
                ("openai_ft_in1k", 0.9, 1000),
            )
        ),
    ),
}


def _deit3(shape, size, letter, parameters):
    """DeiT-III with a patch of 16: trained on ImageNet-1k, or on 22k and then 1k."""
    model = f"deit3_{letter}_patch16_{size}"
    return vit(
        shape,
        16,
        parameters=parameters,
        embed_prefix=False,
        layer_scale=1e-6,
        weights=tuple(
            _facts(
                model,
                tag,
                norm=IMAGENET,
                crop=1.0 if data == "21k" or size == 384 else 0.9,
                url=f"{FACEBOOK}/deit/deit_3_{letter}_{size}_{data}.pth",
            )
            for tag, data in (("fb_in1k", "1k"), ("fb_in22k_ft_in1k", "21k"))
        ),
    )


DEIT3S = {
    "deit3_small_patch16_224": _deit3(SMALL, 224, "small", 22_059_496),
    "deit3_small_patch16_384": _deit3(SMALL, 384, "small", 22_205_416),
    "deit3_base_patch16_224": _deit3(BASE, 224, "base", 86_585_320),
    "deit3_base_patch16_384": _deit3(BASE, 384, "base", 86_877_160),
    "deit3_large_patch16_224": _deit3(LARGE, 224, "large", 304_374_760),
    "deit3_large_patch16_384": _deit3(LARGE, 384, "large", 304_763_880),
}


def _dinov2(shape, model, letter, registers, parameters):
    file = f"dinov2_vit{letter}14"
    suffix = "_reg4_pretrain" if registers else "_pretrain"
    return vit(
        shape,
        14,
        parameters=parameters,
        registers=registers,
        embed_prefix=not registers,
        layer_scale=1e-5,
        weights=(
            timm_tag(
                model,
                "lvd142m",
                size=518,
                crop=1.0,
                url=f"{FACEBOOK}/dinov2/{file}/{file}{suffix}.pth",
                classes=0,
            ),
        ),
    )


DINOV2S = {
    model: _dinov2(shape, model, letter, registers, parameters)
    for model, shape, letter, registers, parameters in (
        ("vit_small_patch14_dinov2", SMALL, "s", 0, 22_056_192),
        ("vit_base_patch14_dinov2", BASE, "b", 0, 86_579_712),
        ("vit_large_patch14_dinov2", LARGE, "l", 0, 304_367_616),
        ("vit_small_patch14_reg4_dinov2", SMALL, "s", 4, 22_057_344),
        ("vit_base_patch14_reg4_dinov2", BASE, "b", 4, 86_582_016),
        ("vit_large_patch14_reg4_dinov2", LARGE, "l", 4, 304_370_688),
    )
}

VITS |= DEIT3S | DINOV2S
