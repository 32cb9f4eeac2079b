"""The learning rate finder: its sweep, what it suggests, and that it changes nothing."""

import csv
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from fgc_jax import trees
from fgc_jax.cli import find_lr
from fgc_jax.plots import lr_finder as plots
from fgc_jax.runs import checkpoint
from fgc_jax.runs.progress import Progress
from fgc_jax.training import classification, lr_finder, phases, plans, rules, step, trainable
from tests import commands, data_files, made_up, tiny_run

STEPS = 40
RANGE = {"lowest": 1e-4, "highest": 10.0, "steps": STEPS}
KEEP = math.exp(-1 / (lr_finder.MEMORY * STEPS))
LAYER = "backbone/layer1/1"


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    root = data_files.write_folder(tmp_path_factory.mktemp("images"), splits={"train": 12})
    recipe = tiny_run.recipe(root)
    recipe.model.feature_map = "stage1"
    size = {"batch_size": 6, "resize": 36, "crop": 32}
    recipe.phases = (
        common.phase("frozen", train="head", **size),
        common.phase(
            "open",
            reinit="last 1",
            groups=(("head/.*", "head", 1.0), (".*", "backbone", 0.25)),
            schedule="one_cycle",
            lr_batch=3,
            accumulate=2,
            sam_rho=0.05,
            average="ema 0.9",
            epochs=3,
            **size,
        ),
    )
    return plans.prepare(rules.parse(recipe))


@pytest.fixture(scope="module")
def initial(plan):
    return plans.initial_variables(plan)[:2]


@pytest.fixture
def scripted(monkeypatch):
    """Replaces the compiled train step by one that returns the losses of `scripted.losses`; keeps
    what it was to be made with."""

    class Scripted:
        losses = (1.0,)

    def make_train_step(setup, *_):
        Scripted.setup, script, Scripted.scales = setup, iter(Scripted.losses), []

        def train_step(state, batch, constants, scale):
            Scripted.scales.append(float(scale))
            return state, {"loss": next(script)}

        return train_step

    monkeypatch.setattr(step, "make_train_step", make_train_step)
    return Scripted


def sweep(plan, index, variables, stats, **changes):
    method, task = phases.method_of(plan), classification.task(plan)
    rates = lr_finder.growing(**RANGE | changes)
    return lr_finder.sweep(plan, index, method, task, (variables, stats), rates)


def valley(rates, fall=0.01, bottom=0.1):
    """A loss of 3 that falls fastest at the rate `fall`, and grows without end from `bottom` on."""
    place = np.log10(rates)
    return (
        3
        - 2 / (1 + np.exp(-6 * (place - np.log10(fall))))
        + np.exp(8 * (place - np.log10(bottom) - 0.2))
    )


def test_exponential_mean_forgets_its_start_at_0():
    np.testing.assert_allclose(lr_finder.exponential_mean([2.0] * 5, 0.98), 2.0)
    weights = 0.9 ** np.arange(3)[::-1]
    expected = (weights * [3.0, 1.0, 2.0]).sum() / weights.sum()
    np.testing.assert_allclose(lr_finder.exponential_mean([3.0, 1.0, 2.0], 0.9)[-1], expected)


def test_smoothing_lags_neither_way():
    losses = np.repeat([2.0, 1.9], STEPS // 2)

    def half_way(values):
        return np.interp(-1.95, -values, np.arange(STEPS))

    assert half_way(lr_finder.smooth(losses, KEEP)) == pytest.approx(STEPS / 2 - 0.5, abs=0.3)
    assert half_way(lr_finder.exponential_mean(losses, KEEP)) > STEPS / 2


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_suggestions_on_a_known_valley(noise):
    rates = RANGE["lowest"] * 1e5 ** np.linspace(0, 1, STEPS)
    losses = valley(rates) + noise * np.random.default_rng(0).normal(size=STEPS)
    curve = lr_finder.Curve("p", rates, losses, lr_finder.smooth(losses, KEEP), "")
    found = lr_finder.suggestions(curve)
    assert list(found) == ["minimum", "steepest", "minimum / 10"]
    assert 0.01 / 1.6 < found["steepest"] < 0.01 * 1.6
    best = rates[np.argmin(valley(rates))]
    assert best / 2 < found["minimum"] < best * 1.5
    assert found["minimum / 10"] == found["minimum"] / 10


def test_no_suggestion_where_the_loss_only_grows():
    losses = np.linspace(2, 3, STEPS)
    curve = lr_finder.Curve("p", np.geomspace(1e-4, 1, STEPS), losses, losses, "")
    assert lr_finder.suggestions(curve) == {}
    assert plots.figure(curve, {}, "p").axes


def test_a_loss_that_still_falls_at_the_end_says_so(plan, initial, scripted):
    scripted.losses = np.geomspace(2, 1, STEPS).tolist()
    curve = sweep(plan, 0, *initial)
    assert curve.end == "all steps are done, but the loss still falls: raise the highest rate"


@pytest.mark.parametrize("index", [0, 1])
def test_the_step_is_the_phases_own(plan, initial, scripted, index):
    scripted.losses = [1.0] * STEPS
    curve = sweep(plan, index, *initial)
    assert len(curve.losses) == STEPS
    assert curve.end == "all steps are done"
    np.testing.assert_allclose(curve.rates, np.geomspace(1e-4, 10, STEPS))
    phase, made = plan.settings.phases[index], scripted.setup
    assert (made.phase.accumulate, made.phase.sam_rho) == (phase.accumulate, phase.sam_rho)
    assert not made.phase.average  # nobody evaluates it
    labels = plan.labels(phase)
    assert made.labels == labels
    # The rates are those of `lr`, which phase 1 states for half its batch size.
    rates = [float(made.rate(jnp.int32(done))) * scripted.scales[done] for done in range(STEPS)]
    np.testing.assert_allclose(rates, curve.rates * (1, 2)[index], rtol=1e-5)
    trained, _ = trees.select(initial[0], trainable.trained_paths(labels))
    ones = jax.tree.map(jnp.ones_like, trained)
    optimizer = made.optimizer
    updates, _ = optimizer.update(ones, optimizer.init(trained), trained)
    for path, update in trees.flatten(updates).items():
        np.testing.assert_allclose(update, -labels[path].factor)


def test_a_sweep_ends_when_the_loss_explodes(plan, initial, scripted):
    scripted.losses = [2.0] * 10 + [1.0] * 10 + [1e3] * 20
    curve = sweep(plan, 0, *initial)
    assert len(curve.losses) == 21
    assert curve.end.startswith("the loss was 4 times its best at ")
    assert curve.smoothed.max() <= 2.0 * lr_finder.CAP  # nothing of 1000 flows back


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sweep_ends_before_a_loss_that_is_not_finite(plan, initial, scripted, tmp_path, bad):
    scripted.losses = [2.0] * 10 + list(np.linspace(2, 1, 8)) + [bad] * 22
    curve = sweep(plan, 0, *initial)
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed) == 18
    assert np.isfinite(curve.smoothed).all()
    assert f"the loss was {bad} at {curve.rates[-1] * 10 ** (5 / 39):.2g}" == curve.end
    assert lr_finder.suggestions(curve)
    png, table = lr_finder.write(curve, tmp_path / "new" / "folder", "a: title")
    assert png.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == curve.losses.tolist()
    assert float(rows[3]["learning_rate"]) == curve.rates[3]
    scripted.losses = [bad]
    with pytest.raises(ValueError, match="phase frozen: the loss is not finite before the first"):
        sweep(plan, 0, *initial)


