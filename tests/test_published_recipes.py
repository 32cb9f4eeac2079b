"""The recipes of published projects: every variant is a valid run, and one of each file trains."""

import dataclasses
import importlib
import itertools
import json

import pytest

from configs import (
    bcnn_aircraft,
    common,
    cub_dogs,
    second_order_cub,
    transfer_aircraft,
    wsdan_inception,
)
from fgc_jax import models, train
from fgc_jax.training import phases, plans, rules
from tests import commands, data_benchmarks, data_files, small_networks

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WRITE = {
    "aircraft": data_files.write_aircraft,
    "cub": data_benchmarks.write_cub,
    "dogs": data_benchmarks.write_dogs,
    "cars": data_benchmarks.write_cars,
    "cub2010": data_benchmarks.write_homework,
}
CUB_DOGS = itertools.product(("", "dogs"), ("resnet50", *cub_dogs.VITS), ("", "published"))
VARIANTS = {
    "transfer_aircraft": (
        *transfer_aircraft.LAST_STAGE,
        "last3,reinit,sgd",
        "phase1",
        "reinit,boxes",
    ),
    "bcnn_aircraft": (*bcnn_aircraft.PAIRS, "sgd", "reinit", "resnet18_resnet34,sgd,reinit,boxes"),
    "cub_dogs": tuple(",".join(filter(None, words)) for words in CUB_DOGS),
    "resnext50_cars": ("", "resnet18", "resnet50", "resnet101")
    + tuple(f"efficientnet_b{number}" for number in range(4)),
    "transfg_cub": ("", "cars", "dogs", "plain"),
    "glsim_cub": ("", "dogs"),
    "pim_cub": ("", "herbs"),
    "baselines_cub": ("swin_large", "resnet50", "bit", "convnext_base", "dinov2"),
    "cal_resnet101": ("cub", "cars", "aircraft", "wsdan", "cars,plain"),
    "cal_resnet152_homework": ("", "plain"),
    "cal_convnext_b_cub": ("",),
    "wsdan_inception": tuple(wsdan_inception.FEATURES),
    "second_order_cub": tuple(second_order_cub.MODELS),
    "api_net_cub": ("resnet50", "resnet101"),
    "pairwise_confusion_cub": ("", "plain"),
    "pmg_cub": ("",),
    "dcl_cub": ("", "readme"),
    "cross_x_cub": ("",),
}
EACH = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


def recipe(name, variant):
    return importlib.import_module(f"configs.{name}").get_config(variant)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in WRITE.items()}


@pytest.mark.parametrize(("name", "variant"), EACH)
def test_settings_are_valid_and_the_weights_exist(name, variant):
    settings = rules.parse(recipe(name, variant)).model
    for backbone, pretrained in (
        (settings.backbone, settings.pretrained),
        (settings.backbone_b, settings.pretrained_b),
    ):
        if not backbone:
            continue
        facts = models.BACKBONES[backbone].weights[settings.weights_tag]
        assert str(pretrained) in (facts.source, "resnet50_miil_21k.pth")


@pytest.mark.parametrize(("name", "variant"), EACH)
def test_tiny_variants_are_runs(name, variant, roots):
    """Phases, groups, layers and augmentations fit together, at least for the small network."""
    got = recipe(name, f"{variant},tiny")
    got.data.root = str(roots[got.data.name])
    plan = plans.prepare(rules.parse(got))
    phases.method_of(plan)
    full = rules.parse(recipe(name, variant))
    assert [phase.name for phase in plan.settings.phases] == [phase.name for phase in full.phases]
    assert plan.num_classes == (6 if got.data.name == "aircraft" else 3)
    assert not plan.settings.model.pretrained


