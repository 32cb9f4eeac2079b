import functools

import jax
import numpy as np
import pytest
from flax import nnx

from fgc_jax import models, trees
from fgc_jax.models.backbones import resnet
from tests import networks, seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", "64x64"),
        ("resnet18", "75x61"),
        ("resnet34", "75x61"),
        ("resnet50", "64x64"),
        ("resnet50", "75x61"),
        ("resnext50_32x4d", "75x61"),
        ("resnet18d", "64x64"),
        ("resnet18d", "75x61"),
        ("resnetaa50d", "96x64"),
    ],
)
def test_forward_equals_timms(name, size):
    networks.check_golden(name, size)


def drawn(name, paths):
    return models.random_weights(seeded.config(name), 10, seed=0, paths=paths)


def test_weights_start_as_timms_do():
    paths = {
        "3x3": "backbone/layer4/1/conv2/kernel",
        "branch": "backbone/layer4/1/bn3/scale",
        "inner": "backbone/layer4/1/bn2/scale",
        "shortcut": "backbone/layer4/0/downsample/1/scale",
    }
    values = drawn("resnet50", set(paths.values()))
    kernel = values[paths["3x3"]]
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 512)) ** 0.5, rtol=0.01)
    assert not values[paths["branch"]].any()
    assert (values[paths["inner"]] == 1).all()
    assert (values[paths["shortcut"]] == 1).all()


def test_grouped_kernels_start_with_the_fan_of_all_output_channels():
    path = "backbone/layer4/1/conv2/kernel"
    kernel = drawn("resnext50_32x4d", {path})[path]
    assert kernel.shape == (3, 3, 32, 1024)
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 1024)) ** 0.5, rtol=0.01)


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


def test_an_antialiased_network_refuses_grids_that_do_not_halve():
    model = models.abstract(seeded.config("resnetaa50d"), 5)
    forward = functools.partial(models.forward, models.evaluation_graphdef(model))
    images = jax.ShapeDtypeStruct((1, 64, 72, 3), np.float32)
    with pytest.raises(ValueError, match="multiples of 32, not 64x72"):
        jax.eval_shape(forward, *models.split(model), images)


def test_last_stride_1_keeps_the_grid():
    grids = {}
    for stride in (1, 2):
        config = seeded.config("resnet18", backbone_options={"last_stride": stride})
        model = models.abstract(config, 10)
        forward = functools.partial(models.forward, models.evaluation_graphdef(model))
        images = jax.ShapeDtypeStruct((1, 96, 64, 3), np.float32)
        _, out = jax.eval_shape(forward, *models.split(model), images)
        grids[stride] = {name: out[name].shape[1:3] for name in ("stage3", "stage4", "features")}
    assert grids[2] == {"stage3": (6, 4), "stage4": (3, 2), "features": (3, 2)}
    assert grids[1] == dict.fromkeys(("stage3", "stage4", "features"), (6, 4))


@pytest.mark.parametrize(("last", "stages"), [("stem", 0), ("stage2", 2), ("stage4", 4)])
def test_what_lies_behind_the_last_map_is_not_built(last, stages):
    def paths(feature_map):
        model = models.abstract(seeded.config("resnet18", feature_map=feature_map), 10)
        return {p for p in trees.flatten(models.split(model)[0]) if p.startswith("backbone/")}

    def wanted(path):
        layer = path.split("/")[1]
        return not layer.startswith("layer") or int(layer.removeprefix("layer")) <= stages

    assert paths(last) == {path for path in paths("features") if wanted(path)}
