"""Sweeps: what is run, how it is run, and the table; the runs themselves are stand-ins."""

import csv
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fgc_jax.cli import recipe
from fgc_jax.cli import sweep as command
from fgc_jax.runs import results, stop
from fgc_jax.sweeps import comparison, sweep
from tests import commands, made_up

RECIPE = "configs/quickstart.py:tiny"
READ = functools.partial(recipe.read, RECIPE)
# Trains as fgc_jax.main does, as far as a sweep can tell: a directory with a lock, a config, a step
# saved at SIGTERM, results whose accuracy is a function of the flags.
STAND_IN = """
import json, os, pathlib, signal, sys, time
from fgc_jax import files
from fgc_jax.runs import directory, results
from tests import made_up
flags = dict(word.split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(flags["--workdir"])
lr, seed = float(flags["--config.phases[1].lr"]), int(flags["--config.seed"])
with directory.locked(folder):
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    files.write_json(folder / "config.json", {"lr": lr, "seed": seed})
    path = folder / "steps.json"
    steps = json.loads(path.read_text()) if path.exists() else []
    print("visible", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    if lr == 9:
        sys.exit("error: this rate diverges")
    while len(steps) < int(os.environ.get("STEPS", "1")):
        steps.append(os.getpid())
        files.write_json(path, steps)
        time.sleep(0.02)
        if stopped:
            sys.exit(143)
    top1 = 50 + 100 * lr + 2 * seed
    test = made_up.evaluation(top1=90 - top1 / 2, mean_class_accuracy=top1)
    phases = made_up.phase(seconds=1.0), made_up.phase(seconds=2.0, best_val_top1=top1)
    results.write(folder, made_up.results(*phases, test=test))
"""


@pytest.fixture
def stand_in(tmp_path):
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return [str(path)]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(commands.ROOT))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def jobs(*rates, seeds=(0,)):
    return [
        sweep.Job(f"lr={rate},seed={seed}", f"lr={rate}", {"phases[1].lr": rate}, seed)
        for seed in seeds
        for rate in rates
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("phases[1].lr=1e-4,1e-3", ("phases[1].lr", ["1e-4", "1e-3"])),
        ("model.head=gap", ("model.head", ["gap"])),
        ("model.pretrained=", ("model.pretrained", [""])),
        ("data.augment=(),(('flip',{}),('erase',{}))", None),
        ("a='x,y',\"(\",z", ("a", ["'x,y'", '"("', "z"])),
    ],
)
def test_axis(text, expected):
    expected = expected or ("data.augment", ["()", "(('flip',{}),('erase',{}))"])
    assert sweep.parse_axis(text) == expected


def test_every_combination_of_seeds_and_values(tmp_path):
    base, found = sweep.plan(
        READ,
        ["--config.eval_batch_size=4"],
        (0, 1),
        ["phases[1].lr=1e-4,1e-3", "model.head=gap,bilinear", "model.head_options={}"],
        tmp_path / "sweep",
    )
    assert base["eval_batch_size"] == 4 and base["phases"][1]["lr"] == 1e-3
    assert len(found) == len({job.name for job in found}) == 8
    name = "phases1.lr=1e-4,model.head=gap,model.head_options=none"
    assert (found[0].name, found[0].combination) == (f"{name},seed=0", name)
    assert [job.seed for job in found] == [0] * 4 + [1] * 4
    assert found[7].changes == [
        "--config.phases[1].lr=1e-3",
        "--config.model.head=bilinear",
        "--config.model.head_options={}",
        "--config.seed=1",
    ]
    assert not (tmp_path / "sweep").exists()


def test_long_values_have_names_of_their_own(tmp_path):
    flips = 40 * "('flip',{}),"
    values = ",".join(f"({flips}('erase',{{'p':{p}}}))" for p in (0.1, 0.2))
    _, found = sweep.plan(READ, [], (0,), [f"data.augment={values}"], tmp_path / "sweep")
    names = [job.name for job in found]
    assert len(set(names)) == 2
    assert all(len(name) < 110 for name in names)
    assert len(sweep._cut(300 * "x", 200)) == 200


