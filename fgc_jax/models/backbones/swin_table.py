"""The rows of the Swin Transformers, V1."""

import functools

from fgc_jax.models.backbone import Backbone, by_tag, stage_layers, timm_tag
from fgc_jax.models.backbones import swin


def row(width, depths, window=7, *, parameters=0, gflops=0.0, weights=()) -> Backbone:
    """A row of BACKBONES; width: channels of the first stage, depths: blocks of each stage."""
    ordered, counts = stage_layers("patch_embed", "layers", depths, "norm")
    widths = {f"stage{stage + 1}": width * 2**stage for stage in range(len(depths))}
    return Backbone(
        build=functools.partial(swin.Swin, width, depths, window),
        channels={"stem": width} | widths | {"features": widths["stage4"]},
        strides=swin.STRIDES | {"features": 32},
        layers=ordered,
        depths=counts,
        weights=by_tag(weights),
        head="gap",
        head_names={"head.fc": "fc"},
        parameters=parameters,
        gflops=gflops,
        resample={"relative_position_bias_table": swin.fit_table},
    )


def _microsoft(model, *tags):
    """Facts of Microsoft's weights; tags in the order of timm's preference."""
    facts = {"size": 384, "crop": 1.0} if model.endswith("384") else {"crop": 0.9}
    version = "1.0.8" if "tiny" in model or "small" in model else "1.0.0"
    tuned = "22kto1k_finetune" if version == "1.0.8" else "22kto1k"
    files = {
        "ms_in1k": ("1.0.0", "", {}),
        "ms_in22k_ft_in1k": (version, f"_{tuned}", {}),
        "ms_in22k": (version, "_22k", {"classes": 21841}),
    }
    releases = "https://github.com/SwinTransformer/storage/releases/download"
    return tuple(
        timm_tag(
            model,
            tag,
            licence="mit",
            url=f"{releases}/v{files[tag][0]}/{model}{files[tag][1]}.pth",
            **facts,
            **files[tag][2],
        )
        for tag in tags
    )


_TUNED, _IN1K, _IN22K = "ms_in22k_ft_in1k", "ms_in1k", "ms_in22k"
_DEEP = (2, 2, 18, 2)

SWINS = {
    "swin_tiny_patch4_window7_224": row(
        96,
        (2, 2, 6, 2),
        parameters=28_288_354,
        gflops=4.49,
        weights=_microsoft("swin_tiny_patch4_window7_224", _IN1K, _TUNED, _IN22K),
    ),
    "swin_small_patch4_window7_224": row(
        96,
        _DEEP,
        parameters=49_606_258,
        gflops=8.74,
        weights=_microsoft("swin_small_patch4_window7_224", _TUNED, _IN1K, _IN22K),
    ),
    "swin_base_patch4_window7_224": row(
        128,
        _DEEP,
        parameters=87_768_224,
        gflops=15.4,
        weights=_microsoft("swin_base_patch4_window7_224", _TUNED, _IN1K, _IN22K),
    ),
    "swin_base_patch4_window12_384": row(
        128,
        _DEEP,
        12,
        parameters=87_903_584,
        gflops=47.1,
        weights=_microsoft("swin_base_patch4_window12_384", _TUNED, _IN1K, _IN22K),
    ),
    "swin_large_patch4_window7_224": row(
        192,
        _DEEP,
        parameters=196_532_476,
        gflops=34.5,
        weights=_microsoft("swin_large_patch4_window7_224", _TUNED, _IN22K),
    ),
    "swin_large_patch4_window12_384": row(
        192,
        _DEEP,
        12,
        parameters=196_735_516,
        gflops=104.0,
        weights=_microsoft("swin_large_patch4_window12_384", _TUNED, _IN22K),
    ),
}
