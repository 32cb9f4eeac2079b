"""Who trains how in a phase: layers, groups, rates by layer."""

import pytest

from configs import common
from fgc_jax import config
from fgc_jax.training import rules, trainable

LAYERS = {
    "stem": ("backbone/conv1", "backbone/bn1"),
    "layer1/0": ("backbone/layer1/0",),
    "layer1/1": ("backbone/layer1/1",),
    "layer2/0": ("backbone/layer2/0",),
}
PATHS = [
    "backbone/bn1/bias",
    "backbone/bn1/scale",
    "backbone/conv1/kernel",
    "backbone/layer1/0/kernel",
    "backbone/layer1/1/kernel",
    "backbone/layer2/0/kernel",
    "head/fc/kernel",
]
BN_PATHS = {"backbone/bn1/bias", "backbone/bn1/scale"}
STATS = ("backbone/bn1/mean", "backbone/bn1/var")


def make_phase(**changes) -> config.Phase:
    return config.read(config.Phase, common.phase("test", **changes).to_dict(), "phase")


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ("", ()),
        ("head", ()),
        ("last 1", ("layer2/0",)),
        ("last 3", ("layer1/0", "layer1/1", "layer2/0")),
        ("from layer1", ("layer1/0", "layer1/1", "layer2/0")),
        ("from layer1/1", ("layer1/1", "layer2/0")),
        ("all", tuple(LAYERS)),
    ],
)
def test_layers_count_from_the_output(spec, layers):
    assert trainable.last_layers(parsed_layers(spec), LAYERS) == layers


def parsed_layers(spec: str) -> config.Layers:
    return (config.Layers if spec == "head" else config.NewLayers).parse(spec)


@pytest.mark.parametrize("spec", ["last 5", "from layer3", "from layer"])
def test_unknown_layers_are_errors(spec):
    with pytest.raises(ValueError, match="has (only|no)"):
        trainable.last_layers(parsed_layers(spec), LAYERS)


def labels_of(phase):
    return trainable.of(phase, LAYERS, PATHS, STATS)


def trained(**changes):
    """Path -> (group, factor) of what trains."""
    labels = labels_of(make_phase(**changes))
    return {path: (each.group, each.factor) for path, each in labels.items() if each.trains}


def test_head_phase_trains_the_head_only():
    assert trained(train="head") == {"head/fc/kernel": ("all", 1.0)}


def test_layer_decay_falls_from_the_head_to_the_stem():
    found = trained(train="all", layer_decay=0.5)
    assert found == {
        "backbone/bn1/bias": ("all", 0.5**4),
        "backbone/bn1/scale": ("all", 0.5**4),
        "backbone/conv1/kernel": ("all", 0.5**4),
        "backbone/layer1/0/kernel": ("all", 0.5**3),
        "backbone/layer1/1/kernel": ("all", 0.5**2),
        "backbone/layer2/0/kernel": ("all", 0.5),
        "head/fc/kernel": ("all", 1.0),
    }
    groups = (("head/.*", "head", 10.0), (".*", "backbone", 1.0))
    found = trained(train="last 1", layer_decay=0.5, groups=groups)
    assert found == {"backbone/layer2/0/kernel": ("backbone", 0.5), "head/fc/kernel": ("head", 10)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "head", "layer_decay": 0.5}, "layer_decay=0.5 has no effect: train='head'"),
        ({"train": "head", "lr_thirds": (0.1, 0.3, 1.0)}, "has no effect: train='head' trai"),
        (
            {"head_lr": 2.0, "groups": (("head/.*", "head", 0.0), (".*", "rest", 1.0))},
            "head_lr=2.0 has no effect: train='all' and these groups keep the head frozen",
        ),
    ],
)
def test_rates_without_an_effect_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        trained(**changes)


THIRDS = (0.1, 0.25, 0.5)


def test_thirds_of_the_layers_have_rates_of_their_own():
    """Four layers: two, one and one; the head belongs to the last third."""
    assert trained(train="all", lr_thirds=THIRDS, head_lr=2.0) == {
        "backbone/bn1/bias": ("all", 0.1),
        "backbone/bn1/scale": ("all", 0.1),
        "backbone/conv1/kernel": ("all", 0.1),
        "backbone/layer1/0/kernel": ("all", 0.1),
        "backbone/layer1/1/kernel": ("all", 0.25),
        "backbone/layer2/0/kernel": ("all", 0.5),
        "head/fc/kernel": ("all", 1.0),
    }


@pytest.mark.parametrize("total", [1, 2, 3, 7, 9])
def test_thirds_are_as_equal_as_layers_allow(total):
    layers = {f"block{i}": (f"backbone/block{i}",) for i in range(total)}
    factor = trainable.factors(make_phase(lr_thirds=(1.0, 2.0, 3.0)), layers)
    found = [factor(f"backbone/block{i}/kernel") for i in range(total)]
    counts = [found.count(third) for third in (1, 2, 3)]
    assert found == sorted(found) and max(counts) - min(counts) <= 1
    assert factor("head/fc/kernel") == 3


def test_heads_own_rate():
    assert trained(train="last 1", head_lr=10.0) == {
        "backbone/layer2/0/kernel": ("all", 1.0),
        "head/fc/kernel": ("all", 10.0),
    }


def test_batch_norm_can_train_while_its_layer_is_frozen():
    assert set(trained(train="head", train_bn_while_frozen=True)) == {"head/fc/kernel"} | BN_PATHS


def test_groups_give_multipliers_and_zero_freezes():
    groups = (
        ("head/.*", "head", 10.0),
        (".*/layer2/.*", "frozen", 0.0),
        (".*", "rest", 0.1),
    )
    assert trained(train="last 2", groups=groups) == {
        "backbone/layer1/1/kernel": ("rest", 0.1),
        "head/fc/kernel": ("head", 10.0),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (("haed/.*", "head", 1.0), (".*", "rest", 1.0))}, "haed"),
        ({"groups": (("head/.*", "head", 1.0),)}, "no group rule matches"),
        ({"train": "from layer9"}, "no layer 'layer9'"),
        ({"groups": ((".*", "all", 0.0),)}, "trains nothing"),
        ({"groups": (("head/.*", "a", 1.0), (".*", "a", 2.0))}, "two multipliers"),
    ],
)
def test_phases_that_cannot_train_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        trained(**changes)


def parsed(phases) -> tuple[config.Phase, ...]:
    """What `config.parse` makes of a recipe's phases."""
    recipe = common.get_config()
    recipe.phases = phases
    return rules.parse(recipe).phases


def test_layers_thaw_from_the_head():
    rates = {"head": 1e-2, "last 2": 3e-3, "all": 1e-3}
    phases = parsed(common.gradual("thaw", rates, epochs=2, lr_thirds=THIRDS, momentum=0.5))
    assert [phase.name for phase in phases] == ["thaw_1", "thaw_2", "thaw_3"]
    assert {str(phase.train): phase.lr for phase in phases} == rates
    assert {(phase.epochs, phase.momentum) for phase in phases} == {(2, 0.5)}
    counts = [len(trainable.trained_paths(labels_of(phase))) for phase in phases]
    assert counts == [1, 3, 7]
    phases = parsed(common.gradual("bn", rates, train_bn_while_frozen=True, layer_decay=0.5))
    counts = [len(trainable.trained_paths(labels_of(phase))) for phase in phases]
    assert counts == [3, 5, 7]
