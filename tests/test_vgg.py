import pytest

from fgc_jax import models
from tests import networks, seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_stage5_is_the_map_before_the_last_pooling():
    whole = networks.forward("vgg11", 4, head="gap")
    part = networks.forward("vgg11", 4, head="gap", feature_map="stage5")
    images = seeded.images(1, 64, 64)
    maps, fewer = whole(images)[1], part(images)[1]
    assert "features" not in fewer
    assert fewer["stage5"].shape == (1, 4, 4, 512)
    assert (fewer["stage5"] >= 0).all()
    pooled = fewer["stage5"].reshape(1, 2, 2, 2, 2, 512).max((2, 4))
    assert networks.relative(pooled, maps["features"]) < 1e-6


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("vgg16", ("features/0",), ("features/28",)),
        ("vgg16_bn", ("features/0", "features/1"), ("features/40", "features/41")),
        ("vgg19", ("features/0",), ("features/34",)),
    ],
)
def test_layers_are_the_convolutions_with_torchvisions_indices(name, first, last):
    layers = models.BACKBONES[name].layers
    assert len(layers) == int(name[3:5]) - 3
    assert list(layers.values())[0] == first
    assert list(layers.values())[-1] == last
