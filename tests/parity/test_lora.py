"""LoRA's products, merged into the kernels, in timm's networks."""

import numpy as np
import pytest
import timm
import torch

from fgc_jax import models, trees
from tests import networks, seeded
from tests.parity import oracles

LIMIT = 5e-4
NAMES = (
    "vit_tiny_patch16_224",
    "vit_small_patch16_dinov3",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
)


@pytest.mark.parametrize("name", NAMES)
def test_the_merged_state_dict_gives_timm_the_same_logits(name):
    settings = seeded.config(name, lora_rank=4, lora_alpha=2.0)
    model = models.abstract(settings, 10)
    state = oracles.state_of(oracles.seeded_timm(name, num_classes=10))
    _, plain, stats = oracles.trees_of(name, state, num_classes=10)
    rng = np.random.default_rng(0)
    adapters = {
        path: np.float32(rng.normal(0, leaf.shape[0] ** -0.5, leaf.shape))
        for path, leaf in trees.flatten(models.split(model)[0]).items()
        if "/lora_" in path
    }
    params = trees.merge(plain, trees.unflatten(adapters))
    images = seeded.images(2, 224, 224)
    ours, _ = models.forward(models.evaluation_graphdef(model), params, stats, images)
    merged, classes, complete = models.to_timm(settings, params, stats)
    assert (classes, complete) == (10, True)
    theirs = timm.create_model(name, num_classes=10).eval()
    theirs.load_state_dict({key: torch.tensor(x) for key, x in merged.items()}, strict=True)
    assert networks.relative(ours, oracles.run_torch(theirs, images)) <= LIMIT
    without = oracles.run_torch(oracles.seeded_timm(name, num_classes=10), images)
    assert networks.relative(ours, without) > 100 * LIMIT
