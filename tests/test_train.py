"""Phases in real runs of a small network: where each starts, when it stops, how it continues.

What validation measures is scripted where a test is about what follows from it.
"""

import dataclasses

import jax
import numpy as np
import pytest

from fgc_jax import train, trees
from fgc_jax.runs import checkpoint, directory, results
from tests import commands, tiny_run
from tests.tiny_run import run  # noqa: F401  (a fixture)
from tests.watched import (
    MEASURED,
    STEPS,
    TEST_IMAGES,
    Watched,
    differing,
    fingerprint,
    make_recipe,
    of_state,
    scripted,
    stopped,
    stored,
    watched_run,
)

LAST_LAYER = "backbone/layer1/1"
# (loss, top-1) after each epoch: the best by one is not the best by the other.
FIRST = [(1.0, 10.0), (0.5, 20.0), (0.7, 30.0)]
SECOND = [(0.9, 40.0), (0.8, 50.0), (0.8, 60.0), (0.85, 70.0)]


def two_phases(root):
    return make_recipe(
        root,
        {"name": "first", "epochs": 3, "lr": 0.02, "schedule": "cosine"},
        {
            "name": "second",
            "train": "last 1",
            "reinit": "last 1",
            "start_from": "best",
            "epochs": 6,
            "patience": 2,
            "optimizer": "adam",
            "lr": 1e-3,
        },
    )


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory) -> Watched:
    """Phase 1: 3 epochs, best the second. Phase 2 stops after epoch 4 of 6, best the second."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    return watched_run(two_phases(images), workdir, FIRST + SECOND)


@pytest.fixture(scope="module")
def slow(images, tmp_path_factory) -> Watched:
    """Phase 1 learns nothing; phase 2 gets worse by what it monitors; phase 3 starts from its
    last state and learns nothing. The seed is beyond 32 bits."""
    recipe = make_recipe(
        images,
        {
            "name": "still",
            "train": "head",
            "lr": 0.0,
            "epochs": 9,
            "patience": 2,
            "monitor": "val_top1",
        },
        {"name": "worse", "epochs": 2, "monitor": "val_top1"},
        {"name": "after", "train": "head", "lr": 0.0, "epochs": 1, "start_from": "last"},
    )
    recipe.seed = 2**32 - 1
    workdir = tmp_path_factory.mktemp("slow") / "run"
    return watched_run(recipe, workdir, [MEASURED] * 3 + [(0.9, 50.0), (0.5, 40.0)])


def test_a_phase_starts_from_the_best_checkpoint_of_the_one_before(straight):
    best = stored(straight.workdir, 2 * STEPS)
    start = of_state(straight.starts[1])
    kept = [path for path in best if not trees.is_under(path, LAST_LAYER)]
    assert len(kept) > 15
    assert not differing({p: best[p] for p in kept}, {p: start[p] for p in kept})
    assert differing({p: of_state(straight.ends[0])[p] for p in kept}, {p: best[p] for p in kept})


def test_a_phase_starts_from_the_last_state_of_the_one_before(slow):
    last, start = of_state(slow.ends[1]), of_state(slow.starts[2])
    assert not differing(last, start)
    best = slow.results.phases[1].best.step
    assert differing(stored(slow.workdir, best), start)


def test_the_methods_state_goes_on_from_where_a_phase_starts(straight, slow):
    def counted(states):
        return [int(state.method["steps"]) for state in states]

    assert counted(straight.starts) == [0, 2 * STEPS]  # from the best checkpoint, not the last
    assert counted(straight.ends) == [3 * STEPS, 2 * STEPS + 4 * STEPS]
    starts, ends = counted(slow.starts), counted(slow.ends)
    assert starts[0] == 0 and starts[2] == ends[1]


def test_learning_rate_zero_ends_with_what_it_started_from(slow):
    final = slow.results.phases[2].best.step
    assert not differing(stored(slow.workdir, final), of_state(slow.ends[1]))


def test_reinit_draws_exactly_the_named_layers_anew(straight):
    best, start = stored(straight.workdir, 2 * STEPS), of_state(straight.starts[1])
    named = {path for path in best if trees.is_under(path, LAST_LAYER)}
    for leaf in ("conv1/kernel", "bn1/scale", "bn2/mean"):
        assert f"{LAST_LAYER}/{leaf}" in named
    assert differing(best, start) == named
    initial = of_state(straight.starts[0])
    kernels = {path for path in named if path.endswith("/kernel")}
    # As new, but not what phase 1 began with; batch norm always begins with the same numbers.
    assert differing({p: initial[p] for p in named}, {p: start[p] for p in named}) == kernels
    for path in kernels:
        np.testing.assert_allclose(start[path].std(), initial[path].std(), rtol=0.05)


def test_the_optimiser_begins_anew_with_each_phase(straight):
    state = straight.starts[1]
    assert int(state.step) == 3 * STEPS
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if np.ndim(leaf)]
    trained = len(differing(of_state(state), of_state(straight.ends[1]))) - 4  # BN statistics
    assert len(moments) == 2 * trained
    assert not any(leaf.any() for leaf in moments)


def test_early_stopping_by_validation_loss(straight):
    first, second = straight.results.phases
    assert (first.epochs, first.best.epoch, first.best_val_top1) == (3, 2, 20.0)
    # Epoch 3 only ties with epoch 2, so epoch 4 is the second one without a better value.
    assert (second.epochs, second.best.epoch, second.best_val_top1) == (4, 2, 50.0)


def test_early_stopping_when_nothing_is_learned(slow):
    still, worse, _ = slow.results.phases
    assert (still.epochs, still.best.epoch) == (3, 1)  # patience 2
    assert (worse.epochs, worse.best.epoch, worse.best_val_top1) == (2, 1, 50.0)


def test_results_of_two_phases(straight):
    found = results.read(straight.workdir)
    assert found == straight.results
    assert [phase.name for phase in found.phases] == ["first", "second"]
    assert [phase.steps for phase in found.phases] == [3 * STEPS, 4 * STEPS]
    for phase, expected in zip(found.phases, (2 * STEPS, 5 * STEPS), strict=True):
        assert phase.best.step == expected
        assert checkpoint.find_step(straight.workdir, str(expected)) == expected
        assert phase.seconds > 0
        assert phase.images_per_second > 0
    assert checkpoint.find_step(straight.workdir, "best") == 5 * STEPS
    assert checkpoint.find_step(straight.workdir, "last") == 7 * STEPS
    assert found.complete is True
    assert found.num_classes == 3
    assert found.pretrained is None
    assert found.config["phases"][1]["reinit"] == "last 1"
    test = found.test
    assert (test.metrics.images, test.metrics.unreadable) == (TEST_IMAGES, 0)
    assert (test.checkpoint, test.split, test.views) == (5 * STEPS, "test", "raw")
    assert found.params == sum(leaf.size for leaf in jax.tree.leaves(straight.ends[1].params))


def test_the_test_split_is_looked_at_once_and_last(straight):
    assert straight.evaluated == [6] * 7 + [TEST_IMAGES]
    assert straight.traced == 1  # both phases and the test share one program


def test_each_epoch_of_each_phase_has_its_own_order(straight, slow):
    epochs = []
    for each in (straight, slow):
        for seen in each.batches:
            for first in range(0, len(seen), STEPS):
                epochs.append(tuple(np.concatenate(seen[first : first + STEPS]).tolist()))
    assert len(epochs) == 7 + 6
    assert {tuple(sorted(epoch)) for epoch in epochs} == {tuple(range(18))}
    assert len(set(epochs)) == len(epochs)


def test_stopped_runs_continue_to_the_same_bits(straight, images, tmp_path):
    """Stopped between the phases, just after re-initialisation, and an epoch before the early
    stop: nothing of what these rest on may be lost."""
    workdir = tmp_path / "run"
    moments = (3 * STEPS, 3 * STEPS + 1, 6 * STEPS + 2)
    with scripted(FIRST + SECOND):
        stopped(two_phases(images), workdir, *moments)
        found = train.run(two_phases(images), workdir)
    assert fingerprint(workdir) == fingerprint(straight.workdir)
    assert not differing(stored(workdir, 5 * STEPS), stored(straight.workdir, 5 * STEPS))
    assert commands.logged(workdir) == commands.logged(straight.workdir)
    timed = ("seconds", "images_per_second")
    for mine, theirs in zip(found.phases, straight.results.phases, strict=True):
        for phase in (mine, theirs):
            assert all(getattr(phase, name) > 0 for name in timed)
        times = {name: getattr(theirs, name) for name in timed}
        assert dataclasses.replace(mine, **times) == theirs
    assert found.test == straight.results.test


def test_a_run_that_cannot_continue_is_refused_before_anything_is_written(run):  # noqa: F811
    def times():
        paths = (path for path in (run / "run").rglob("*") if path.name != directory.LOCK)
        return {path: path.stat().st_mtime_ns for path in paths}

    before = times()
    with pytest.raises(ValueError, match="step_9 contains a training state with another layout"):
        train.run(tiny_run.recipe(run / "data"), run / "run")
    assert times() == before
