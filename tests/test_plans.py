"""What is decided before a run: what the seed draws, what is re-initialised, and the overview."""

import functools
import re

import jax
import numpy as np
import pytest

from configs import common
from fgc_jax import trees
from fgc_jax.data import dataset
from fgc_jax.models import bridge
from fgc_jax.models import network as networks
from fgc_jax.training import classification, inputs, overview, plans, rules
from tests import tiny_run

LAST_LAYER = "layer1/1"
TWO_STREAMS = {"backbone_b": "resnet34", "head": "bilinear"}
FROZEN_B = (("backbone_b/.*", "frozen", 0.0), (".*", "rest", 1.0))


def make_plan(*phases, seed=0, splits=None, **model):
    recipe = tiny_run.recipe("unused")
    recipe.seed = seed
    recipe.model.update(feature_map="stage1", **model)
    recipe.phases = tuple(
        common.phase(f"phase{number}", resize=36, crop=32, **phase)
        for number, phase in enumerate(phases)
    )
    data = dataset.Dataset("none", tiny_run.CLASSES, splits or {})
    return plans.assemble(rules.parse(recipe), data)


def reinitialised(plan, index=1):
    """(before, after) of `plans.reinitialised`: path -> leaf; before holds 7 everywhere."""
    before = [
        jax.tree.map(lambda leaf: np.full(leaf.shape, 7, np.float32), tree)
        for tree in (plan.network.params, plan.network.stats)
    ]
    after = plans.reinitialised(plan, index, *before)
    return [trees.flatten(first) | trees.flatten(second) for first, second in (before, after)]


def changed(plan, index=1):
    before, after = reinitialised(plan, index)
    return {path for path in before if before[path].tobytes() != after[path].tobytes()}


def under(paths, *prefixes):
    return {path for path in paths if any(trees.is_under(path, prefix) for prefix in prefixes)}


def test_reinit_depends_on_seed_and_phase_alone():
    phases = ({}, {"reinit": "last 1"}, {"reinit": "last 1"}, {"reinit": "all"})
    plan = make_plan(*phases)
    kernel = f"backbone/{LAST_LAYER}/conv2/kernel"
    drawn = {
        "seed 0": reinitialised(plan)[1][kernel],
        "later phase": reinitialised(plan, 2)[1][kernel],
        "seed 1": reinitialised(make_plan(*phases, seed=1))[1][kernel],
        "initial": trees.flatten(plans.initial_variables(plan)[0])[kernel],
    }
    assert len({leaf.tobytes() for leaf in drawn.values()}) == len(drawn)
    again = reinitialised(make_plan(*phases))[1][kernel]
    assert again.tobytes() == drawn["seed 0"].tobytes()


@pytest.mark.parametrize(
    ("phase", "model", "redrawn"),
    [
        ({}, {}, ()),
        ({"reinit": "all"}, {}, ("backbone",)),  # not the head
        ({"reinit": "last 1"}, TWO_STREAMS, ("backbone/layer1/1", "backbone_b/layer1/2")),
        ({"reinit": "last 1", "groups": FROZEN_B}, TWO_STREAMS, ("backbone/layer1/1",)),
    ],
)
def test_reinit_draws_the_named_layers_alone(phase, model, redrawn):
    plan = make_plan({}, phase, **model)
    before, _ = reinitialised(plan)
    assert changed(plan) == under(before, *redrawn) != before.keys()


@pytest.mark.parametrize(
    "phase",
    [
        {"train": "head", "reinit": "last 1"},
        {"train": "last 1", "reinit": "last 2"},
        {"train": "last 1", "reinit": "from layer1"},
        # New batch norms around kept convolutions are not what reinit names.
        {"train": "head", "train_bn_while_frozen": True, "reinit": "last 1"},
        {"reinit": "last 1", "groups": ((r"backbone/.*", "off", 0.0), (".*", "on", 1.0))},
    ],
)
def test_reinit_of_frozen_layers_is_refused(phase):
    with pytest.raises(ValueError, match=r"reinit='.*' would re-initialise layer1/\d"):
        make_plan({}, phase)


def test_each_seed_has_its_own_key_for_each_purpose():
    def keys(seed):
        plan = make_plan({}, seed=seed)
        purposes = ((0,), (1,), (0, 1), (1, 1), (0, 2))
        return [jax.random.key_data(plan.key(*purpose)).tobytes() for purpose in purposes]

    assert keys(0) == keys(0)
    assert len({key for seed in (0, 1, 2**31, 2**32 - 1) for key in keys(seed)}) == 20


def test_overview_says_what_will_run():
    split = dataset.Split(np.arange(1500) % 3, [f"{i}.jpg" for i in range(1500)], read=None)
    small = dataset.subset(split, range(60))
    groups = (("head/.*", "top", 10.0), (".*", "body", 1.0))
    plan = make_plan(
        {"train": "head", "train_bn_while_frozen": True, "epochs": 4, "lr": 0.5},
        {
            "train": "last 1",
            "reinit": "last 1",
            "groups": groups,
            "optimizer": "adam",
            "lr": 1e-3,
            "schedule": "cosine",
        },
        splits={"train": split, "val": small, "test": small},
    )
    text = overview.text(plan, 0.4321, [phase.epochs for phase in plan.settings.phases])
    assert "3 classes; images: train 1,500, val 60, test 60" in text
    # Stem 9,408 + 128; two blocks of 2 x 36,864 + 256; head 64 x 3 + 3.
    assert "resnet18 -> gap, 0.16 M parameters, 0.43 GFLOP an image at 32 px" in text
    assert re.search(r"^head +195 parameters: 0\.0 MB", text, re.MULTILINE)
    first, second = text.splitlines()[-2:]
    assert re.split(r" {2,}", first) == [
        "phase0", "head + bn", "-", f"all {195 + 5 * 128}, frozen 156,864", "4", "32", "32",
        "sgd 0.5",
    ]  # fmt: skip
    assert re.split(r" {2,}", second) == [
        "phase1", "last 1", "last 1: 73,984", "body 73,984, top 195 x 10, frozen 83,520", "10",
        "32", "32", "adam 0.001, cosine",
    ]  # fmt: skip


