"""What of vision transformers the comparison of all networks does not see."""

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from timm.optim import param_groups_layer_decay

from configs import common
from fgc_jax import models
from fgc_jax.models import pretrained
from fgc_jax.training import trainable
from scripts import make_golden
from tests import networks, seeded
from tests.parity import oracles

LIMIT = 5e-4
TINY = "vit_tiny_patch16_224"
NAMES = (TINY, "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3")


@pytest.mark.parametrize("name", NAMES)
def test_blocks_and_attention_maps_equal_timms(name):
    theirs = oracles.seeded_timm(name, dynamic_img_size=True)
    seen = []
    for block in theirs.blocks:
        block.attn.fused_attn = False  # Fused, the weights exist nowhere.
        block.attn.attn_drop.register_forward_hook(lambda *call: seen.append(call[2].numpy()))
    height, width = oracles.another_size(name)
    images = seeded.images(2, height, width)
    with torch.no_grad():
        blocks = theirs.forward_intermediates(make_golden.to_torch(images), intermediates_only=True)
    model, params, stats = oracles.trees_of(name, oracles.state_of(theirs))
    graphdef = models.evaluation_graphdef(model)
    out = models.maps_named(graphdef, models.BLOCK, params, stats, images)
    maps = models.maps_named(graphdef, models.ATTENTION, params, stats, images)
    assert len(maps) == len(seen) == len(blocks)
    for index, expected in enumerate(seen):
        assert networks.relative(maps[f"attention/{index}"], expected) <= LIMIT
    for index, expected in enumerate(blocks[:-1], start=1):
        found = np.asarray(out[f"block{index}"]).transpose(0, 3, 1, 2)
        assert networks.relative(found, expected.numpy()) <= LIMIT


DECAYED = ("resnet18", "resnetv2_50", "swin_tiny_patch4_window7_224", "convnextv2_atto")


@pytest.mark.parametrize(
    "name", ["vit_small_patch16_224", *NAMES[1:], "vit_base_patch16_clip_224", *DECAYED]
)
def test_layers_learn_as_fast_as_timms(name):
    """Layer-wise decay of the learning rate gives every parameter timm's factor."""
    theirs = timm.create_model(name, num_classes=10)
    groups = param_groups_layer_decay(theirs, layer_decay=0.75)
    names = {id(x): key for key, x in theirs.named_parameters()}
    expected = {names[id(x)]: group["lr_scale"] for group in groups for x in group["params"]}
    config = seeded.config(name)
    phase = common.phase("all", layer_decay=0.75)
    decay = trainable.factors(phase, models.layer_prefixes(config))
    places = oracles.paths(name, models.split(models.abstract(config, 10))[0])
    assert places.keys() == expected.keys()
    for key, path in places.items():
        # timm has ConvNeXt's last norm in the head, which we draw anew for each data set.
        factor = 0.75 if key.startswith("head.norm") else expected[key]
        assert decay(path) == pytest.approx(factor), key


def test_weights_of_another_grid_are_fitted_as_timm_fits_them():
    small = oracles.state_of(oracles.seeded_timm("vit_small_patch16_224"))
    large = timm.create_model("vit_small_patch16_384")
    expected = checkpoint_filter_fn({k: torch.tensor(x) for k, x in small.items()}, large)
    settings = seeded.config("vit_small_patch16_384")
    params, _ = models.split(models.abstract(settings, 1000))
    row = models.BACKBONES["vit_small_patch16_384"]
    fitted, told = pretrained.resample(row, params, small, pretrained.original_names(row))
    assert "pos_embed (1, 197, 384) to (1, 577, 384)" in told
    assert fitted["pos_embed"].shape == (1, 577, 384)
    np.testing.assert_allclose(fitted["pos_embed"], expected["pos_embed"], atol=3e-6)


def test_golden_positions_are_what_pytorch_computes():
    stored, computed = np.load(make_golden.GOLDEN / "position.npz"), make_golden.position()
    assert set(stored) == set(computed)
    for key, x in computed.items():
        np.testing.assert_allclose(stored[key], x, atol=1e-6)
