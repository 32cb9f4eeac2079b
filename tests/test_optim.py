"""Layers, groups and optimisers of a phase."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from fgc_jax import config, optim, params, schedules

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
    return config.Phase(**common.phase("test", **changes).to_dict())


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
    assert optim.last_layers(spec, LAYERS) == layers


@pytest.mark.parametrize("spec", ["last 5", "from layer3", "from layer"])
def test_unknown_layers_are_errors(spec):
    with pytest.raises(ValueError, match="has (only|no)"):
        optim.last_layers(spec, LAYERS)


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


def test_layer_decay_of_a_head_alone_is_refused():
    with pytest.raises(ValueError, match="layer_decay=0.5 has no effect where train='head'"):
        trained(train="head", layer_decay=0.5)


def test_a_step_is_scaled_by_each_layers_factor():
    groups = trained(train="all", layer_decay=0.5)
    phase = make_phase(optimizer="sgd", lr=1.0, momentum=0.0, layer_decay=0.5)
    optimizer = optim.make(phase, schedules.build(phase, 10), groups)
    tree = params.unflatten(dict.fromkeys(PATHS, jnp.ones(2)))
    updates, _ = optimizer.update(tree, optimizer.init(tree), tree)
    for path, update in params.flatten(updates).items():
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


def run(phase, params, grads, groups, steps=3):
    schedule = schedules.build(phase, 10)
    optimizer = optim.make(phase, schedule, groups)
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(grads, state, params)
        updates = optax.tree.scale(schedule.rate(step), updates)
        params = optax.apply_updates(params, updates)
    return params


def torch_sgd(weight, grad, lr, momentum, decay, steps):
    """torch.optim.SGD's formula."""
    buffer = None
    for _ in range(steps):
        total = grad + decay * weight
        buffer = total if buffer is None else momentum * buffer + total
        weight = weight - lr * buffer
    return weight


def torch_adam(weight, grad, lr, beta1, decay, decoupled, steps):
    """torch.optim.Adam's (decoupled: AdamW's) formula with beta2 0.999 and eps 1e-8."""
    mean = square = 0.0
    for step in range(1, steps + 1):
        total = grad if decoupled else grad + decay * weight
        if decoupled:
            weight = weight * (1 - lr * decay)
        mean = beta1 * mean + (1 - beta1) * total
        square = 0.999 * square + 0.001 * total**2
        unbiased = mean / (1 - beta1**step), square / (1 - 0.999**step)
        weight = weight - lr * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    return weight


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimisers_equal_pytorchs_formulas(name):
    phase = make_phase(optimizer=name, lr=0.1, momentum=0.8, weight_decay=0.05)
    weight, grad = np.float64([0.5, -2.0]), np.float64([0.3, 0.01])
    groups = {"head/kernel": ("all", 1.0)}
    tree, grads = ({"head": {"kernel": jnp.float32(value)}} for value in (weight, grad))
    got = run(phase, tree, grads, groups)["head"]["kernel"]
    if name == "sgd":
        expected = torch_sgd(weight, grad, 0.1, 0.8, 0.05, 3)
    else:
        expected = torch_adam(weight, grad, 0.1, 0.8, 0.05, name == "adamw", 3)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


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
