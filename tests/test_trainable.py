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


HEAD, LAST = "head/fc/kernel", "backbone/layer2/0/kernel"
THIRDS = (0.1, 0.25, 0.5)
GROUPS = (("head/.*", "head", 10.0), (".*", "backbone", 1.0))
SOME_FROZEN = (("head/.*", "head", 10.0), (".*/layer2/.*", "frozen", 0.0), (".*", "rest", 0.1))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train": "head"}, {HEAD: ("all", 1)}),
        ({"train": "last 1", "head_lr": 10.0}, {LAST: ("all", 1), HEAD: ("all", 10)}),
        (
            {"train": "last 1", "layer_decay": 0.5, "groups": GROUPS},
            {LAST: ("backbone", 0.5), HEAD: ("head", 10)},
        ),
        (
            {"train": "last 2", "groups": SOME_FROZEN},
            {"backbone/layer1/1/kernel": ("rest", 0.1), HEAD: ("head", 10)},
        ),
    ],
)
def test_what_trains_and_how(changes, expected):
    assert trained(**changes) == expected


@pytest.mark.parametrize(
    ("changes", "rates"),  # of the stem, the three layers behind it and the head
    [
        ({"layer_decay": 0.5}, (0.5**4, 0.5**3, 0.5**2, 0.5, 1)),
        # Four layers: two, one and one; the head belongs to the last third.
        ({"lr_thirds": THIRDS, "head_lr": 2.0}, (0.1, 0.1, 0.25, 0.5, 1)),
    ],
)
def test_rates_fall_from_the_head_to_the_stem(changes, rates):
    stem, *others = rates
    factors = [stem] * 3 + others
    expected = {path: ("all", factor) for path, factor in zip(PATHS, factors, strict=True)}
    assert trained(train="all", **changes) == expected


@pytest.mark.parametrize("total", [1, 2, 3, 7, 9])
def test_thirds_are_as_equal_as_layers_allow(total):
    layers = {f"block{i}": (f"backbone/block{i}",) for i in range(total)}
    factor = trainable.factors(make_phase(lr_thirds=(1.0, 2.0, 3.0)), layers)
    found = [factor(f"backbone/block{i}/kernel") for i in range(total)]
    counts = [found.count(third) for third in (1, 2, 3)]
    assert found == sorted(found) and max(counts) - min(counts) <= 1
    assert factor("head/fc/kernel") == 3


def test_batch_norm_can_train_while_its_layer_is_frozen():
    assert set(trained(train="head", train_bn_while_frozen=True)) == {"head/fc/kernel"} | BN_PATHS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (("haed/.*", "head", 1.0), (".*", "rest", 1.0))}, "haed"),
        ({"groups": (("head/.*", "head", 1.0),)}, "no group rule matches"),
        ({"train": "from layer9"}, "no layer 'layer9'"),
        ({"groups": ((".*", "all", 0.0),)}, "trains nothing"),
        ({"groups": (("head/.*", "a", 1.0), (".*", "a", 2.0))}, "two multipliers"),
        ({"train": "head", "layer_decay": 0.5}, "layer_decay=0.5 has no effect: train='head'"),
        ({"train": "head", "lr_thirds": (0.1, 0.3, 1.0)}, "has no effect: train='head' trai"),
        (
            {"head_lr": 2.0, "groups": (("head/.*", "head", 0.0), (".*", "rest", 1.0))},
            "head_lr=2.0 has no effect: train='all' and these groups keep the head frozen",
        ),
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
