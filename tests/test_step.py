"""One real training step: what it changes, what it leaves alone, and what masked rows do to it."""

import numpy as np
import pytest

from fgc_jax import models, trees
from fgc_jax.training import rules
from tests import step_trainer, tiny_run
from tests.step_trainer import variables

MLP = {"mlp": True, "hidden": 8}  # a head with batch norms of its own
PLAIN_SGD = {"optimizer": "sgd", "lr": 0.125, "momentum": 0.0}
BN_LEAVES = ("scale", "bias", "mean", "var")


def under(paths, *prefixes):
    return {path for path in paths if any(trees.is_under(path, prefix) for prefix in prefixes)}


# Weight decay and Adam's moments would move a frozen parameter even where its gradient is zero.
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_parameters_and_statistics_stay_bit_for_bit(optimizer):
    trainer = step_trainer.make(
        train="last 1", head_options=MLP, optimizer=optimizer, lr=0.01, weight_decay=0.1
    )
    state, _ = trainer(step_trainer.batch_of(), steps=2)
    expected = under(variables(trainer.before), "backbone/layer1/1", "head")
    assert {"backbone/layer1/1/bn2/var", "head/bn1/mean", "head/fc/kernel"} < expected
    assert trainer.changed(state) == expected
    assert int(state.step) == 2


def test_batch_norm_alone_trains_while_its_layer_is_frozen():
    trainer = step_trainer.make(train="head", train_bn_while_frozen=True, **PLAIN_SGD)
    changed = trainer.changed(trainer(step_trainer.batch_of())[0])
    everything = variables(trainer.before)
    backbone = under(everything, "backbone")
    kernels = {path for path in backbone if path.endswith("/kernel")}
    assert len(kernels) == 5
    assert len(backbone - kernels) == 5 * len(BN_LEAVES)
    assert changed == everything.keys() - kernels


def test_a_group_of_multiplier_zero_freezes_statistics_too():
    trainer = step_trainer.make(train="all", groups=step_trainer.FROZEN_BN, **PLAIN_SGD)
    changed = trainer.changed(trainer(step_trainer.batch_of())[0])
    assert changed == {
        path for path in variables(trainer.before) if path.endswith("/kernel") or "/fc/" in path
    }


def test_masked_rows_count_for_nothing():
    trainer = step_trainer.make(train="all", groups=step_trainer.FROZEN_BN, **PLAIN_SGD)
    real, garbage = step_trainer.batch_of(4), step_trainer.batch_of(2, seed=1, mask=[0, 0])
    both = {
        name: np.concatenate([garbage[name][:1], real[name], garbage[name][1:]]) for name in real
    }
    (alone, expected), (state, metrics) = trainer(real), trainer(both)
    assert float(expected["grad_norm"]) > 0.1
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    for path, leaf in variables(alone).items():
        step_taken = variables(state)[path] - variables(trainer.before)[path]
        wanted = leaf - variables(trainer.before)[path]
        np.testing.assert_allclose(
            step_taken, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max(), err_msg=path
        )


def test_a_batch_of_masked_rows_changes_nothing():
    trainer = step_trainer.make(train="all", groups=step_trainer.FROZEN_BN, **PLAIN_SGD)
    state, metrics = trainer(step_trainer.batch_of(mask=np.zeros(6)))
    assert not trainer.changed(state)
    assert {name: float(value) for name, value in metrics.items()} == dict.fromkeys(metrics, 0.0)


def test_metrics_are_those_of_the_trained_network_before_the_step():
    trainer = step_trainer.make(train="last 1", groups=step_trainer.FROZEN_BN, **PLAIN_SGD)
    batch = step_trainer.batch_of()
    state, metrics = trainer(batch)
    old, new = variables(trainer.before), variables(state)
    moved = np.sqrt(sum(np.square(new[path] - old[path]).sum() for path in old))
    np.testing.assert_allclose(metrics["grad_norm"], moved / PLAIN_SGD["lr"], rtol=1e-5)

    recipe = tiny_run.recipe("unused")
    recipe.model.feature_map = "stage1"
    settings = rules.parse(recipe).model
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
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(
        metrics["top1"], 100 * (logits.argmax(-1) == batch["label"]).mean(), rtol=1e-5
    )


def test_randomness_comes_from_the_global_step_alone():
    trainer = step_trainer.make(
        train="head", head_options={"dropout": 0.5}, augment=(("flip", {}),), **PLAIN_SGD
    )
    batch = step_trainer.batch_of()
    first, again, other = (trainer(batch, number=number) for number in (3, 3, 4))
    assert trees.fingerprint(first) == trees.fingerprint(again)
    assert float(first[1]["loss"]) != float(other[1]["loss"])