@pytest.mark.parametrize(
    ("grid", "changes", "message"),
    [
        (["phases[1].lr"], [], "KEY=VALUE,VALUE"),
        (["phases[2].lr=1"], [], "its tuple does not have"),
        (["phases[1].rate=1"], [], "no key 'rate'"),
        (["phases.lr=1"], [], "a number after the name of a tuple"),
        (["model.head_options={'dropout': 2}"], [], "dropout=2 must be"),
        (["model.head=gap,bilin"], [], "'bilin' is unknown"),
        (["phases[1].lr=1e-3,x"], [], "could not convert string to float: 'x'$"),
        (["phases[1].lr=1e-3,-1"], [], "must be a number at least 0"),
        (["phases[1].lr=1e-3,0.001"], [], "are equal"),
        (["data.root=a/b,a-b"], [], r"'a/b'.* and .*'a-b'.* the same directory data.root=a-b,"),
        (["phases[1].lr=1e-3,1e-3"], [], "twice"),
        (["phases[1].lr=1", "phases[1].lr=2"], [], r"given twice: phases\[1\].lr"),
        (["log_every=1,2"], ["--config.log_every=3"], "given twice: log_every"),
        ([], ["--config.seed=3"], "given twice: seed"),
        (["seed=1,2"], [], "--seeds"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(grid, changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sweep.plan(READ, changes, (0,), grid, tmp_path / "sweep")


def test_a_directory_of_another_sweep_is_refused(tmp_path):
    base, found = sweep.plan(READ, [], (0,), ["phases[1].lr=1e-4"], tmp_path)
    sweep.note(tmp_path, base, found)
    with pytest.raises(ValueError, match="log_every: 10 there, 7 here"):
        sweep.plan(READ, ["--config.log_every=7"], (0,), ["phases[1].lr=1e-4"], tmp_path)
    # More seeds and values join the runs that are there.
    _, more = sweep.plan(READ, [], (1,), ["phases[1].lr=1e-4,1e-3"], tmp_path)
    sweep.note(tmp_path, base, more)
    assert sweep.noted(tmp_path) == [*found, *more]


def test_runs_fail_alone_and_are_skipped_when_finished(stand_in, tmp_path):
    said = []
    folder, planned = tmp_path / "sweep", jobs("0.1", "9", "0.2")
    failed = sweep.run(planned, folder, stand_in, [{}], said.append)
    assert list(failed) == ["lr=9,seed=0"]
    assert "error: this rate diverges" in failed["lr=9,seed=0"]
    assert "lr=9,seed=0.log" in failed["lr=9,seed=0"]
    assert said[0] == "3 runs, 0 of them finished before"
    assert said[1].startswith("[1/3] lr=0.1,seed=0: val 60.00 %, test 60.00 % (3 s); 2 left, about")
    assert said[3].endswith("none left")
    before = (folder / "runs" / "lr=0.1,seed=0" / "steps.json").read_text()
    said.clear()
    assert sweep.run(planned, folder, stand_in, [{}], said.append) == failed
    assert said[0] == "3 runs, 2 of them finished before" and len(said) == 2
    assert (folder / "runs" / "lr=0.1,seed=0" / "steps.json").read_text() == before


def test_one_run_for_each_accelerator_at_a_time(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPS", "15")
    found = sweep.environments(2)
    assert found == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert not sweep.run(jobs("0.1", "0.2"), tmp_path, stand_in, found, lambda text: None)
    seen = [(tmp_path / "logs" / f"lr={lr},seed=0.log").read_text() for lr in ("0.1", "0.2")]
    assert sorted(seen) == ["visible 0\n", "visible 1\n"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert sweep.environments(1) == [{"CUDA_VISIBLE_DEVICES": "3"}]
    assert sweep.environments(0) == [{}]
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES=3,5"):
        sweep.environments(3)


def test_a_signal_is_passed_on_and_everything_continues(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPS", "100")
    path = tmp_path / "runs" / "lr=0.1,seed=0" / "steps.json"

    def interrupt():
        while not path.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    planned, handler = jobs("0.1", "0.2"), signal.getsignal(signal.SIGINT)
    with pytest.raises(stop.Stopped, match="not started: 1"):
        sweep.run(planned, tmp_path, stand_in, [{}], lambda text: None)
    first = json.loads(path.read_text())
    assert 0 < len(first) < 100 and len(set(first)) == 1
    monkeypatch.setenv("STEPS", str(len(first) + 1))
    assert not sweep.run(planned, tmp_path, stand_in, [{}], lambda text: None)
    assert json.loads(path.read_text())[:-1] == first  # went on where it had stopped
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_run_that_a_killed_sweep_left_behind_is_waited_for(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPS", "60")
    planned, said = jobs("0.1", "0.2"), []
    folder = tmp_path / "runs" / planned[0].name
    orphan = subprocess.Popen(
        [sys.executable, *stand_in, f"--workdir={folder}", *planned[0].changes]
    )
    while not (folder / "steps.json").exists():
        time.sleep(0.01)
    assert not sweep.run(planned, tmp_path, stand_in, [{}], said.append)
    orphan.wait()
    assert said[1].startswith("lr=0.1,seed=0: waiting, because another process still trains it")
    assert set(json.loads((folder / "steps.json").read_text())) == {orphan.pid}


def write_results(folder, top1, test, seconds):
    folder.mkdir(parents=True)
    phase = made_up.phase(seconds=seconds, best_val_top1=top1)
    results.write(folder, made_up.results(phase, test=made_up.evaluation(top1=test)))


def test_the_table_is_sorted_by_validation_with_deviations_over_seeds(tmp_path):
    planned = jobs("1", "2", "3", seeds=(0, 1))
    numbers = {"1": [(50, 99), (52, 98)], "2": [(60, 10), (61, 20)], "3": [(70, 5)]}
    for lr, rows in numbers.items():
        for seed, (top1, test) in enumerate(rows):
            write_results(tmp_path / "runs" / f"lr={lr},seed={seed}", top1, test, 10 + seed)
    rows = sweep.table(planned, tmp_path)
    assert [row["combination"] for row in rows] == ["lr=3", "lr=2", "lr=1"]
    assert rows[1]["test_top1"] == {"mean": 15, "std": pytest.approx(50**0.5)}
    assert rows[0]["val_top1"] == {"mean": 70, "std": None}
    comparison.write_seeds(rows, tmp_path)
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["phases[1].lr"] for line in lines] == ["3", "2", "1"]
    assert lines[2]["runs"] == "2" and float(lines[2]["test_top1_mean"]) == 98.5
    assert lines[0]["seconds_std"] == ""
    stored = json.loads((tmp_path / "results.json").read_text())
    assert [run["seed"] for run in stored["combinations"][2]["runs"]] == [0, 1]
    text = comparison.seeds_table(rows)
    assert "lr=2" in text and "15.00 ± 7.07" in text and "1/2" in text


def test_errors_are_one_line_and_leave_nothing_behind(
    tmp_path, tmp_path_factory, capsys, monkeypatch
):
    monkeypatch.syspath_prepend(commands.ROOT)
    target = [f"--workdir={tmp_path / 'new'}", f"--config={RECIPE}"]
    (damaged := tmp_path_factory.mktemp("damaged")).joinpath("sweep.json").write_text(
        '{"runs": [{}]}'
    )
    for flags, message in (
        ([*target, "--seeds=0,x"], "whole numbers"),
        ([*target, "--grid=model.head=x"], "'x' is unknown"),
        ([*target[:1], "--config=configs/gone.py"], "configs/gone.py"),
        ([f"--workdir={tmp_path}", "--table"], "is not a sweep"),
        ([f"--workdir={damaged}", "--table"], "sweep.json is damaged"),
    ):
        assert command.main(flags) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ") and message in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_sweep_of_real_runs(tmp_path, monkeypatch, capsys):
    """With this fgc_jax, though the current folder has something else of its name."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "fgc_jax.py").write_text("raise SystemExit('not fgc_jax')")
    monkeypatch.chdir(elsewhere)
    folder = tmp_path / "sweep"
    options = [*commands.SMALL, f"--workdir={folder}", "--grid=phases[1].patience=7"]
    assert command.main(options) == 0
    out = capsys.readouterr().out
    assert "[1/1] phases1.patience=7,seed=0: val" in out
    stored = json.loads((folder / "runs/phases1.patience=7,seed=0/config.json").read_text())
    assert [phase["patience"] for phase in stored["phases"]] == [0, 7]
    assert command.main([f"--workdir={folder}", "--table"]) == 0
    assert "1/1" in capsys.readouterr().out and (folder / "results.csv").exists()
