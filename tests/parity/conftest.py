import pytest

from fgc_jax import models

# Networks up to this size are compared each time; of the larger ones only these.
SMALL = 31_000_000
SAMPLE = ("vgg16", "resnet101", "vit_base_patch32_224", "convnext_base")


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