@pytest.mark.slow
def test_a_recipe_trains_through_the_command(roots, tmp_path):
    out, _ = commands.run(
        "--config=configs/transfer_aircraft.py:tiny,resnet50,reinit",
        f"--config.data.root={roots['aircraft']}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert "test: top-1" in out
    assert json.loads((tmp_path / "run" / "results.json").read_text())["complete"]


@pytest.mark.parametrize(
    ("name", "variant", "small"),
    [
        ("bcnn_aircraft", "reinit", "vgg"),
        ("transfg_cub", "", "vit"),
        ("cal_resnet101", "cub", "basic"),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                ("cub_dogs", "dogs,published,vit_small_patch16_224", "vit"),
                ("resnext50_cars", "", "basic"),
                ("glsim_cub", "", "vit"),
                ("pim_cub", "herbs", "basic"),
                ("baselines_cub", "swin_large", "vit"),
                ("baselines_cub", "dinov2", "vit"),
                ("cal_resnet152_homework", "", "basic"),
                ("cal_convnext_b_cub", "", "basic"),
                ("wsdan_inception", "", "basic"),
                ("second_order_cub", "asymmetric", "vgg+basic"),
                ("api_net_cub", "", "basic"),
                ("pairwise_confusion_cub", "", "basic"),
            )
        ),
    ],
)
def test_recipes_train(name, variant, small, roots, tmp_path, monkeypatch):
    """In this process and with a network of which little is compiled, as far as the recipe does
    not depend on its family."""
    got = recipe(name, f"{variant},tiny")
    got.data.root = str(roots[got.data.name])
    weights = small_networks.STORED
    got.model.weights_tag = ""
    streams = filter(None, (got.model.backbone, got.model.backbone_b))
    for stream, name in zip(streams, itertools.cycle(small.split("+")), strict=False):
        row = dataclasses.replace(small_networks.SMALL[name], weights=weights)
        monkeypatch.setitem(models.BACKBONES, stream, row)
    for phase in got.phases:
        # Patches of 16 pixels every 12 fit 40, those side by side 32.
        phase.update(resize=40, crop=40 if got.model.backbone_options else 32)
    results = train.run(got, tmp_path / "run")
    assert results.complete
    assert len(results.phases) == len(got.phases)


def test_parts_of_a_batch_that_hold_one_image_of_a_class_are_refused():
    got = recipe("api_net_cub", "tiny")
    got.phases[1].accumulate = 4
    with pytest.raises(ValueError, match="accumulate=4 .* would have fewer than two"):
        rules.parse(got)
    got.phases[1].accumulate = 2
    rules.parse(got)
    for sampling in ("8 classes x 1", "balanced"):
        got.data.sampling = sampling
        with pytest.raises(ValueError, match="'N classes x M' with M above 1, not "):
            rules.parse(got)


def test_variants_that_exclude_each_other():
    with pytest.raises(ValueError, match="the variants resnet18 and vgg16 exclude each other"):
        transfer_aircraft.get_config("vgg16,resnet18")
    with pytest.raises(ValueError, match="'reinit' changes phase 2, but 'phase1' has no phase 2"):
        transfer_aircraft.get_config("phase1,reinit")
    with pytest.raises(ValueError, match="the variants last1 and phase1 exclude each other"):
        transfer_aircraft.get_config("phase1,last1")
    assert common.one_of({"tiny"}, ("a", "b"), "b") == "b"


def test_what_the_variants_say():
    words = transfer_aircraft.get_config("resnet101,last4,reinit,sgd")
    assert str(words.model.pretrained) == "hub:timm/resnet101.tv_in1k"
    assert [str(words.phases[1].train), str(words.phases[1].reinit)] == ["last 4", "last 4"]
    assert {phase.optimizer for phase in words.phases} == {"sgd"}
    assert len(transfer_aircraft.get_config("phase1").phases) == 1
    (published,) = cub_dogs.get_config("published,vit_base_patch16_224").phases
    (right,) = cub_dogs.get_config("vit_base_patch16_224").phases
    assert (published.optimizer, published.lr, published.crop) == ("adamw", 1e-3, 224)
    assert (right.optimizer, right.lr, right.clip_norm) == ("sgd", 0.01, 1.0)
