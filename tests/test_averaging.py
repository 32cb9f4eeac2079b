"""Averaged weights, accumulated and sharpened gradients: against their formulas in NumPy."""

import dataclasses

import jax
import numpy as np
import pytest

from fgc_jax import config, trees
from fgc_jax.training import averaging
from tests import step_trainer

SGD = {"lr": 0.05, "momentum": 0.0, "train": "all"}


def flat(tree):
    return {path: np.asarray(leaf) for path, leaf in trees.flatten(tree).items()}


def states(trainer, batch, steps):
    """The state after each of `steps` steps."""
    return [trainer(batch, steps=n + 1)[0] for n in range(steps)]


def test_ema_is_the_recursion_with_warm_up():
    trainer = step_trainer.make(average="ema 0.6", **SGD)
    batch = step_trainer.batch_of()
    found = states(trainer, batch, 7)
    for part in ("params", "stats"):
        expected = flat(getattr(trainer.before, part))
        for done, state in enumerate(found):
            decay = min(0.6, (1 + done) / (10 + done))
            newest = flat(getattr(state, part))
            expected = {k: decay * v + (1 - decay) * newest[k] for k, v in expected.items()}
            for path, leaf in flat(state.average[part]).items():
                np.testing.assert_allclose(leaf, expected[path], rtol=1e-5, atol=1e-7)
    moved = (
        flat(found[-1].params)["head/fc/kernel"]
        - flat(found[-1].average["params"])["head/fc/kernel"]
    )
    assert np.abs(moved).max() > 1e-4


def test_the_average_holds_what_trains_and_nothing_else():
    trainer = step_trainer.make(average="ema 0.9", **{**SGD, "train": "last 1"})
    state, _ = trainer(step_trainer.batch_of())
    trained = flat(state.average["params"]).keys()
    assert trained == {
        p for p in flat(state.params) if p.startswith(("head/", "backbone/layer1/1/"))
    }
    assert step_trainer.make(**SGD).before.average == {}


def test_swa_counts_from_the_first_of_the_last_epochs():
    class Phase:
        epochs, average = 6, config.Average.parse("swa 3")

    assert [averaging.swa_count(Phase, epoch) for epoch in range(1, 7)] == [1, 1, 1, 1, 2, 3]


def test_swa_is_the_mean_of_the_weights():
    rng = np.random.default_rng(0)
    weights = [{"w": rng.normal(size=(3, 2)).astype(np.float32)} for _ in range(4)]
    mean = {"w": np.full((3, 2), np.nan, np.float32)}
    for count, newest in enumerate(weights, 1):
        mean = averaging.mean_of_weights(mean, newest, np.float32(count))
    expected = np.mean([tree["w"] for tree in weights], axis=0)
    np.testing.assert_allclose(mean["w"], expected, rtol=1e-6)


@pytest.mark.parametrize("mask", [None, (1, 0, 1, 1, 0, 1)])
def test_accumulated_parts_take_the_step_of_the_whole_batch(mask):
    """Without batch statistics, which differ by part by nature."""
    options = {**SGD, "groups": step_trainer.FROZEN_BN, "batch_size": 6}
    batch = step_trainer.batch_of(6, mask=mask)
    (whole, expected), (parts, metrics) = (
        step_trainer.make(accumulate=count, **options)(batch) for count in (1, 3)
    )
    for path, leaf in flat(whole.params).items():
        np.testing.assert_allclose(flat(parts.params)[path], leaf, rtol=1e-4, atol=1e-6)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)


def test_statistics_see_the_parts_one_after_the_other():
    trainer = step_trainer.make(accumulate=2, **SGD)
    batch = step_trainer.batch_of(6)
    together = flat(trainer(batch)[0].stats)
    single = step_trainer.make(**{**SGD, "lr": 0.0})
    halves = [{name: values[i::2] for name, values in batch.items()} for i in (0, 1)]
    state, _ = single(halves[0])
    state, _ = dataclasses.replace(single, before=state)(halves[1], number=1)
    for path, leaf in flat(state.stats).items():
        np.testing.assert_allclose(together[path], leaf, rtol=1e-4, atol=1e-6)


def test_sam_takes_the_gradient_at_the_moved_weights():
    rho, options = 0.2, {**SGD, "groups": step_trainer.FROZEN_BN}
    batch = step_trainer.batch_of()
    plain, sharp = step_trainer.make(**options), step_trainer.make(sam_rho=rho, **options)

    def gradient(trainer):
        before, after = flat(trainer.before.params), flat(trainer(batch)[0].params)
        return {path: (before[path] - after[path]) / SGD["lr"] for path in before}

    first = gradient(plain)
    norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in first.values()))
    moved = {
        path: leaf + rho * first[path] / norm for path, leaf in flat(plain.before.params).items()
    }
    elsewhere = plain.before.replace(params=trees.unflatten(moved))
    plain = dataclasses.replace(plain, before=elsewhere)
    expected, found = gradient(plain), gradient(sharp)
    scale = max(np.abs(g).max() for g in expected.values())
    assert max(np.abs(found[path] - expected[path]).max() for path in expected) < 2e-3 * scale
    assert max(np.abs(found[path] - first[path]).max() for path in expected) > 0.05 * scale


def test_sam_keeps_the_statistics_of_the_first_pass():
    batch = step_trainer.batch_of()
    plain, sharp = step_trainer.make(**SGD), step_trainer.make(sam_rho=0.5, **SGD)
    expected, found = (flat(trainer(batch)[0].stats) for trainer in (plain, sharp))
    assert jax.tree.all(jax.tree.map(np.allclose, found, expected))
