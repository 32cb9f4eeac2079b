"""results.json: what is read back, files of before, and the numbers for people."""

import dataclasses
import json

import pytest

from fgc_jax.runs import progress, results
from fgc_jax.runs.results import Best, LrByHand
from tests import made_up

# As the code wrote them when their contents were dictionaries.
RESULTS = """
{"config": {"final": false, "phases": [{"start_from": "best"}, {"start_from": "best"}]},
"dataset": "folder", "num_classes": 3, "pretrained": null, "params": 11178051,
"forward_gflops": 0.226759936, "phases": [{"name": "small", "epochs": 2, "steps": 6,
"best_val_top1": 16.666666666666664, "best": {"step": 3, "epoch": 1, "score":
-1.1080879370371501, "val": {"images": 6, "unreadable": 0, "loss": 1.1080879370371501, "top1":
16.666666666666664, "top5": 100.0, "mean_class_accuracy": 16.666666666666668, "ece":
17.394773662090305}}, "images_per_second": 90.38094642512388, "seconds": 4.886039340000025,
"lr_by_hand": [{"epoch": 1, "lr": 0.01}]}, {"name": "large", "epochs": 2, "steps": 6,
"best_val_top1": 33.33333333333333, "best": {"step": 12, "epoch": 2, "score":
-1.0841053326924641, "val": {"images": 6, "unreadable": 0, "loss": 1.0841053326924641, "top1":
33.33333333333333, "top5": 100.0, "mean_class_accuracy": 33.333333333333336, "ece":
2.285589277744293}}, "images_per_second": 23.201446040948717, "seconds": 5.60865977200001,
"lr_by_hand": []}], "bad_images": [], "complete": true, "logits": null, "test": {"checkpoint":
12, "split": "test", "views": "raw", "images": 15, "unreadable": 0, "loss": 1.0822570045789084,
"top1": 33.33333333333333, "top5": 100.0, "mean_class_accuracy": 33.333333333333336, "ece":
2.260073224703474}}
"""
PHASES = json.loads(RESULTS)["phases"]
PROGRESS = {"best": PHASES[1]["best"], "history": PHASES} | json.loads("""
{"phase": 1, "phase_start": 6, "epoch": 2, "stale": 0, "plateau_scale": 1.0, "plateau_stale": 0,
"lr_override": null, "lr_by_hand": [], "epochs_of_phases": [2, 2], "averaged": false,
"finished": true, "seconds": 5.6, "train_seconds": 0.5, "train_images": 12, "bad_images": []}
""")


def test_results_of_before_are_read_and_written_as_they_were(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(RESULTS)
    found = results.finished(tmp_path)
    first, second = found.phases
    assert first.lr_by_hand == (LrByHand(1, 0.01),) and second.lr_by_hand == ()
    assert (second.best.step, second.best.val["top1"]) == (12, second.best_val_top1)
    assert (found.test.checkpoint, found.test.metrics.images) == (12, 15)
    results.write(tmp_path, found)
    assert path.read_text() == json.dumps(json.loads(RESULTS), indent=2) + "\n"


def test_results_that_lack_the_newer_keys_are_read(tmp_path):
    older = json.loads(RESULTS)
    del older["logits"]
    for phase in older["phases"]:
        del phase["lr_by_hand"]
    (tmp_path / "results.json").write_text(json.dumps(older))
    found = results.finished(tmp_path)
    assert found.logits is None and found.phases[0].lr_by_hand == ()
    assert results.chosen_logits(tmp_path) == "plain"
    assert results.chosen_epochs(tmp_path, older["config"]) == [1, 2]


def test_the_progress_of_before_is_read():
    found = progress.parse(PROGRESS)
    assert (found.phase, found.finished, found.lr_override) == (1, True, None)
    assert found.best == found.history[1].best
    assert json.loads(json.dumps(dataclasses.asdict(found))) == PROGRESS
    newer = ("lr_override", "lr_by_hand", "averaged")
    older = {key: value for key, value in PROGRESS.items() if key not in newer}
    assert progress.parse(older).history == found.history
    assert progress.parse({"phase": 0, "best": None, "history": []}) == progress.Progress()


def test_what_is_written_is_read(tmp_path):
    assert results.read(tmp_path) is results.finished(tmp_path) is None
    untested = Best(6, 2, None, None)
    written = made_up.results(
        made_up.phase(best=untested, best_val_top1=None, lr_by_hand=(LrByHand(2, None),)),
        made_up.phase(),
        bad_images=("a.jpg",),
        logits=results.Logits("effect", {"plain": 40.0, "effect": 50.0}),
        test=made_up.evaluation(),
    )
    results.write(tmp_path, written)
    assert results.read(tmp_path) == results.finished(tmp_path) == written
    assert results.chosen_logits(tmp_path) == "effect"
    unfinished = dataclasses.replace(written, complete=False, test=None)
    results.write(tmp_path, unfinished)
    assert results.read(tmp_path) == unfinished and results.finished(tmp_path) is None


def test_numbers_that_are_not_finite_are_null(tmp_path):
    results.write(tmp_path, made_up.results(test=made_up.evaluation(ece=float("nan"))))
    stored = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert stored["test"]["ece"] is None
    assert "ECE nan %" in results.table(results.read(tmp_path))


@pytest.mark.parametrize("content", ['{"complete": true}', "[]", '{"phases": [{"name": "a"}]}'])
def test_other_contents_are_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results.json is damaged or from another version"):
        results.read(tmp_path)


def test_the_table_states_what_stands_behind_the_number():
    changes = (LrByHand(2, 0.01), LrByHand(3, None))
    metrics = {"top1": 81.234, "images": 1234}
    found = made_up.results(
        made_up.phase(lr_by_hand=changes),
        test=made_up.evaluation(**metrics),
        pretrained="hub:x",
        bad_images=("a.jpg",),
    )
    text = results.table(found)
    for part in (
        "head",
        "50.00 %",
        "by hand, phase head: lr 0.01 from epoch 2 on",
        "the recipe's lr again from epoch 3 on",
        "top-1 81.23 %",
        "1,234 images",
        "views raw",
        "step 12",
        "hub:x",
    ):
        assert part in text
    assert "1 unreadable" in text
    assert "no test split, so no test" in results.table(dataclasses.replace(found, test=None))
