"""ResNets: the published variants and their weights; `resnet` is the network."""

from fgc_jax.models.backbone import HALF, Backbone, timm_facts, torchvision, torchvision2
from fgc_jax.models.backbones.resnet import BasicBlock, Bottleneck, row

_RELEASES = "https://github.com/huggingface/pytorch-image-models/releases/download"
_GLUON = "https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1"
_FACEBOOK = "https://dl.fbaipublicfiles.com/semiweaksupervision/model_files"
_DEEP = {"deep": True}
_ANTIALIAS = {"deep": True, "antialias": True}
_LARGE = {"size": 256, "crop": 0.95, "test": (320, 1.0)}


def _strikes_back(file):
    """Paper: ResNet strikes back (arXiv 2110.00476)."""
    url = f"{_RELEASES}/v0.1-rsb-weights/{file}.pth"
    return timm_facts(crop=0.95, test=(288, 1.0), url=url)


def _own(file, **facts):
    """Trained by timm's author."""
    facts = {"test": (288, 0.95)} | facts
    return timm_facts(url=f"{_RELEASES}/v0.1-weights/{file}.pth", **facts)


def _long(crop=0.95):
    """3600 epochs."""
    return timm_facts(norm=HALF, crop=crop, test=(288, 1.0))


def _gluon(file):
    return timm_facts(url=f"{_GLUON}/{file}.pth")


def _sw_in12k(classes=11821):
    """Pretrained on ImageNet-12k, a part of ImageNet-21k."""
    return timm_facts(crop=0.95, test=(288, 1.0), classes=classes)


def _facebook(url):
    return timm_facts(interpolation="bilinear", license="cc-by-nc-4.0", url=url)


def _billion(name, weakly, supervised):
    """Fine-tuned from a billion tagged pictures, and from a hundred million without labels.

    Paper: Billion-scale semi-supervised learning for image classification (arXiv 1905.00546).
    """
    semi = f"{_FACEBOOK}/semi"
    return {
        "fb_swsl_ig1b_ft_in1k": _facebook(f"{semi}_weakly_supervised_{name}-{weakly}.pth"),
        "fb_ssl_yfcc100m_ft_in1k": _facebook(f"{semi}_supervised_{name}-{supervised}.pth"),
    }


def _row(shape, form=None, /, **weights) -> Backbone:
    """shape: (block, blocks of each stage, parameters, gflops); form: other options of ResNet."""
    block, depths, parameters, gflops = shape
    return row(block, depths, parameters=parameters, gflops=gflops, weights=weights, **(form or {}))


