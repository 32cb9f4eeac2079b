"""Layers, groups and optimisers of a phase."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from fgc_jax import config, trees
from fgc_jax.training import optim, schedules

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
    assert optim.last_layers(parsed_layers(spec), LAYERS) == layers


def parsed_layers(spec: str) -> config.Layers:
    return (config.Layers if spec == "head" else config.NewLayers).parse(spec)


@pytest.mark.parametrize("spec", ["last 5", "from layer3", "from layer"])
def test_unknown_layers_are_errors(spec):
    with pytest.raises(ValueError, match="has (only|no)"):
        optim.last_layers(parsed_layers(spec), LAYERS)


def trained(**changes):
    return optim.trained_groups(make_phase(**changes), LAYERS, PATHS, BN_PATHS)


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
        ({"train": "head", "layer_decay": 0.5}, "layer_decay=0.5 has no effect where train='head'"),
        ({"train": "head", "lr_thirds": (0.1, 0.3, 1.0)}, "has no effect where train='head' trai"),
        (
            {"head_lr": 2.0, "groups": (("head/.*", "head", 0.0), (".*", "rest", 1.0))},
            "head_lr=2.0 has no effect where train='all' and these groups leave the head frozen",
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
    factor = optim._multiplier(make_phase(lr_thirds=(1.0, 2.0, 3.0)), layers)
    found = [factor(f"backbone/block{i}/kernel") for i in range(total)]
    counts = [found.count(third) for third in (1, 2, 3)]
    assert found == sorted(found) and max(counts) - min(counts) <= 1
    assert factor("head/fc/kernel") == 3


def test_heads_own_rate():
    assert trained(train="last 1", head_lr=10.0) == {
        "backbone/layer2/0/kernel": ("all", 1.0),
        "head/fc/kernel": ("all", 10.0),
    }


def test_a_step_is_scaled_by_each_layers_factor():
    groups = trained(train="all", layer_decay=0.5)
    phase = make_phase(optimizer="sgd", lr=1.0, momentum=0.0, layer_decay=0.5)
    optimizer = optim.make(phase, schedules.build(phase, 10), groups)
    tree = trees.unflatten(dict.fromkeys(PATHS, jnp.ones(2)))
    updates, _ = optimizer.update(tree, optimizer.init(tree), tree)
    for path, update in trees.flatten(updates).items():
        np.testing.assert_allclose(update, -groups[path][1] * np.ones(2), rtol=1e-6)


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


def run(phase, params, grads, groups, steps=3, updates=1):
    schedule = schedules.build(phase, 2)
    optimizer = optim.make(phase, schedule, groups, updates)
    state = optimizer.init(params)
    for step in np.repeat(range(steps), updates):
        updates, state = optimizer.update(grads, state, params)
        updates = optax.tree.scale(schedule.rate(step), updates)
        params = optax.apply_updates(params, updates)
    return params


def sgd(weight, grad, rates, momenta, *, decay, nesterov=False):
    """torch.optim.SGD's formula."""
    buffer = 0.0
    for rate, momentum in zip(rates, momenta, strict=True):
        total = grad + decay * weight
        buffer = momentum * buffer + total
        weight = weight - rate * (total + momentum * buffer if nesterov else buffer)
    return weight


def adam(weight, grad, rates, momenta, *, decay, kind, beta2):
    """torch.optim.Adam's and AdamW's formula (eps 1e-8), and that of LAMB
    (arXiv:1904.00962, algorithm 2; eps 1e-6)."""
    mean = square = 0.0
    for step, (rate, beta1) in enumerate(zip(rates, momenta, strict=True), start=1):
        total = grad + decay * weight if kind == "adam" else grad
        mean = beta1 * mean + (1 - beta1) * total
        square = beta2 * square + (1 - beta2) * total**2
        root = np.sqrt(square / (1 - beta2**step))
        direction = mean / (1 - beta1**step) / (root + (1e-6 if kind == "lamb" else 1e-8))
        if kind != "adam":
            direction = direction + decay * weight
        if kind == "lamb":
            direction = direction * np.linalg.norm(weight) / np.linalg.norm(direction)
        weight = weight - rate * direction
    return weight


@pytest.mark.parametrize("updates", [1, 4], ids=["plain", "four_losses"])
@pytest.mark.parametrize("one_cycle", [False, True], ids=["constant", "one_cycle"])
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw", "lamb"])
def test_optimisers_equal_their_formulas(name, one_cycle, updates):
    phase = make_phase(
        optimizer="sgd" if name == "nesterov" else name,
        nesterov=name == "nesterov",
        lr=0.1,
        epochs=2,
        momentum=0.9 if one_cycle else 0.8,
        beta2=0.999 if one_cycle or "adam" not in name else 0.98,
        weight_decay=0.05,
        schedule="one_cycle" if one_cycle else "constant",
        schedule_options={"peak": "50 %"} if one_cycle else {},
    )
    weight, grad = np.float64([0.5, -2.0]), np.float64([0.3, 0.01])
    tree, grads = ({"head": {"kernel": jnp.float32(value)}} for value in (weight, grad))
    groups = {"head/kernel": ("all", 1.0)}
    got = run(phase, tree, grads, groups, updates=updates)["head"]["kernel"]
    # The cycle's four steps: up in one, down in two.
    rates, momenta = (
        ([0.004, 0.1, 0.050002], [0.95, 0.85, 0.9]) if one_cycle else ([0.1] * 3, [0.8] * 3)
    )
    rates, momenta = np.repeat(rates, updates), np.repeat(momenta, updates)
    if name in ("sgd", "nesterov"):
        expected = sgd(weight, grad, rates, momenta, decay=0.05, nesterov=name == "nesterov")
    else:
        expected = adam(weight, grad, rates, momenta, decay=0.05, kind=name, beta2=phase.beta2)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=5e-6)  # some end close to zero


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lamb"])
def test_norm_and_bias_need_not_decay(name):
    phase = make_phase(
        optimizer=name, momentum=0.0, lr=0.1, weight_decay=0.5, decay_norm_and_bias=False
    )
    tree = {"fc": {"bias": jnp.full(2, 4.0), "kernel": jnp.ones((2, 2))}}
    groups = {"fc/bias": ("all", 1.0), "fc/kernel": ("all", 1.0)}
    got = run(phase, tree, jax.tree.map(jnp.zeros_like, tree), groups, steps=1)
    np.testing.assert_array_equal(got["fc"]["bias"], tree["fc"]["bias"])
    assert (got["fc"]["kernel"] < 1).all()
    got = run(phase, tree, jax.tree.map(jnp.ones_like, tree), groups, steps=1)
    np.testing.assert_allclose(got["fc"]["bias"], 3.9, rtol=1e-5)  # not in the ratio of its norm


