"""One real training step: what it changes, what it leaves alone, and what masked rows do to it."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import pytest

from configs import common
from fgc_jax import config, experiment, mesh, models, optim, params, predict, schedules, step
from fgc_jax.data import dataset
from tests import tiny_run

MLP = {"mlp": True, "hidden": 8}  # a head with batch norms of its own
FROZEN_BN = ((r".*/bn\d/.*", "bn", 0.0), (".*", "rest", 1.0))
PLAIN_SGD = {"optimizer": "sgd", "lr": 0.125, "momentum": 0.0}
BN_LEAVES = ("scale", "bias", "mean", "var")


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The compiled train step of one phase and the state before it, in NumPy."""

    before: step.TrainState
    train_step: Callable
    mesh: jax.sharding.Mesh

    def __call__(self, batch, *, number=0, steps=1):
        """(state, metrics) after `steps` steps, of which the first is global step `number`."""
        state = mesh.replicate(self.mesh, self.before.replace(step=np.int32(number)))
        for _ in range(steps):
            on_device = mesh.to_global(self.mesh, batch)
            state, metrics = self.train_step(state, on_device, {}, 1.0)
        return jax.tree.map(np.asarray, (state, metrics))

    def changed(self, after) -> set[str]:
        """Paths of the parameters and statistics that are not bit-equal to those before."""
        old, new = variables(self.before), variables(after)
        assert old.keys() == new.keys()
        return {path for path in old if old[path].tobytes() != new[path].tobytes()}


def make_trainer(*, head_options=(), augment=(), **phase) -> Trainer:
    """As a run makes it, for the first stage of a ResNet-18; noise on its weights, of which some
    begin as zero, keeps every gradient from being zero by construction."""
    recipe = tiny_run.recipe("unused")
    recipe.model.feature_map = "stage1"
    recipe.model.head_options = dict(head_options)
    recipe.data.augment = augment
    recipe.phases = (common.phase("test", resize=32, crop=32, **phase),)
    settings = config.parse(recipe)
    plan = experiment.assemble(settings, dataset.Dataset("none", tiny_run.CLASSES, {}))
    (parsed,) = settings.phases
    groups = plan.groups(parsed)
    schedule = schedules.build(parsed, 10)
    optimizer = optim.make(parsed, schedule, groups)
    method = plan.method(predict.load_run)
    train_step = step.make_train_step(
        graphdef=step.train_graphdef(plan.model, groups),
        loss=method.loss,
        optimizer=optimizer,
        rate=schedule.rate,
        phase_start=0,
        trained=groups.keys(),
        preprocess=plan.augment(parsed),
        key=plan.key(0, 2),
        device_mesh=plan.mesh,
    )
    weights, stats, _ = experiment.initial_variables(plan)
    rng = np.random.default_rng(0)
    noisy = {
        path: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32)
        for path, leaf in params.flatten(weights).items()
    }
    weights = params.unflatten(noisy)
    trainable, _ = params.select(weights, groups.keys())
    before = step.TrainState(np.int32(0), weights, stats, optimizer.init(trainable), method.state)
    return Trainer(before, train_step, plan.mesh)


def variables(state) -> dict[str, np.ndarray]:
    return params.flatten(state.params) | params.flatten(state.stats)


def make_batch(rows=6, seed=0, mask=None):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (rows, 32, 32, 3), np.uint8),
        "label": (np.arange(rows) % 3).astype(np.int32),
        "mask": np.ones(rows, np.float32) if mask is None else np.float32(mask),
        "index": np.arange(rows, dtype=np.int32),
    }


def under(paths, *prefixes):
    return {path for path in paths if any(params.is_under(path, prefix) for prefix in prefixes)}


# Weight decay and Adam's moments would move a frozen parameter even where its gradient is zero.
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_parameters_and_statistics_stay_bit_for_bit(optimizer):
    trainer = make_trainer(
        train="last 1", head_options=MLP, optimizer=optimizer, lr=0.01, weight_decay=0.1
    )
    state, _ = trainer(make_batch(), steps=2)
    expected = under(variables(trainer.before), "backbone/layer1/1", "head")
    assert {"backbone/layer1/1/bn2/var", "head/bn1/mean", "head/fc/kernel"} < expected
    assert trainer.changed(state) == expected
    assert int(state.step) == 2