RESNETS = {
    "resnet18": _row(
        (BasicBlock, (2, 2, 2, 2), 11_689_512, 1.81),
        a1_in1k=_strikes_back("resnet18_a1_0-d63eafa0"),
        tv_in1k=torchvision("f37072fd"),
        **_billion("resnet18", "118f1556", "d92f0530"),
    ),
    "resnet34": _row(
        (BasicBlock, (3, 4, 6, 3), 21_797_672, 3.66),
        a1_in1k=_strikes_back("resnet34_a1_0-46f8f793"),
        tv_in1k=torchvision("b627a593"),
    ),
    "resnet50": _row(
        (Bottleneck, (3, 4, 6, 3), 25_557_032, 4.09),
        a1_in1k=_strikes_back("resnet50_a1_0-14fe96d1"),
        tv_in1k=torchvision("0676ba61"),
        tv2_in1k=torchvision2("11ad3fa6"),
        **_billion("resnet50", "16a12f1b", "08389792"),
    ),
    "resnet101": _row(
        (Bottleneck, (3, 4, 23, 3), 44_549_160, 7.8),
        a1h_in1k=_strikes_back("resnet101_a1h-36d3f2aa"),
        tv_in1k=torchvision("63fe2227"),
        tv2_in1k=torchvision2("cd907fc2"),
    ),
    "resnet152": _row(
        (Bottleneck, (3, 8, 36, 3), 60_192_808, 11.5),
        a1h_in1k=_strikes_back("resnet152_a1h-dc400468"),
        tv_in1k=torchvision("394f9c45"),
        tv2_in1k=torchvision2("f82ba261"),
    ),
    "resnext50_32x4d": _row(
        (Bottleneck, (3, 4, 6, 3), 25_028_904, 4.23),
        {"groups": 32, "group_width": 4},
        a1h_in1k=_strikes_back("resnext50_32x4d_a1h-0146ab0a"),
        tv_in1k=torchvision("7cdf4587"),
        tv2_in1k=torchvision2("1a0047aa"),
        **_billion("resnext50_32x4", "72679e44", "ddb3e555"),
    ),
    "resnext101_32x8d": _row(
        (Bottleneck, (3, 4, 23, 3), 88_791_336, 16.4),
        {"groups": 32, "group_width": 8},
        tv_in1k=torchvision("8ba56ff5"),
        tv2_in1k=torchvision2("110c445d"),
        # Exploring the Limits of Weakly Supervised Pretraining (arXiv 1805.00932).
        fb_wsl_ig1b_ft_in1k=_facebook(
            "https://download.pytorch.org/models/ig_resnext101_32x8-c38310e5.pth"
        ),
        **_billion("resnext101_32x8", "b4712904", "2cfe2f8b"),
    ),
    "wide_resnet50_2": _row(
        (Bottleneck, (3, 4, 6, 3), 68_883_240, 11.4),
        {"group_width": 128},
        racm_in1k=_own("wide_resnet50_racm-8234f177"),
        tv_in1k=torchvision("95faca4d"),
        tv2_in1k=torchvision2("9ba9bcbe"),
    ),
    "resnet18d": _row(
        (BasicBlock, (2, 2, 2, 2), 11_708_744, 2.05),
        _DEEP,
        ra2_in1k=_own("resnet18d_ra2-48a79e06"),
        ra4_e3600_r224_in1k=_long(crop=0.9),
    ),
    "resnet26d": _row(
        (Bottleneck, (2, 2, 2, 2), 16_014_408, 2.58),
        _DEEP,
        bt_in1k=_own("resnet26d-69e92c46"),
    ),
    "resnet34d": _row(
        (BasicBlock, (3, 4, 6, 3), 21_816_904, 3.9),
        _DEEP,
        ra2_in1k=_own("resnet34d_ra2-f8dcfcaf"),
    ),
    "resnet50d": _row(
        (Bottleneck, (3, 4, 6, 3), 25_576_264, 4.33),
        _DEEP,
        ra2_in1k=_own("resnet50d_ra2-464e36ba"),
        a1_in1k=_strikes_back("resnet50d_a1_0-e20cff14"),
        ra4_e3600_r224_in1k=_long(),
        gluon_in1k=_gluon("gluon_resnet50_v1d-818a1b1b"),
    ),
    "resnet101d": _row(
        (Bottleneck, (3, 4, 23, 3), 44_568_392, 10.5),
        _DEEP,
        ra2_in1k=_own("resnet101d_ra2-2803ffab", **_LARGE),
        gluon_in1k=_gluon("gluon_resnet101_v1d-0f9c8644"),
    ),
    "resnet152d": _row(
        (Bottleneck, (3, 8, 36, 3), 60_212_040, 15.4),
        _DEEP,
        ra2_in1k=_own("resnet152d_ra2-5cac0439", **_LARGE),
        gluon_in1k=_gluon("gluon_resnet152_v1d-bd354e12"),
    ),
    "resnetaa50d": _row(
        (Bottleneck, (3, 4, 6, 3), 25_576_264, 5.37),
        _ANTIALIAS,
        sw_in12k_ft_in1k=_sw_in12k(classes=1000),
        sw_in12k=_sw_in12k(),
        d_in12k=_sw_in12k(),
    ),
    "resnetaa101d": _row(
        (Bottleneck, (3, 4, 23, 3), 44_568_392, 9.08),
        _ANTIALIAS,
        sw_in12k_ft_in1k=_sw_in12k(classes=1000),
        sw_in12k=_sw_in12k(),
    ),
}