def test_groups_scale_the_learning_rate():
    phase = make_phase(lr=0.1, momentum=0.0)
    tree = {"a": {"k": jnp.zeros(2)}, "b": {"k": jnp.zeros(2)}}
    grads = jax.tree.map(jnp.ones_like, tree)
    got = run(phase, tree, grads, {"a/k": ("slow", 0.1), "b/k": ("fast", 1.0)}, steps=1)
    np.testing.assert_allclose(got["a"]["k"], -0.01, rtol=1e-6)
    np.testing.assert_allclose(got["b"]["k"], -0.1, rtol=1e-6)


def test_clipping_limits_the_norm_over_all_groups():
    phase = make_phase(lr=1.0, momentum=0.0, clip_norm=1.0)
    tree = {"a": {"k": jnp.zeros(1)}, "b": {"k": jnp.zeros(1)}}
    grads = {"a": {"k": jnp.float32([3.0])}, "b": {"k": jnp.float32([4.0])}}
    got = run(phase, tree, grads, {"a/k": ("x", 1.0), "b/k": ("y", 1.0)}, steps=1)
    np.testing.assert_allclose(got["a"]["k"], -0.6, rtol=1e-6)
    np.testing.assert_allclose(got["b"]["k"], -0.8, rtol=1e-6)


def test_phase_fields_match_the_recipes():
    """configs/common.py and config.Phase must hold the same keys."""
    assert set(common.phase("x").keys()) == {
        field.name for field in dataclasses.fields(config.Phase)
    }


def parsed(phases) -> tuple[config.Phase, ...]:
    """What `config.parse` makes of a recipe's phases."""
    recipe = common.get_config()
    recipe.phases = phases
    return config.parse(recipe).phases


def test_images_grow_and_batches_follow():
    phases = parsed(common.growing("all", (224, 299, 448), batch_size=32, lr=0.1, lr_batch=32))
    assert [phase.name for phase in phases] == ["all_224", "all_299", "all_448"]
    assert [phase.crop for phase in phases] == [224, 299, 448]
    assert [phase.resize for phase in phases] == [256, 342, 512]
    assert [phase.batch_size for phase in phases] == [32, 16, 8]
    assert [schedules.peak(phase) for phase in phases] == [0.1, 0.05, 0.025]
    phases = parsed(common.growing("x", (100, 400), batch_size=20, resize=1.0))
    assert [(phase.resize, phase.batch_size) for phase in phases] == [(100, 20), (400, 1)]


def test_layers_thaw_from_the_head():
    rates = {"head": 1e-2, "last 2": 3e-3, "all": 1e-3}
    phases = parsed(common.gradual("thaw", rates, epochs=2, lr_thirds=THIRDS, momentum=0.5))
    assert [phase.name for phase in phases] == ["thaw_1", "thaw_2", "thaw_3"]
    assert {str(phase.train): phase.lr for phase in phases} == rates
    assert {(phase.epochs, phase.momentum) for phase in phases} == {(2, 0.5)}
    counts = [len(optim.trained_groups(phase, LAYERS, PATHS, BN_PATHS)) for phase in phases]
    assert counts == [1, 3, 7]
    phases = parsed(common.gradual("bn", rates, train_bn_while_frozen=True, layer_decay=0.5))
    counts = [len(optim.trained_groups(phase, LAYERS, PATHS, BN_PATHS)) for phase in phases]
    assert counts == [3, 5, 7]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lr": 0.5}, "sgd 0.5"),
        ({"lr": 1e-3, "optimizer": "adamw", "layer_decay": 0.75}, "adamw 0.001 x 0.75 a layer"),
        (
            {"lr": 0.1, "lr_batch": 256, "batch_size": 32, "head_lr": 10.0, "warmup": "5 %"},
            "sgd 0.0125 (0.1 at batch 256), head x 10, warm-up 5 %",
        ),
        (
            {"lr_thirds": (1 / 9, 1 / 3, 1), "schedule": "one_cycle"},
            "sgd 0.01 x 0.111, 0.333, 1 by thirds, one_cycle",
        ),
    ],
)
def test_a_phases_rates_are_described(changes, text):
    assert optim.describe(make_phase(**changes)) == text
