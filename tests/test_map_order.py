"""Heads that read several maps take them in one order."""

import pytest

from fgc_jax import models
from tests import seeded
from tests.small_networks import SMALL


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, row in SMALL.items():
        monkeypatch.setitem(models.BACKBONES, name, row)


@pytest.mark.parametrize(
    ("head", "backbone", "right", "wrong"),
    [
        ("pim", "basic", "stage3+features", ("features+stage3", "stage4+features")),
        ("herbs", "convnext", "stage3+features", ("features+stage3", "stage3+pooled")),
        ("pmg", "basic", "features", ("stage2+features+stage3",)),
        ("pmg", "vgg", "stage5+features", ("features+stage5",)),
        ("cross_x", "vit", "block1+features", ("features+block1",)),
        ("glsim", "vit", "features+pooled", ("pooled+features", "block1+pooled")),
        ("glsim", "eva", "features+class_token", ("block1+features",)),
    ],
)
def test_heads_take_their_maps_in_one_order(head, backbone, right, wrong):
    options = {"width": 8, "selects": (2, 2)} if head in ("pim", "herbs") else {}
    changes = {"head": head, "head_options": options}
    assert models.abstract(seeded.config(backbone, feature_map=right, **changes), 5)
    for each in wrong:
        config = seeded.config(backbone, feature_map=each, **changes)
        with pytest.raises(ValueError, match=f"head '{head}' reads one backbone's .*, not '"):
            models.abstract(config, 5)


def test_a_head_of_ordered_maps_takes_one_backbone():
    config = seeded.config("basic", backbone_b="basic", head="pmg", feature_map="stage3")
    with pytest.raises(ValueError, match="reads one backbone's maps.*, not 'stage3' and 'stage3'"):
        models.abstract(config, 5)


def test_the_deepest_map_is_built_where_a_coarser_one_depends_on_the_same_layers():
    config = seeded.config("vgg", head="cross_x", feature_map="stage5+features")
    assert models.streams(config)[0].last == "features"