def test_batch_norm_alone_trains_while_its_layer_is_frozen():
    trainer = make_trainer(train="head", train_bn_while_frozen=True, **PLAIN_SGD)
    changed = trainer.changed(trainer(make_batch())[0])
    everything = variables(trainer.before)
    backbone = under(everything, "backbone")
    kernels = {path for path in backbone if path.endswith("/kernel")}
    assert len(kernels) == 5
    assert len(backbone - kernels) == 5 * len(BN_LEAVES)
    assert changed == everything.keys() - kernels


def test_a_group_of_multiplier_zero_freezes_statistics_too():
    trainer = make_trainer(train="all", groups=FROZEN_BN, **PLAIN_SGD)
    changed = trainer.changed(trainer(make_batch())[0])
    assert changed == {
        path for path in variables(trainer.before) if path.endswith("/kernel") or "/fc/" in path
    }


def test_masked_rows_count_for_nothing():
    trainer = make_trainer(train="all", groups=FROZEN_BN, **PLAIN_SGD)
    real, garbage = make_batch(4), make_batch(2, seed=1, mask=[0, 0])
    both = {
        name: np.concatenate([garbage[name][:1], real[name], garbage[name][1:]]) for name in real
    }
    (alone, expected), (state, metrics) = trainer(real), trainer(both)
    assert float(expected["grad_norm"]) > 0.1
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    for path, leaf in variables(alone).items():
        step_taken = variables(state)[path] - variables(trainer.before)[path]
        wanted = leaf - variables(trainer.before)[path]
        np.testing.assert_allclose(
            step_taken, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max(), err_msg=path
        )


def test_a_batch_of_masked_rows_changes_nothing():
    trainer = make_trainer(train="all", groups=FROZEN_BN, **PLAIN_SGD)
    state, metrics = trainer(make_batch(mask=np.zeros(6)))
    assert not trainer.changed(state)
    assert {name: float(value) for name, value in metrics.items()} == dict.fromkeys(metrics, 0.0)


def test_metrics_are_those_of_the_trained_network_before_the_step():
    trainer = make_trainer(train="last 1", groups=FROZEN_BN, **PLAIN_SGD)
    batch = make_batch()
    state, metrics = trainer(batch)
    old, new = variables(trainer.before), variables(state)
    moved = np.sqrt(sum(np.square(new[path] - old[path]).sum() for path in old))
    np.testing.assert_allclose(metrics["grad_norm"], moved / PLAIN_SGD["lr"], rtol=1e-4)

    recipe = tiny_run.recipe("unused")
    recipe.model.feature_map = "stage1"
    settings = config.parse(recipe).model
    graphdef = models.evaluation_graphdef(models.abstract(settings, 3))
    facts = models.preprocess(settings)
    mean, std = (np.reshape(each, (1, 1, 1, 3)) for each in (facts.mean, facts.std))
    pixels = np.float32((batch["image"] / 255 - mean) / std)
    before = trainer.before
    (logits, _), _ = models.apply(
        graphdef, before.params, before.stats, lambda model: model(pixels)
    )
    logits = np.float64(logits)
    log_sums = np.log(np.exp(logits).sum(-1))
    losses = log_sums - logits[np.arange(6), batch["label"]]
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-4)
    np.testing.assert_allclose(
        metrics["top1"], 100 * (logits.argmax(-1) == batch["label"]).mean(), rtol=1e-5
    )


def test_randomness_comes_from_the_global_step_alone():
    trainer = make_trainer(
        train="head", head_options={"dropout": 0.5}, augment=(("flip", {}),), **PLAIN_SGD
    )
    batch = make_batch()
    first, again, other = (trainer(batch, number=number) for number in (3, 3, 4))
    assert params.fingerprint(first) == params.fingerprint(again)
    assert float(first[1]["loss"]) != float(other[1]["loss"])
