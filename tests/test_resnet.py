import numpy as np
import pytest
from flax import nnx

from fgc_jax.models.backbones import resnet
from tests import networks, seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_a_new_block_is_the_identity_behind_its_relu():
    form = resnet.Form()
    block = resnet.Bottleneck(16, 4, form, stride=1, dtype=np.float32, rngs=nnx.Rngs(0))
    images = np.abs(seeded.images(2, 6, 6))
    x = np.concatenate([images] * 6, -1)[..., :16]
    np.testing.assert_array_equal(block(x), x)


def test_the_average_pooling_leaves_out_what_lies_outside():
    x = np.arange(15, dtype=np.float32).reshape(1, 3, 5, 1)
    expected = np.array([[3, 5, 6.5], [10.5, 12.5, 14]])
    np.testing.assert_array_equal(resnet.halve(x)[0, :, :, 0], expected)


def test_last_stride_1_keeps_the_grid():
    grids = {}
    for stride in (1, 2):
        config = seeded.config("resnet18", backbone_options={"last_stride": stride})
        _, out = networks.shapes(config, 10, 96, 64)
        grids[stride] = {name: out[name].shape[1:3] for name in ("stage3", "stage4", "features")}
    assert grids[2] == {"stage3": (6, 4), "stage4": (3, 2), "features": (3, 2)}
    assert grids[1] == dict.fromkeys(("stage3", "stage4", "features"), (6, 4))
