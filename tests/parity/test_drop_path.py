"""The rates of stochastic depth, block by block."""

import pytest
import timm
from flax import nnx

from fgc_jax import models
from fgc_jax.models import layers
from tests import seeded

# One of each family that has residual branches, with stages of more than one block.
NAMES = (
    "resnet18",
    "resnet50",
    "resnetv2_50",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "tf_efficientnetv2_s",
    "vit_tiny_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "convnext_tiny",
    "convnextv2_atto",
    "swin_tiny_patch4_window7_224",
)


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_timms(name):
    theirs = {
        path.rpartition(".")[0]: module.drop_prob
        for path, module in timm.create_model(name, drop_path_rate=0.2).named_modules()
        if isinstance(module, timm.layers.DropPath) and module.drop_prob
    }
    model = models.abstract(seeded.config(name, drop_path=0.2), 10)
    ours = {
        ".".join(path[1:-1]): module.rate
        for path, module in nnx.iter_modules(model)
        if isinstance(module, layers.DropPath) and module.rate
    }
    assert max(theirs.values()) > 0.15
    assert ours == pytest.approx(theirs)
