"""Files of weights as users have them: each gives the right network or the right message."""

import hashlib

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors

from fgc_jax import models
from tests import networks, pickles, seeded

NAME = "resnet18"


@pytest.fixture(scope="module")
def state():
    config, params, stats = seeded.trees(NAME, 7)
    return models.to_timm(config, params, stats)[0]


@pytest.fixture
def save(state, tmp_path):
    def save(file="a.safetensors", **changes):
        path = tmp_path / file
        safetensors.save_file(state | changes, path)
        return path

    return save


def test_half_precision_gives_the_same_network_rounded(state, save):
    half = {key: x.astype(np.float16) for key, x in state.items()}
    images = seeded.images(1, 64, 64)
    exact, rounded = (models.load(NAME, str(save(**x)))(images)[0] for x in ({}, half))
    assert 0 < networks.relative(rounded, np.asarray(exact)) < 0.01
    loaded = models.load(NAME, str(save(**half)))
    assert loaded.params["head"]["fc"]["kernel"].dtype == np.float32


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(np.nan, np.float32), (np.inf, np.float16), (np.nan, ml_dtypes.bfloat16), (1e60, np.float64)],
)
def test_weights_that_are_not_finite_are_refused(state, save, value, dtype):
    broken = state["layer1.0.conv1.weight"].astype(dtype)
    broken[0, 0, 0, 0] = value
    path = save(**{"layer1.0.conv1.weight": broken})
    with pytest.raises(ValueError, match="weights that are not finite: layer1.0.conv1.weight"):
        models.load(NAME, str(path))


def test_a_published_file_with_other_bytes_is_damaged(state, tmp_path):
    url = models.BACKBONES[NAME].weights["tv_in1k"].url
    path = tmp_path / url.rpartition("/")[2]
    pickles.write(path, state)
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    with pytest.raises(ValueError, match=f"sha256 begins with {found}, not with f37072fd"):
        models.load(NAME, str(path))
    own = path.rename(tmp_path / "mine-f37072fd.pth")
    assert models.load(NAME, str(own)).num_classes == 7
