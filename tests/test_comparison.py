"""Comparing runs: which are compared, their table, and labels that can be read in the picture."""

import itertools

import numpy as np
import pytest
from matplotlib.text import Text

from fgc_jax import files
from fgc_jax.cli import compare
from fgc_jax.runs import results
from fgc_jax.sweeps import comparison
from tests import made_up


def write_run(folder, *, val=50.0, test=40.0, complete=True, head="gap", gflops=2.0):
    folder.mkdir(parents=True)
    model = {"backbone": "resnet18", "backbone_b": "", "head": head}
    config = {"model": model, "phases": [{}, {}]}
    files.write_json(folder / "config.json", config)
    phases = [made_up.phase(seconds=10.0)]
    if complete:
        phases.append(made_up.phase(seconds=20.4, best_val_top1=val, images_per_second=9.0))
    tested = made_up.evaluation(top1=test, mean_class_accuracy=test - 1)
    facts = {"config": config, "forward_gflops": gflops, "complete": complete, "test": tested}
    results.write(folder, made_up.results(*phases, **facts))
    return folder


def test_finished_runs_by_validation_and_why_others_are_not_there(tmp_path, capsys):
    runs = tmp_path / "runs"
    write_run(runs / "a" / "x", val=50, test=99)
    write_run(runs / "b" / "x", val=60, test=10, head="bilinear")
    write_run(runs / "half", complete=False)
    (write_run(runs / "begun") / "results.json").unlink()
    write_run(runs / "sweep").joinpath("sweep.json").write_text("{}")
    (runs / "thesis").mkdir()
    (write_run(runs / "torn") / "results.json").write_text("{")
    (write_run(runs / "old") / "results.json").write_text('{"complete": true}')
    directories = sorted(map(str, runs.glob("*"))) + [f"{runs}/a/x", f"{runs}/b/x", f"{runs}/gone"]
    assert compare.main([*directories[2:], f"--output={tmp_path / 'out' / 'a.png'}"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[2].split() == (
        "1 b/x resnet18 bilinear no 11.20 2.00 60.00 10.00 9.00 3.50 9 30".split()
    )
    assert lines[3].split()[:4] == ["2", "a/x", "resnet18", "gap"]
    for said in (
        "half: unfinished, 1 of 2 phases; its command continues it",
        "begun: unfinished, 0 of 2 phases",
        "sweep: a sweep; its runs are",
        "thesis: not a run: it has no config.json",
        "gone: no such directory",
        "torn: its files are damaged or from another version",
        "old: its files are damaged or from another version",
    ):
        assert said in out, said
    assert (tmp_path / "out" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_compare_is_an_error(tmp_path, capsys):
    assert compare.main([str(tmp_path)]) == 1
    assert "no finished run to compare" in capsys.readouterr().err


def rows(number, seed, **changes):
    """Runs whose points crowd at a few costs."""
    rng = np.random.default_rng(seed)
    return [
        {
            "run": f"backbone_{index},head=bilinear,seed={index % 3}",
            "head": "ab"[index % 2],
            "params": 1e6,
            "seconds": 1.0 + index,
            "forward_gflops": float(rng.choice([0.8, 4, 8, 30, 31])),
            "val_top1": 80.0,
            "test_top1": 70 + float(rng.uniform(0, 20)),
            **changes,
        }
        for index in range(number)
    ]


@pytest.mark.parametrize("cost", comparison.COSTS)
def test_labels_cover_neither_each_other_nor_points(cost):
    figure = comparison.figure(rows(14, 0), cost)
    (axes,) = figure.axes
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the lines
    assert len(boxes) == 14
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    if cost == "params":
        return  # the points lie over each other there
    places = np.concatenate([c.get_offsets() for c in axes.collections])
    places = axes.transData.transform(places)
    assert len(places) == 14 and not any(box.count_contains(places) for box in boxes)
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_many_runs_are_labelled_by_their_numbers_in_the_table():
    axes = comparison.figure(rows(30, 1), "gflops").axes[0]
    assert [text.get_text() for text in axes.texts] == [f"#{n}" for n in range(1, 31)]
    assert axes.get_xscale() == "log" and "test" in axes.get_ylabel()


def test_what_was_not_tested_is_drawn_by_validation():
    untested = rows(2, 0, test_top1=None)
    assert "validation" in comparison.figure(untested, "params").axes[0].get_ylabel()
    with pytest.raises(ValueError, match="backbone_0"):
        comparison.figure(rows(2, 0, test_top1=None, val_top1=None), "params")


def test_measures_of_a_final_run_without_validation(tmp_path):
    measured = comparison.measures(results.read(write_run(tmp_path / "a", val=None)))
    assert (measured["val_top1"], measured["test_top1"]) == (None, 40.0)
    assert comparison.load([tmp_path / "a"])[0][0]["val_top1"] is None