def test_a_real_sweep_learns_diverges_and_changes_no_weights(plan, initial):
    before = trees.fingerprint(initial)
    curve = sweep(plan, 1, *initial)
    assert trees.fingerprint(initial) == before
    assert curve.losses.min() < 0.5 * curve.losses[0]
    assert "all steps" not in curve.end
    assert lr_finder.suggestions(curve)
    assert sweep(plan, 1, *initial).losses.tolist() == curve.losses.tolist()


def saved_run(plan, directory, initial, phase, history, best):
    directory.mkdir()
    variables, stats = initial
    with checkpoint.opened(directory) as manager:
        for number in (4, 6):
            checkpoint.save(
                manager,
                number,
                {
                    "params": tiny_run.shaken(variables, number),
                    "stats": stats,
                    "method": {"steps": np.int32(number)},
                },
                Progress(phase=phase, best=best, history=history),
                score=1 / number,
            )
    return directory


def test_where_a_phase_starts(plan, initial, tmp_path):
    variables, stats = initial
    method = phases.method_of(plan)
    same, _, unchanged, source = lr_finder.start(plan, 0, method, None)
    assert unchanged is method
    assert trees.fingerprint(same) == trees.fingerprint(variables)
    assert source == "the initial weights"
    finished = [made_up.phase(steps=6)]
    run = saved_run(plan, tmp_path / "run", initial, 0, finished, made_up.best())
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    found, _, begun, source = lr_finder.start(plan, 1, method, run)
    assert begun.state == {"steps": 4}
    assert source == f"step 4 of {run}"
    expected = tiny_run.shaken(variables, 4)
    # Phase 1 draws its last layer anew, as it does in training.
    redrawn = plans.reinitialised(plan, 1, expected, stats)[0]
    assert trees.fingerprint(found) == trees.fingerprint(redrawn)
    assert trees.fingerprint(found) != trees.fingerprint(expected)
    unfinished = saved_run(plan, tmp_path / "half", initial, 0, [], made_up.best())
    assert lr_finder.start(plan, 1, method, unfinished)[-1] == f"step 4 of {unfinished}"
    levels = (
        plan.settings.phases[0],
        dataclasses.replace(plan.settings.phases[1], start_from="last"),
    )
    from_last = dataclasses.replace(
        plan, settings=dataclasses.replace(plan.settings, phases=levels)
    )
    for folder in (run, unfinished):
        assert lr_finder.start(from_last, 1, method, folder)[-1] == f"step 6 of {folder}"
    early = saved_run(plan, tmp_path / "early", initial, 0, [], None)
    with pytest.raises(ValueError, match="'open' starts from the phase before .* not trained yet"):
        lr_finder.start(plan, 1, method, early)
    assert lr_finder.start(from_last, 1, method, early)[-1] == f"step 6 of {early}"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lowest": 0.0}, "lowest=0 and highest=10: 0 < lowest < highest"),
        ({"lowest": 20.0}, "lowest=20 and highest=10"),
        ({"highest": math.inf}, "0 < lowest < highest"),
        ({"steps": 9}, "steps=9 must be at least 10"),
    ],
)
def test_ranges_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        lr_finder.growing(**RANGE | changes)


def test_the_command(tmp_path, capsys):
    arguments = (*commands.SMALL, f"--output={tmp_path / 'lr'}", "--steps=10")
    assert find_lr.main([*arguments, "--phase=head"]) == 0
    out, err = capsys.readouterr()
    assert sorted(path.name for path in (tmp_path / "lr").iterdir()) == [
        "lr_head.csv",
        "lr_head.png",
    ]
    assert "phase" in out and "sweeping head" in err
    assert find_lr.main([*arguments, "--phase=tail"]) == 1
    assert capsys.readouterr().err == "error: --phase='tail' is unknown; allowed: 'head', 'all'\n"
