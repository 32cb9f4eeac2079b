"""ResNets: the published variants and their weights; `resnet` is the network."""

from fgc_jax.models.backbone import HALF, timm_tag, torchvision2_tag, torchvision_tag
from fgc_jax.models.backbones.resnet import BasicBlock, Bottleneck, row

_RELEASES = "https://github.com/huggingface/pytorch-image-models/releases/download"
_GLUON = "https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1"
_FACEBOOK = "https://dl.fbaipublicfiles.com/semiweaksupervision/model_files"


def _strikes_back(model, tag, file):
    """Paper: ResNet strikes back (arXiv 2110.00476)."""
    url = f"{_RELEASES}/v0.1-rsb-weights/{file}.pth"
    return timm_tag(model, tag, test_size=288, crop=0.95, test_crop=1.0, url=url)


def _own(model, tag, file, **facts):
    """Trained by timm's author."""
    facts = {"test_size": 288, "test_crop": 0.95} | facts
    return timm_tag(model, tag, url=f"{_RELEASES}/v0.1-weights/{file}.pth", **facts)


def _long(model, crop=0.95):
    """3600 epochs."""
    return timm_tag(
        model, "ra4_e3600_r224_in1k", norm=HALF, test_size=288, crop=crop, test_crop=1.0
    )


def _gluon(model, file):
    return timm_tag(model, "gluon_in1k", url=f"{_GLUON}/{file}.pth")


def _sw_in12k(model, tag="sw_in12k", classes=11821):
    """Pretrained on ImageNet-12k, a part of ImageNet-21k."""
    return timm_tag(model, tag, test_size=288, crop=0.95, test_crop=1.0, classes=classes)


def _facebook(model, tag, url):
    return timm_tag(model, tag, interpolation="bilinear", licence="cc-by-nc-4.0", url=url)


def _billion(model, name, weakly, supervised):
    """Fine-tuned from a billion tagged pictures, and from a hundred million without labels.

    Paper: Billion-scale semi-supervised learning for image classification (arXiv 1905.00546).
    """
    semi = f"{_FACEBOOK}/semi"
    return (
        _facebook(model, "fb_swsl_ig1b_ft_in1k", f"{semi}_weakly_supervised_{name}-{weakly}.pth"),
        _facebook(model, "fb_ssl_yfcc100m_ft_in1k", f"{semi}_supervised_{name}-{supervised}.pth"),
    )


