"""The optimisers of a phase."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from fgc_jax import config, trees
from fgc_jax.training import optim, schedules, trainable
from tests import test_trainable


def plain(groups):
    """Labels of these paths: path -> (group, factor)."""
    return {path: trainable.Label(*each) for path, each in groups.items()}


def run(phase, params, grads, groups, steps=3, updates=1):
    schedule = schedules.build(phase, 2)
    optimizer = optim.make(phase, schedule, plain(groups), updates)
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
    phase = test_trainable.make_phase(
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


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw", "lamb"])
def test_groups_step_as_one_optimiser_whose_updates_are_multiplied(name):
    """For three labels, clipped gradients and vectors that do not decay; but for the last bit, as
    the compiler fuses the products of one leaf and of several differently."""
    phase = test_trainable.make_phase(
        optimizer="sgd" if name == "nesterov" else name, nesterov=name == "nesterov",
        weight_decay=0.05, decay_norm_and_bias=False, clip_norm=1.5,
    )  # fmt: skip
    schedule = schedules.build(phase, 10)
    rng = np.random.default_rng(0)
    shapes = {"a/kernel": (3, 2), "a/bias": (2,), "b/kernel": (2, 4), "c/kernel": (4, 4)}
    tree, *grads = (
        trees.unflatten({p: jnp.float32(rng.normal(size=s)) for p, s in shapes.items()})
        for _ in range(4)
    )
    factors = {"a/kernel": 0.1, "a/bias": 0.1, "b/kernel": 0.3, "c/kernel": 1.0}
    labels = {path: trainable.Label(path[0], factor) for path, factor in factors.items()}
    one = optim.make(phase, schedule, dict.fromkeys(shapes, trainable.Label("all", 1.0)))
    many = optim.make(phase, schedule, labels)
    state, state_of_many = one.init(tree), many.init(tree)
    for grad in grads:
        updates, state = one.update(grad, state, tree)
        found, state_of_many = many.update(grad, state_of_many, tree)
        for path, update in trees.flatten(updates).items():
            expected = np.asarray(update) * np.float32(factors[path])
            np.testing.assert_allclose(trees.flatten(found)[path], expected, rtol=3e-7)


def test_a_group_may_have_settings_of_its_own():
    """Weight decay and optimiser of one group; the other has the phase's."""
    own = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    groups = (("a/.*", "plain", 1.0, own), (".*", "rest", 1.0))
    phase = test_trainable.make_phase(optimizer="adamw", lr=1.0, weight_decay=0.5, groups=groups)
    labels = trainable.of(phase, {"one": ("a",)}, ["a/kernel", "head/kernel"], [])
    optimizer = optim.make(phase, schedules.build(phase, 10), labels)
    tree = trees.unflatten(dict.fromkeys(labels, jnp.full((2, 2), 4.0)))
    grads = trees.unflatten(dict.fromkeys(labels, jnp.full((2, 2), 0.25)))
    updates, _ = optimizer.update(grads, optimizer.init(tree), tree)
    np.testing.assert_allclose(updates["a"]["kernel"], np.full((2, 2), -0.25))
    # Adam's first step is the gradient's sign, the decay half the weight.
    np.testing.assert_allclose(updates["head"]["kernel"], np.full((2, 2), -3.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"weight_decay": -1.0}, r"groups\[0\]: weight_decay=-1.0 must be a number at least 0"),
        ({"lr": 1.0}, r"groups\[0\]: lr is unknown"),
        ({"optimizer": "sgd"}, "optimizer='sgd' has no effect: the phase has the same value"),
        ({"beta2": 0.9}, "beta2 has no effect with optimizer='sgd'"),
        ({}, "has no effect"),
    ],
)
def test_settings_of_a_group_are_checked(own, message):
    groups = (("head/.*", "head", 1.0, own), (".*", "rest", 1.0))
    with pytest.raises(ValueError, match=message):
        test_trainable.parsed((common.phase("test", groups=groups),))


def test_what_is_frozen_gets_no_update():
    labels = {"a/kernel": trainable.Label("all", 0.5), "b/kernel": trainable.Label("all")}
    phase = test_trainable.make_phase(optimizer="adamw", weight_decay=0.1)
    optimizer = optim.make(phase, schedules.build(phase, 10), labels)
    tree = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.ones((2, 2))}}
    updates, _ = optimizer.update(tree, optimizer.init(tree), tree)
    assert updates["a"]["kernel"].all() and not updates["b"]["kernel"].any()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lamb"])
def test_norm_and_bias_need_not_decay(name):
    phase = test_trainable.make_phase(
        optimizer=name, momentum=0.0, lr=0.1, weight_decay=0.5, decay_norm_and_bias=False
    )
    tree = {"fc": {"bias": jnp.full(2, 4.0), "kernel": jnp.ones((2, 2))}}
    groups = {"fc/bias": ("all", 1.0), "fc/kernel": ("all", 1.0)}
    got = run(phase, tree, jax.tree.map(jnp.zeros_like, tree), groups, steps=1)
    np.testing.assert_array_equal(got["fc"]["bias"], tree["fc"]["bias"])
    assert (got["fc"]["kernel"] < 1).all()
    got = run(phase, tree, jax.tree.map(jnp.ones_like, tree), groups, steps=1)
    np.testing.assert_allclose(got["fc"]["bias"], 3.9, rtol=1e-5)  # not in the ratio of its norm


def test_clipping_limits_the_norm_over_all_groups():
    phase = test_trainable.make_phase(lr=1.0, momentum=0.0, clip_norm=1.0)
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


def test_images_grow_and_batches_follow():
    grown = common.growing("all", (224, 299, 448), batch_size=32, lr=0.1, lr_batch=32)
    phases = test_trainable.parsed(grown)
    assert [phase.name for phase in phases] == ["all_224", "all_299", "all_448"]
    assert [phase.crop for phase in phases] == [224, 299, 448]
    assert [phase.resize for phase in phases] == [256, 342, 512]
    assert [phase.batch_size for phase in phases] == [32, 16, 8]
    assert [schedules.peak(phase) for phase in phases] == [0.1, 0.05, 0.025]
    phases = test_trainable.parsed(common.growing("x", (100, 400), batch_size=20, resize=1.0))
    assert [(phase.resize, phase.batch_size) for phase in phases] == [(100, 20), (400, 1)]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lr": 0.5}, "sgd 0.5"),
        ({"lr": 1e-3, "optimizer": "adamw", "layer_decay": 0.75}, "adamw 0.001 x 0.75 per layer"),
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
    assert optim.describe(test_trainable.make_phase(**changes)) == text


@pytest.mark.parametrize(
    ("own", "phase"),
    [
        ({"weight_decay": 0.0}, {"weight_decay": 0.1, "decay_norm_and_bias": False}),
        ({"optimizer": "adam"}, {"nesterov": True}),
        ({"momentum": 0.0}, {"nesterov": True}),
    ],
)
def test_what_a_group_has_from_its_phase_may_be_without_effect(own, phase):
    groups = (("head/.*", "head", 1.0, own), (".*", "rest", 1.0))
    (found,) = test_trainable.parsed((common.phase("test", groups=groups, **phase),))
    assert found.groups[0][3] == own