def test_durations_must_fit_the_data():
    """Steps can be compared with the phase only when the images have been counted."""
    recipe = tiny_run.recipe("")
    options = {"species": 3, "train_per_class": 4, "val_per_class": 1, "test_per_class": 1}
    recipe.data.update(name="synthetic_birds", options=options, val_fraction=0.0)
    recipe.phases[1].update(warmup="21 steps")
    with pytest.raises(ValueError, match="phase large: .*warmup='21 steps' .* 10 epochs of 2 st"):
        plans.prepare(rules.parse(recipe))


def test_rates_of_frozen_layers_whose_batch_norms_train():
    phase = {"train": "head", "train_bn_while_frozen": True, "lr_thirds": (0.1, 0.3, 1.0)}
    plan = make_plan(phase)
    labels = plan.labels(plan.settings.phases[0])
    factors = {each.factor for each in labels.values() if each.trains}
    assert factors == {0.1, 0.3, 1.0}


def test_forward_gflops_count_a_multiply_add_as_two():
    """By hand, for the stem and the three blocks of stage 1. The form in which grouped convolutions
    are fast on CPU does more operations, which must not count."""
    plan = make_plan({}, backbone="resnext50_32x4d")
    # XLA leaves out products with padding. Of the stem's 7 taps an axis, 16 positions use 106 in
    # all; of a 3x3 convolution's 3, 8 positions use 22.
    stem = 106**2 * 3 * 64
    pointwise = 8**2 * (64 * 128 + 2 * 256 * 128 + 3 * 128 * 256 + 64 * 256)
    grouped = 3 * 22**2 * 4 * 128
    convolutions = 2 * (stem + pointwise + grouped) / 1e9
    gflops = networks.forward_gflops(plan.network, plan.settings.phases[0].crop)
    # Batch norm, ReLU and pooling cost a little too.
    assert convolutions < gflops < 1.02 * convolutions


def test_shapes_of_a_size_are_traced_once(monkeypatch):
    network = make_plan({}).network
    traced, infer = [], bridge.infer
    monkeypatch.setattr(bridge, "infer", lambda *a: traced.append(a) or infer(*a))
    small, large, same = (networks.map_shapes(network, side) for side in (48, 56, 48))
    assert len(traced) == 2
    assert small == same
    assert (small["stage1"].shape, large["stage1"].shape) == ((1, 12, 12, 64), (1, 14, 14, 64))


def test_a_crop_too_small_for_the_second_backbone_is_refused(monkeypatch):
    shapes = {"stage1": (1, 2, 2, 64), "b/stage1": (1, 0, 0, 64)}
    maps = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    monkeypatch.setattr(networks, "map_shapes", lambda network, side: maps)
    with pytest.raises(ValueError, match="too small for resnet34: .* 0 x 0 positions"):
        make_plan({}, backbone_b="resnet34", head="bilinear")


def test_box_crops_are_chosen_by_split_and_said():
    recipe = tiny_run.recipe("")
    options = {"species": 3, "train_per_class": 4, "test_per_class": 2, "size": 64}
    recipe.data.update(name="synthetic_birds", options=options)
    recipe.data.update(box_crop=("train", "test"), box_square=True)
    plan = plans.prepare(rules.parse(recipe))
    shapes = {name: plan.dataset.splits[name].read(0).shape[:2] for name in ("train", "val")}
    assert shapes["train"] < shapes["val"] == (64, 64)
    words = functools.partial(classification.views_in_words, plan.settings.data)
    assert words("test") == "raw, cropped to ground-truth boxes" and words("val") == "raw"
    assert "cropped to boxes: train, test" in overview.text(
        plan, 1.0, [1] * len(plan.settings.phases)
    )


def test_box_options_need_box_crop():
    recipe = tiny_run.recipe("")
    recipe.data.box_margin = 0.1
    with pytest.raises(ValueError, match="box_margin and .*box_square have no effect"):
        rules.parse(recipe)


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ((("crop", {"size": 10}),), "leave out the size of 'crop', it is the phase's crop"),
        ((("flip",),), "flip"),
        (("flip",), "flip"),
        ((("crop", None),), "crop"),
        ((("flop", {}),), "unknown augmentation 'flop', allowed: flip"),
    ],
)
def test_wrong_augmentations_are_named(ops, message):
    recipe = tiny_run.recipe("")
    recipe.data.update(name="synthetic_birds", options={"species": 3, "size": 64})
    recipe.data.augment = ops
    with pytest.raises(ValueError, match=message):
        plans.prepare(rules.parse(recipe))


def test_erased_places_become_zero():
    recipe = tiny_run.recipe("")
    recipe.data.update(name="synthetic_birds", options={"species": 3, "size": 64})
    recipe.data.update(augment=(("erase", {"p": 1.0}),), mean=(0.1, 0.6, 0.9))
    plan = plans.prepare(rules.parse(recipe))
    batch = {"image": np.full((4, 32, 32, 3), 200, np.uint8), "mask": np.ones(4, np.float32)}
    (phase, _) = plan.settings.phases
    augmented = inputs.augmentation(plan.settings, plan.network, phase)
    images = augmented(jax.random.key(0), batch)["image"]
    erased = np.abs(np.asarray(images)).max(-1) < 1e-5
    assert 0 < erased.mean() < 1
