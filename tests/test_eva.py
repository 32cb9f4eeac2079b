import math

import numpy as np
import pytest

from fgc_jax import models
from tests import networks, seeded

NAME = "vit_small_patch16_dinov3"


@pytest.mark.parametrize("size", ["64x64", "96x80"])
def test_forward_equals_timms(size):
    networks.check_golden(NAME, size)


def test_the_published_head_reads_the_mean_and_the_class_token_is_there_too():
    images = seeded.images(2, 32, 48)
    _, out = networks.forward(NAME, 5)(images)
    assert models.abstract(seeded.config(NAME), 5).feature_maps == (("features",),)
    assert out["features"].shape == (2, 2, 3, 384)
    assert out["class_token"].shape == (2, 1, 1, 384)
    logits, _ = networks.forward(NAME, 5, feature_map="class_token")(images)
    assert logits.shape == (2, 5)


def test_weights_start_as_timms_do():
    late = 0.02 / math.sqrt(2 * 12)
    spread = {
        "blocks/11/attn/qkv/kernel": 0.02,
        "blocks/11/attn/proj/kernel": late,
        "blocks/11/mlp/fc1/kernel": 0.02,
        "blocks/11/mlp/fc2/kernel": late,
        "cls_token": 0.02,
        "reg_token": 0.02,
    }
    paths = {f"backbone/{path}": std for path, std in spread.items()}
    scale = "backbone/blocks/11/gamma_2"
    drawn = models.random_weights(seeded.config(NAME), 10, seed=0, paths={*paths, scale})
    for path, std in paths.items():
        tolerance = 0.03 if drawn[path].size > 2000 else 0.15
        np.testing.assert_allclose(drawn[path].std(), std, rtol=tolerance)
    np.testing.assert_array_equal(drawn[scale], np.full(384, 1e-5, np.float32))
