"""Killed at any moment, a run continues to bit-identical parameters."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from fgc_jax import trees
from fgc_jax.cli import train
from fgc_jax.runs import checkpoint, results
from fgc_jax.runs.writer import Writer
from tests import commands

OPTIONS = (
    "--config.phases[0].epochs=2",
    "--config.phases[1].epochs=3",
    "--config.phases[0].schedule=one_cycle",  # whose momentum is in the optimiser's state
    "--config.phases[0].accumulate=2",
    "--config.phases[0].average=ema 0.9",
    "--config.phases[0].monitor=val_average_loss",
    "--config.phases[1].sam_rho=0.05",
    "--config.phases[1].average=swa 2",
    "--config.phases[1].monitor=val_average_top1",
    "--config.phases[1].schedule=plateau",
    "--config.phases[1].schedule_options={'patience': 0}",
    "--config.checkpoint_every=2",
)


def fingerprints(workdir):
    """sha256 of the whole last state, and of the best checkpoint's variables."""
    with checkpoint.opened(workdir) as manager:
        state = manager.restore(manager.latest_step()).state
    best = checkpoint.find_step(workdir, "best")
    return trees.fingerprint(state), trees.fingerprint(checkpoint.load_variables(workdir, best)[:2])


def wait_for(condition, process, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def last_step(workdir):
    """The newest step in metrics.jsonl; its last line may be half written."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    steps = [json.loads(line)["step"] for line in lines if line.endswith("}")]
    return max(steps, default=0)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight") / "run"
    assert train.main([*commands.SMALL, *OPTIONS, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture
def sigterm(monkeypatch):
    """Whatever trains in this process is asked to stop when it has logged its second step."""
    real = Writer.scalars

    def scalars(writer, step, values):
        real(writer, step, values)
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Writer, "scalars", scalars)


def test_stopped_in_one_phase_and_killed_in_the_next(straight, tmp_path, sigterm, capsys):
    workdir = tmp_path / "run"
    arguments = [*commands.SMALL, *OPTIONS, f"--workdir={workdir}"]
    arguments.append("--config.checkpoint_every=1000")
    assert train.main(arguments) == 143
    assert "the same command continues" in capsys.readouterr().err
    assert checkpoint.any_in(workdir)
    process = commands.start(*arguments)
    # The mean of weights holds those of the epoch before.
    wait_for(lambda: last_step(workdir) >= 26, process)
    process.kill()
    process.communicate()
    assert train.main(arguments) == 0
    assert fingerprints(workdir) == fingerprints(straight)
    assert commands.logged(workdir) == commands.logged(straight)


@pytest.mark.slow
def test_killed_in_both_phases_and_while_saving(straight, tmp_path):
    workdir = tmp_path / "run"
    command = (*commands.SMALL, *OPTIONS, f"--workdir={workdir}")

    def being_saved():
        return any((workdir / "checkpoints").glob("*orbax-checkpoint-tmp"))

    moments = [
        lambda: last_step(workdir) >= 3,  # phase 1 has 12 steps
        lambda: last_step(workdir) >= 7 and being_saved(),
        lambda: last_step(workdir) >= 15,
        lambda: last_step(workdir) >= 26,  # the mean holds weights of the epoch before
    ]
    for moment in moments:
        process = commands.start(*command)
        wait_for(moment, process)
        process.kill()
        process.communicate()
    out, _ = commands.run(*command)
    assert "Continuing from step" in out
    assert fingerprints(workdir) == fingerprints(straight)
    mine, theirs = (json.loads((d / "results.json").read_text()) for d in (workdir, straight))
    assert mine["test"] == theirs["test"]
    steps = [row["step"] for row in commands.logged(workdir) if "loss" in row]
    assert steps == list(range(1, 31))  # nothing twice, nothing missing
    assert commands.logged(workdir) == commands.logged(straight)


@pytest.mark.slow
def test_a_killed_sweep_continues(straight, tmp_path):
    """Killed with the run that it trains, as when the machine stops."""
    folder = tmp_path / "sweep"
    rates = "--grid=phases[1].lr=1e-3,2e-3"  # the recipe's, and another
    command = (*commands.SMALL, *OPTIONS, f"--workdir={folder}", rates)
    first, second = (folder / "runs" / f"phases1.lr={lr},seed=0" for lr in ("1e-3", "2e-3"))
    process = commands.start(*command, module="scripts/sweep.py")
    wait_for(lambda: last_step(first) >= 15, process)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    os.kill(int(child), signal.SIGKILL)
    process.communicate()
    assert not results.finished(first)
    out, _ = commands.run(*command, module="scripts/sweep.py")
    assert "2 runs, 0 of them finished before" in out
    assert "Continuing from step" in (folder / "logs" / f"{first.name}.log").read_text()
    assert fingerprints(first) == fingerprints(straight)
    assert fingerprints(second) != fingerprints(straight)
    out, _ = commands.run(*command, module="scripts/sweep.py")
    assert "2 runs, 2 of them finished before" in out


def test_a_finished_run_is_not_trained_again(straight, capsys):
    before = fingerprints(straight)
    assert train.main([*commands.SMALL, *OPTIONS, f"--workdir={straight}"]) == 0
    assert "finished already" in capsys.readouterr().out
    assert fingerprints(straight) == before
