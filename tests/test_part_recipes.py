"""The recipes of methods that work with tiles and parts train through the loop."""

import dataclasses
import json

import numpy as np
import pytest

from configs import cross_x_cub, dcl_cub, pmg_cub
from fgc_jax import models, train
from fgc_jax.training import phases, plans, rules
from tests import data_benchmarks, small_networks

# PMG's loss once became NaN here: it must not need the compiler to compute a value only once.
pytestmark = pytest.mark.usefixtures("compiled_quickly")
RECIPES = {"pmg": pmg_cub, "dcl": dcl_cub, "cross_x": cross_x_cub}
MAPS = {"pmg": "stage5", "dcl": "features", "cross_x": "stage4+features"}
LOGGED = {
    "pmg": {"level1_loss", "concat_loss"},
    "dcl": {"class_loss", "swap_loss", "location_loss"},
    "cross_x": {"class_loss", "c3s_loss", "kl_loss"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return data_benchmarks.write_cub(tmp_path_factory.mktemp("cub"))


@pytest.mark.parametrize("name", ["pmg", "dcl", pytest.param("cross_x", marks=pytest.mark.slow)])
def test_recipes_train(name, root, tmp_path, monkeypatch):
    got = RECIPES[name].get_config("tiny")
    got.data.root = str(root)
    got.log_every = 1
    got.model.weights_tag = ""
    # Five convolutions, and one level in place of three: a step of PMG has a network for each.
    row = dataclasses.replace(small_networks.SMALL["vgg"], weights=small_networks.STORED)
    got.model.feature_map = MAPS[name]
    if name == "pmg":
        got.method_options.tiles = (8,)
    monkeypatch.setitem(models.BACKBONES, got.model.backbone, row)
    if name != "dcl":  # whose tiles say how large images are
        got.phases[0].update(resize=40, crop=32)
    assert train.run(got, tmp_path / "run").complete
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    found = {key.rpartition("/")[2]: line[key] for line in logged for key in line}
    assert found.keys() >= LOGGED[name]
    assert all(np.isfinite(found[key]) for key in LOGGED[name])


def test_what_the_recipes_say():
    (phase,) = pmg_cub.get_config().phases
    assert (phase.lr, phase.head_lr, phase.epochs, phase.resize) == (2e-4, 10.0, 200, 550)
    rates = [dcl_cub.get_config(word).phases[0].lr for word in ("", "readme")]
    assert rates == [8e-4, 8e-3]


def test_levels_and_tiles_must_match(root):
    got = pmg_cub.get_config("tiny")
    got.data.root = str(root)
    got.model.feature_map = "stage3+features"
    plan = plans.prepare(rules.parse(got))
    with pytest.raises(ValueError, match="must have one number for each level of the head"):
        phases.method_of(plan)
