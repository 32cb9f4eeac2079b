"""What the loop does at the end of an epoch: averages, learning rate, override.json, final runs."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest

from fgc_jax import config, train, trees
from fgc_jax.runs import checkpoint, override, results, stop
from fgc_jax.runs.results import LrByHand
from fgc_jax.training import averaging, plans, rules
from tests import commands, made_up
from tests.watched import (
    STEPS,
    TEST_IMAGES,
    make_recipe,
    of_state,
    scripted,
    stored,
    watched_run,
)

LR = 0.02
# (loss, top-1) of the weights and of their average, epoch by epoch.
ONE = [(loss, 1.0) for loss in (0.5, 1.0, 0.4, 1.1, 0.6, 0.9, 0.3, 1.2)]
TWO = [(1.0, 10.0), (1.0, 20.0), (1.0, 5.0), (1.0, 30.0)]  # no mean before the third epoch
RATES = [LR] * 6 + [0.5 * 0.01] * 3 + [0.5 * LR] * 3 + [LR] * 9  # by hand in the third epoch


def two_phases(root):
    return make_recipe(
        root,
        {
            "name": "one",
            "epochs": 4,
            "lr": LR,
            "schedule": "plateau",
            "schedule_options": {"factor": 0.5, "patience": 0},
            "accumulate": 2,
            "sam_rho": 0.05,
            "average": "ema 0.9",
            "monitor": "val_average_loss",
        },
        {
            "name": "two",
            "epochs": 3,
            "lr": LR,
            "average": "swa 2",
            "monitor": "val_average_top1",
        },
    )


def by_hand(workdir, stops=()):
    """A stand-in for stop.requests: stops where asked, and plays the user who edits the file."""

    @contextlib.contextmanager
    def requests(manager):
        def asked(number):
            if number == 4:
                (workdir / override.FILE).write_text('{"phase": "one", "lr": 0.01}')
            if number == 8:
                (workdir / override.FILE).unlink()
            return number in stops

        yield asked

    return requests


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight") / "run"
    kept, real = [], averaging.mean_of_weights

    def mean_of_weights(mean, newest, count):
        found = real(mean, newest, count)
        kept.append((float(count), *(jax.tree.map(np.array, tree) for tree in (newest, found))))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stop, "requests", by_hand(workdir))
        patch.setattr(averaging, "mean_of_weights", mean_of_weights)
        return watched_run(two_phases(images), workdir, ONE + TWO), kept


def test_learning_rates_follow_plateaus_and_hands(straight):
    run, _ = straight
    rows = [row for row in commands.logged(run.workdir) if "learning_rate" in row]
    np.testing.assert_allclose([row["learning_rate"] for row in rows], RATES, rtol=1e-6)
    changes = [phase.lr_by_hand for phase in run.results.phases]
    assert changes == [(LrByHand(3, 0.01), LrByHand(4, None)), ()]


def test_both_weights_are_validated_and_the_monitored_ones_chosen(straight):
    run, _ = straight
    assert run.evaluated == [6] * 12 + [TEST_IMAGES]
    rows = [row for row in commands.logged(run.workdir) if "val_loss" in row]
    assert [row["val_loss"] for row in rows[:4]] == [loss for loss, _ in ONE[::2]]
    rows = [row for row in commands.logged(run.workdir) if "val_average_top1" in row]
    assert [row["val_average_top1"] for row in rows[4:]] == [10.0, 20.0, 30.0]
    one, two = run.results.phases
    assert (one.best.epoch, one.best.score) == (3, -0.9)
    assert (two.best.epoch, two.best_val_top1) == (3, 30.0)


def test_the_next_phase_begins_with_the_averaged_weights(straight):
    run, _ = straight
    begun, best = of_state(run.starts[1]), stored(run.workdir, 3 * STEPS)
    assert all((begun[path] == best[path]).all() for path in best)


def test_swa_is_what_is_tested_with_statistics_of_its_own(straight):
    run, kept = straight
    assert [count for count, _, _ in kept] == [1, 1, 2]
    (_, second, _), (_, third, _) = kept[1:]
    tested = stored(run.workdir, 7 * STEPS)
    last = of_state(run.ends[1])
    for path, leaf in trees.flatten(second).items():
        mean = (leaf + trees.flatten(third)[path]) / 2
        np.testing.assert_allclose(tested[path], mean, rtol=1e-5, atol=1e-7)
    statistics = [path for path in tested if path.endswith(("/mean", "/var"))]
    assert statistics
    assert all((tested[path] != last[path]).any() for path in statistics)
    assert run.results.test.checkpoint == 7 * STEPS


def test_stopped_runs_continue_to_the_same_bits(straight, images, tmp_path, monkeypatch):
    run, _ = straight
    workdir = tmp_path / "run"
    moments = (2, 7, 9, 4 * STEPS + 1, 6 * STEPS + 1)
    with scripted(ONE + TWO):
        for moment in moments:
            monkeypatch.setattr(stop, "requests", by_hand(workdir, (moment,)))
            with pytest.raises(stop.Stopped):
                train.run(two_phases(images), workdir)
        monkeypatch.setattr(stop, "requests", by_hand(workdir))
        train.run(two_phases(images), workdir)
    for number in (3 * STEPS, 7 * STEPS):
        expected, found = (stored(each, number) for each in (run.workdir, workdir))
        assert trees.fingerprint(found) == trees.fingerprint(expected)
    assert commands.logged(workdir) == commands.logged(run.workdir)


def test_a_final_run_trains_the_chosen_epochs_on_all_images(straight, images, tmp_path):
    run, _ = straight
    recipe = two_phases(images)
    recipe.final, recipe.search = True, str(run.workdir)
    with pytest.raises(ValueError, match="'plateau' needs validation"):
        train.run(recipe, tmp_path / "final")
    search = watched_run(constant(images), tmp_path / "search", [(1, 1), (0.9, 1), (1, 1), (1, 1)])
    assert [phase.best.epoch for phase in search.results.phases] == [2, 1]
    recipe = constant(images)
    recipe.final, recipe.search = True, str(search.workdir)
    final = watched_run(recipe, tmp_path / "final", [])
    assert final.evaluated == [TEST_IMAGES]
    assert [phase.epochs for phase in final.results.phases] == [2, 1]
    assert {int(n) for batch in final.batches[0] for n in batch} == set(range(24))
    steps = len(final.batches[0]) + len(final.batches[1])
    assert steps == 3 * 4  # 24 images in batches of 6
    assert final.results.phases[0].best_val_top1 is None
    assert final.results.test.checkpoint == checkpoint.find_step(final.workdir, "best") == steps


def constant(root):
    return make_recipe(
        root, {"name": "one", "train": "head", "epochs": 2}, {"name": "two", "epochs": 2}
    )


def test_a_search_must_be_finished_and_of_the_same_config(straight, images, tmp_path):
    recipe = constant(images)
    recipe.search = str(tmp_path)
    with pytest.raises(ValueError, match="search has no effect without config.final=True"):
        train.run(recipe, tmp_path / "run")
    recipe.final = True
    with pytest.raises(ValueError, match="contains no finished run"):
        train.run(recipe, tmp_path / "run")
    recipe.search = str(straight[0].workdir)
    with pytest.raises(ValueError, match="a run with another config.*\n.*phases.0.accumulate"):
        train.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_final_data_hold_every_image_once(images):
    recipe = constant(images)
    parts = plans.load_data(rules.parse(recipe)).splits
    recipe.final = True
    found = plans.load_data(rules.parse(recipe))
    assert found.splits.keys() == {"train", "test"}
    together = found.splits["train"]
    assert sorted(together.names) == sorted([*parts["train"].names, *parts["val"].names])
    np.testing.assert_array_equal(together.read(20), parts["val"].read(2))
    assert together.labels[20] == parts["val"].labels[2]
    assert "6 images of val are also trained on" in found.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[1]", 'must be {"phase": NAME, "lr": NUMBER}'),
        ('{"phase": "one", "lr": 1, "momentum": 0}', "must be"),
        ('{"phase": "three", "lr": 1}', "unknown phase 'three'; the run has .'one', 'two'."),
        ('{"phase": "one", "lr": "1e-3"}', "lr='1e-3' must be a number"),
        ('{"phase": "one", "lr": -1}', "from 0 to 3e.38"),
        ('{"phase": "one", "lr": Infinity}', "from 0 to"),
        ('{"phase": "one", "lr": 1' + "0" * 400 + "}", "from 0 to"),
    ],
)
def test_a_wrong_override_names_what_is_wrong(text, message, tmp_path):
    phases = rules.parse(two_phases("none")).phases
    (tmp_path / override.FILE).write_text(text)
    with pytest.raises(ValueError, match=message):
        read(phases, phases[0], tmp_path)


def read(phases, phase, folder):
    """What the file says for a phase."""
    return override.read(folder, [each.name for each in phases], phase.name, phase.lr)


def test_an_override_is_for_its_phase_alone(tmp_path):
    phases = rules.parse(two_phases("none")).phases
    assert read(phases, phases[0], tmp_path) is None
    (tmp_path / override.FILE).write_text(json.dumps({"phase": "two", "lr": 0.5}))
    assert [read(phases, phase, tmp_path) for phase in phases] == [None, 0.5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"monitor": "val_average_loss", "average": ""}, "needs an average"),
        ({"average": "swa 3"}, "more epochs than epochs=2"),
        ({"average": "swa 2", "patience": 1}, "early stopping"),
        ({"average": "ema 1.5"}, "'ema DECAY'"),
        ({"average": "swa 1"}, "'swa N'"),
        ({"schedule": "plateau", "patience": 3}, "patience=3 stops the phase before"),
        ({"sam_rho": float("inf")}, "sam_rho=inf must be a number at least 0"),
        ({"accumulate": 4}, "batch_size=6 cannot be split into accumulate=4 equal parts"),
        ({"sam_rho": -0.1}, "sam_rho=-0.1 must be a number at least 0"),
    ],
)
def test_what_cannot_be_averaged_or_accumulated(changes, message):
    recipe = make_recipe("none", {"name": "one", "epochs": 2, **changes})
    with pytest.raises(ValueError, match=message):
        rules.parse(recipe)


def test_the_epochs_of_a_search_are_those_that_led_to_what_each_phase_gave(tmp_path):
    recipe = constant("none")
    recipe.phases[1].start_from = "last"
    resolved = config.resolved(recipe)
    phases = [made_up.phase(epochs=9, best=made_up.best(epoch=4))]
    phases.append(made_up.phase(epochs=8, best=made_up.best(epoch=3)))

    def chosen(config, *phases):
        results.write(tmp_path, made_up.results(*phases, config=config))
        return results.chosen_epochs(tmp_path, resolved)

    assert chosen(resolved, *phases) == [9, 3]
    by_hand = dataclasses.replace(phases[0], name="one", lr_by_hand=(LrByHand(3, 0.1),))
    with pytest.raises(ValueError, match="the learning rate of one was changed with"):
        chosen(resolved, by_hand, phases[1])
    with pytest.raises(ValueError, match="is itself a final run"):
        chosen({**resolved, "final": True}, *phases)
    # An empty value differs, too.
    with pytest.raises(ValueError, match="method_options.*absent"):
        chosen({**resolved, "method_options": {}}, *phases)
