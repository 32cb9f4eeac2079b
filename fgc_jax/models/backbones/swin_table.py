"""The rows of the Swin Transformers, V1."""

import functools

from fgc_jax.models.backbone import Backbone, stage_layers, timm_facts
from fgc_jax.models.backbones import swin


def row(width, depths, window=7, parameters=0, gflops=0.0, weights=None) -> Backbone:
    """A row of BACKBONES; width: channels of the first stage, depths: blocks of each stage."""
    ordered, counts = stage_layers("patch_embed", "layers", depths, "norm")
    widths = {f"stage{stage + 1}": width * 2**stage for stage in range(len(depths))}
    return Backbone(
        build=functools.partial(swin.Swin, width, depths, window),
        channels={"stem": width} | widths | {"features": widths["stage4"]},
        strides=swin.STRIDES | {"features": 32},
        layers=ordered,
        depths=counts,
        weights=weights or {},
        head="gap",
        head_names={"head.fc": "fc"},
        parameters=parameters,
        gflops=gflops,
        resample={"relative_position_bias_table": swin.fit_table},
    )


_RELEASES = "https://github.com/SwinTransformer/storage/releases/download"
_TUNED, _IN1K, _IN22K = "ms_in22k_ft_in1k", "ms_in1k", "ms_in22k"  # timm's tags
_LATER = {"version": "1.0.8", "tuned": "22kto1k_finetune"}
_384 = {"size": 384, "crop": 1.0}


def _microsoft(*tags, size=224, crop=0.9, version="1.0.0", tuned="22kto1k"):
    """Facts of Microsoft's weights; tags in the order of timm's preference."""
    files = {
        _IN1K: ("1.0.0", "", 1000),
        _TUNED: (version, f"_{tuned}", 1000),
        _IN22K: (version, "_22k", 21841),
    }
    return {
        tag: timm_facts(
            size=size,
            crop=crop,
            license="mit",
            url=f"{_RELEASES}/v{files[tag][0]}/{{model}}{files[tag][1]}.pth",
            classes=files[tag][2],
        )
        for tag in tags
    }


_DEEP = (2, 2, 18, 2)

SWINS = {
    "swin_tiny_patch4_window7_224": row(
        96, (2, 2, 6, 2), 7, 28_288_354, 4.49, _microsoft(_IN1K, _TUNED, _IN22K, **_LATER)
    ),
    "swin_small_patch4_window7_224": row(
        96, _DEEP, 7, 49_606_258, 8.74, _microsoft(_TUNED, _IN1K, _IN22K, **_LATER)
    ),
    "swin_base_patch4_window7_224": row(
        128, _DEEP, 7, 87_768_224, 15.4, _microsoft(_TUNED, _IN1K, _IN22K)
    ),
    "swin_base_patch4_window12_384": row(
        128, _DEEP, 12, 87_903_584, 47.1, _microsoft(_TUNED, _IN1K, _IN22K, **_384)
    ),
    "swin_large_patch4_window7_224": row(
        192, _DEEP, 7, 196_532_476, 34.5, _microsoft(_TUNED, _IN22K)
    ),
    "swin_large_patch4_window12_384": row(
        192, _DEEP, 12, 196_735_516, 104.0, _microsoft(_TUNED, _IN22K, **_384)
    ),
}