RESNETS = {
    "resnet18": row(
        BasicBlock,
        (2, 2, 2, 2),
        parameters=11_689_512,
        gflops=1.81,
        weights=(
            _strikes_back("resnet18", "a1_in1k", "resnet18_a1_0-d63eafa0"),
            torchvision_tag("resnet18", "f37072fd"),
            *_billion("resnet18", "resnet18", "118f1556", "d92f0530"),
        ),
    ),
    "resnet34": row(
        BasicBlock,
        (3, 4, 6, 3),
        parameters=21_797_672,
        gflops=3.66,
        weights=(
            _strikes_back("resnet34", "a1_in1k", "resnet34_a1_0-46f8f793"),
            torchvision_tag("resnet34", "b627a593"),
        ),
    ),
    "resnet50": row(
        Bottleneck,
        (3, 4, 6, 3),
        parameters=25_557_032,
        gflops=4.09,
        weights=(
            _strikes_back("resnet50", "a1_in1k", "resnet50_a1_0-14fe96d1"),
            torchvision_tag("resnet50", "0676ba61"),
            torchvision2_tag("resnet50", "11ad3fa6"),
            *_billion("resnet50", "resnet50", "16a12f1b", "08389792"),
        ),
    ),
    "resnet101": row(
        Bottleneck,
        (3, 4, 23, 3),
        parameters=44_549_160,
        gflops=7.8,
        weights=(
            _strikes_back("resnet101", "a1h_in1k", "resnet101_a1h-36d3f2aa"),
            torchvision_tag("resnet101", "63fe2227"),
            torchvision2_tag("resnet101", "cd907fc2"),
        ),
    ),
    "resnet152": row(
        Bottleneck,
        (3, 8, 36, 3),
        parameters=60_192_808,
        gflops=11.5,
        weights=(
            _strikes_back("resnet152", "a1h_in1k", "resnet152_a1h-dc400468"),
            torchvision_tag("resnet152", "394f9c45"),
            torchvision2_tag("resnet152", "f82ba261"),
        ),
    ),
    "resnext50_32x4d": row(
        Bottleneck,
        (3, 4, 6, 3),
        groups=32,
        group_width=4,
        parameters=25_028_904,
        gflops=4.23,
        weights=(
            _strikes_back("resnext50_32x4d", "a1h_in1k", "resnext50_32x4d_a1h-0146ab0a"),
            torchvision_tag("resnext50_32x4d", "7cdf4587"),
            torchvision2_tag("resnext50_32x4d", "1a0047aa"),
            *_billion("resnext50_32x4d", "resnext50_32x4", "72679e44", "ddb3e555"),
        ),
    ),
    "resnext101_32x8d": row(
        Bottleneck,
        (3, 4, 23, 3),
        groups=32,
        group_width=8,
        parameters=88_791_336,
        gflops=16.4,
        weights=(
            torchvision_tag("resnext101_32x8d", "8ba56ff5"),
            torchvision2_tag("resnext101_32x8d", "110c445d"),
            # Exploring the Limits of Weakly Supervised Pretraining (arXiv 1805.00932).
            _facebook(
                "resnext101_32x8d",
                "fb_wsl_ig1b_ft_in1k",
                "https://download.pytorch.org/models/ig_resnext101_32x8-c38310e5.pth",
            ),
            *_billion("resnext101_32x8d", "resnext101_32x8", "b4712904", "2cfe2f8b"),
        ),
    ),
    "wide_resnet50_2": row(
        Bottleneck,
        (3, 4, 6, 3),
        group_width=128,
        parameters=68_883_240,
        gflops=11.4,
        weights=(
            _own("wide_resnet50_2", "racm_in1k", "wide_resnet50_racm-8234f177"),
            torchvision_tag("wide_resnet50_2", "95faca4d"),
            torchvision2_tag("wide_resnet50_2", "9ba9bcbe"),
        ),
    ),
    "resnet18d": row(
        BasicBlock,
        (2, 2, 2, 2),
        deep=True,
        parameters=11_708_744,
        gflops=2.05,
        weights=(
            _own("resnet18d", "ra2_in1k", "resnet18d_ra2-48a79e06"),
            _long("resnet18d", crop=0.9),
        ),
    ),
    "resnet26d": row(
        Bottleneck,
        (2, 2, 2, 2),
        deep=True,
        parameters=16_014_408,
        gflops=2.58,
        weights=(_own("resnet26d", "bt_in1k", "resnet26d-69e92c46"),),
    ),
    "resnet34d": row(
        BasicBlock,
        (3, 4, 6, 3),
        deep=True,
        parameters=21_816_904,
        gflops=3.9,
        weights=(_own("resnet34d", "ra2_in1k", "resnet34d_ra2-f8dcfcaf"),),
    ),
    "resnet50d": row(
        Bottleneck,
        (3, 4, 6, 3),
        deep=True,
        parameters=25_576_264,
        gflops=4.33,
        weights=(
            _own("resnet50d", "ra2_in1k", "resnet50d_ra2-464e36ba"),
            _strikes_back("resnet50d", "a1_in1k", "resnet50d_a1_0-e20cff14"),
            _long("resnet50d"),
            _gluon("resnet50d", "gluon_resnet50_v1d-818a1b1b"),
        ),
    ),
    "resnet101d": row(
        Bottleneck,
        (3, 4, 23, 3),
        deep=True,
        parameters=44_568_392,
        gflops=10.5,
        weights=(
            _own(
                "resnet101d",
                "ra2_in1k",
                "resnet101d_ra2-2803ffab",
                size=256,
                test_size=320,
                crop=0.95,
                test_crop=1.0,
            ),
            _gluon("resnet101d", "gluon_resnet101_v1d-0f9c8644"),
        ),
    ),
    "resnet152d": row(
        Bottleneck,
        (3, 8, 36, 3),
        deep=True,
        parameters=60_212_040,
        gflops=15.4,
        weights=(
            _own(
                "resnet152d",
                "ra2_in1k",
                "resnet152d_ra2-5cac0439",
                size=256,
                test_size=320,
                crop=0.95,
                test_crop=1.0,
            ),
            _gluon("resnet152d", "gluon_resnet152_v1d-bd354e12"),
        ),
    ),
    "resnetaa50d": row(
        Bottleneck,
        (3, 4, 6, 3),
        deep=True,
        antialias=True,
        parameters=25_576_264,
        gflops=5.37,
        weights=(
            _sw_in12k("resnetaa50d", "sw_in12k_ft_in1k", classes=1000),
            _sw_in12k("resnetaa50d"),
            _sw_in12k("resnetaa50d", "d_in12k"),
        ),
    ),
    "resnetaa101d": row(
        Bottleneck,
        (3, 4, 23, 3),
        deep=True,
        antialias=True,
        parameters=44_568_392,
        gflops=9.08,
        weights=(
            _sw_in12k("resnetaa101d", "sw_in12k_ft_in1k", classes=1000),
            _sw_in12k("resnetaa101d"),
        ),
    ),
}
