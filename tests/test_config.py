"""Settings: every key checked."""

import pytest

from configs import common, finetune_folder, quickstart
from fgc_jax import config, methods, models
from fgc_jax.training import rules


def recipe(**changes):
    got = quickstart.get_config("tiny")
    for path, value in changes.items():
        node = got
        *parents, name = path.split("__")
        for key in parents:
            node = node.phases[int(key)] if key.isdigit() else node[key]
        with node.unlocked():
            node[name] = value
    return got


def test_a_recipe_becomes_settings():
    settings = rules.parse(recipe())
    assert settings.model.backbone == "tf_efficientnet_lite0"
    assert settings.phases[0].name == "head"
    assert isinstance(settings.phases[1].lr, float)
    assert settings.model.head_options == {"dropout": 0.2}


def test_resolved_config_is_plain_json():
    resolved = config.resolved(finetune_folder.get_config())
    assert resolved["phases"][0]["groups"] == [[".*", "all", 1.0]]
    assert resolved["data"]["options"] == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__backbone": "resnet51"},
            r"config.model.backbone='resnet51' is unknown; similar: .*'resnet50'.*prints all",
        ),
        ({"model__head": "gep"}, "config.model.head='gep' is unknown; allowed: 'gap'"),
        ({"method": "plane"}, "config.method='plane' is unknown"),
        ({"method": "cal"}, "'cal' needs config.model.head='attention_pooling', not 'gap'"),
        ({"model__head": "dcl"}, "head='dcl' needs config.method='dcl', not 'pl"),
        ({"model__head": "pim", "method": "pairwise_confusion"}, "needs .*='pim', not 'pairwise_"),
        ({"data__mean": (123, 117, 104)}, "data.mean=.* entries, each a number from 0 to 1"),
        ({"data__std": (0, 0, 0)}, "data.std=.* entries, each a number from 1e-06 to 1"),
        ({"data__augment": ("flip",)}, "augment=.* must be a tuple, each .a text, a dictionary"),
        ({"data__augment": (("flip", 5),)}, "augment=.* must be .* each .a text, a dictionary"),
        ({"data__augment": (("flop", {}),)}, "unknown augmentation 'flop'"),
        ({"data__augment": (("flip", {"p": 2}),)}, "'flip': p=2 must be a number from 0 to 1"),
        ({"data__box_crop": ("test", "test")}, "box_crop=.* a tuple without repetition, each"),
        ({"data__box_crop": ("dev",)}, "box_crop=.* each 'train' or 'val' or 'test'"),
        ({"0__optimizer": "sdg"}, r"config.phases\[0\].optimizer='sdg' must be 'sgd' or 'adam'"),
        ({"1__lrr": 0.1}, r"config.phases\[1\].lrr is unknown: did you mean 'lr'\?"),
        ({"data": {"name": "folder"}}, "config.data.root must be given"),
        ({"0__epochs": 0}, r"config.phases\[0\].epochs=0 must be a whole number at least 1"),
        ({"0__epochs": True}, "epochs=True must be a whole number"),
        ({"0__lr": float("nan")}, "lr=nan must be a number at least 0"),
        ({"1__train": "last"}, "'head', 'last N', 'from LAYER', 'all'"),
        ({"0__reinit": "last 1"}, "is only for later phases"),
        ({"0__crop": 100}, "crop=100 is larger than resize=72"),
        ({"1__name": "head"}, "the names of phases must differ"),
        ({"1__warmup": "2 epochs"}, "warmup='2 epochs' must be .* at most as long as .*: 1 epochs"),
        ({"1__groups": (("head/.*", 1.0),)}, r"groups=.* each \(a text, a text, a number at l"),
        ({"1__schedule": "one_cycle"}, "warmup is not possible"),
        ({"1__schedule_options": {"start": 1}}, "phase all: schedule 'cosine': start is unk"),
        ({"1__lr_thirds": (0.1, 1)}, "lr_thirds=.* with 0 or 3 entries, each a number above 0"),
        ({"1__lr_thirds": (0, 1, 1)}, "lr_thirds=.* each a number above 0"),
        ({"1__lr_thirds": (0.1, 0.3, 1), "1__layer_decay": 0.5}, "both set the rates of layers"),
        ({"0__nesterov": True}, "nesterov has no effect with optimizer='adam'"),
        ({"0__optimizer": "sgd", "0__beta2": 0.9}, "beta2 has no effect with optimizer=.sgd"),
        ({"0__nesterov": True, "0__optimizer": "sgd", "0__momentum": 0.0}, "without momentum"),
        ({"0__decay_norm_and_bias": False}, "no effect without weight_decay"),
        ({"data__val_fraction": 1.0}, "val_fraction=1.0 must be a number from 0 to 0.9"),
        ({"0__momentum": 1.0}, "must be a number from 0 to 0.9999"),
        ({"seed": 2**32}, "config.seed=4294967296 must be a whole number from 0 to 4294967295"),
        ({"model__pretrained_b": "x"}, "no effect without config.model.backbone_b"),
        ({"1__train_bn_while_frozen": True}, "no effect with train='all'"),
        ({"method_options": {"teechr": ""}}, "config.method_options.teechr is unknown: did you m"),
        ({"model__head_options": {"dropout": 5}}, "config.model.head_options.dropout=5 must be"),
        ({"model__backbone_options": {"x": 1}}, "config.model.backbone_options.x is unknown"),
        ({"model__feature_map": "stage9"}, "stage9"),
        ({"data__name": "foldr"}, "unknown data set 'foldr'"),
        ({"data__options": {"species": 900}}, "species=900 must be a whole number from 2 to 32"),
        ({"final": True, "data__box_crop": ("train",)}, "crop both train and val, or neither"),
        (
            {"1__schedule": "step", "1__schedule_options": {"every": "200%", "factor": 0.1}},
            "every='200%' must be .* as long as the phase: 1 epochs$",
        ),
        ({"phases": ()}, "with at least one entry, each a dictionary with the keys of Phase"),
        ({"phases": (1,)}, "must be a dict with the keys of Phase"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        rules.parse(recipe(**changes))


@pytest.mark.parametrize("name", methods.METHODS)
def test_methods_of_one_label_refuse_mixed_images(name):
    head, *_ = *methods.METHODS[name].heads, "gap"
    changes = {"method": name, "model__head": head, "data__sampling": "4 classes x 2"}
    changes |= {"model__head_options": {}, "method_options": {}}
    got = recipe(**changes, data__augment=(("resized_crop", {}), ("mixup", {})))
    if name in ("plain", "pim", "herbs", "pmg", "dcl", "cross_x"):
        rules.parse(got)
        return
    with pytest.raises(ValueError, match=f"method='{name}' needs images with one label"):
        rules.parse(got)


def test_heads_that_learn_with_one_method_alone():
    for head in models.HEADS:
        got = recipe(model__head=head, model__head_options={})
        if head in ("dcl", "api_net", "pim", "herbs", "pmg"):
            with pytest.raises(ValueError, match=f"needs config.method='{head}', not 'plain'"):
                rules.parse(got)
        else:
            assert rules.parse(got).model.head == head


def test_unknown_variants_are_errors():
    with pytest.raises(ValueError, match=r"unknown variant \['tinny'\].*'tiny'"):
        quickstart.get_config("tinny")


def test_unknown_phase_keys_are_errors_in_the_recipe():
    with pytest.raises(KeyError, match="epoch"):
        common.phase("head", epoch=3)
