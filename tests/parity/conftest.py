import pytest

from fgc_jax import models

# Networks up to this size are compared each time; of the larger ones only these.
SMALL = 8_000_000
SAMPLE = (
    "resnet18",
    "resnet18d",
    "resnet50",
    "resnext50_32x4d",
    "resnetaa50d",
    "resnetv2_50",
    "resnetv2_50x1_bit",
    "inception_v3",
    "vgg11_bn",
    "tf_efficientnet_b2",
    "tf_efficientnetv2_s",
    "vit_small_patch16_224",
    "vit_base_patch32_224",
    "deit3_small_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
)


def pytest_addoption(parser):
    parser.addoption("--all-models", action="store_true", help="compare the largest networks too")


def chosen(everything: bool) -> list[str]:
    """The names of the networks to compare."""
    small = {name for name, row in models.BACKBONES.items() if row.parameters <= SMALL}
    return [name for name in models.BACKBONES if everything or name in small or name in SAMPLE]


def pytest_generate_tests(metafunc):
    if "network" in metafunc.fixturenames:
        metafunc.parametrize("network", chosen(metafunc.config.getoption("--all-models")))


@pytest.fixture(scope="session", autouse=True)
def float32_products():
    """PyTorch's own default, stated: no reduced precision in the oracle."""
    import torch

    torch.set_float32_matmul_precision("highest")
