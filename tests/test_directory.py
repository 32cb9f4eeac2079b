"""The run directory."""

import json

import pytest

from fgc_jax import files
from fgc_jax.runs import directory

CONFIG = {"seed": 0, "data": {"root": "a", "threads": 2}, "phases": [{"lr": 0.1}, {"lr": 0.2}]}


def test_new_empty_and_own_directories_are_accepted(tmp_path):
    directory.check(tmp_path / "new", CONFIG)
    assert not (tmp_path / "new").exists()
    directory.check(tmp_path, CONFIG)
    files.write_json(tmp_path / "config.json", CONFIG)
    moved = {**CONFIG, "data": {"root": "b", "threads": 8}}
    directory.check(tmp_path, moved)


def test_what_a_run_killed_in_its_first_moments_left_is_no_run(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / "config.json.1234.tmp").write_text("{")
    directory.check(tmp_path, CONFIG)


def test_another_config_is_refused_and_the_difference_named(tmp_path):
    files.write_json(tmp_path / "config.json", CONFIG)
    other = {**CONFIG, "phases": [{"lr": 0.1}, {"lr": 0.3}]}
    with pytest.raises(ValueError, match=r"another config.*\n  phases.1.lr: 0.2 there, 0.3 here"):
        directory.check(tmp_path, other)
    with pytest.raises(ValueError, match=r"phases.1.lr: 0.2 there, '\(absent\)' here"):
        directory.check(tmp_path, {**CONFIG, "phases": [{"lr": 0.1}]})


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"not empty and holds no config.json"):
        directory.check(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="not a directory"):
        directory.check(tmp_path / "thesis.tex", CONFIG)


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not valid JSON"):
        directory.check(tmp_path, CONFIG)


def test_changed_data_are_refused(tmp_path):
    facts = {"class_names": ["a", "b"], "splits": {"train": {"images": 2, "sha256": "x"}}}
    directory.check_dataset(tmp_path, facts)
    files.write_json(tmp_path / "dataset.json", {**facts, "name": "folder", "notes": "here"})
    directory.check_dataset(tmp_path, {**facts, "notes": "moved"})
    with pytest.raises(ValueError, match=r"data have changed.*\(splits differ"):
        directory.check_dataset(tmp_path, {**facts, "splits": {"train": {"images": 3}}})


def test_only_one_process_trains_in_a_directory(tmp_path):
    with directory.locked(tmp_path / "run"):
        with (
            pytest.raises(ValueError, match="another process is training"),
            directory.locked(tmp_path / "run"),
        ):
            pass
    with directory.locked(tmp_path / "run"):
        pass


def test_results_table_states_what_stands_behind_the_number():
    test = {
        "top1": 81.234,
        "top5": 99.0,
        "mean_class_accuracy": 80.0,
        "ece": 3.2,
        "images": 1234,
        "views": "raw",
        "checkpoint": 40,
    }
    phase = {
        "name": "head",
        "epochs": 3,
        "best_val_top1": 50.0,
        "images_per_second": 7,
        "seconds": 9,
        "lr_by_hand": [{"epoch": 2, "lr": 0.01}, {"epoch": 3, "lr": None}],
    }
    results = {"phases": [phase], "test": test, "pretrained": "hub:x", "bad_images": ["a.jpg"]}
    text = directory.results_table(json.loads(json.dumps(results)))
    for part in (
        "head",
        "50.00 %",
        "by hand, phase head: lr 0.01 from epoch 2 on",
        "the recipe's lr again from epoch 3 on",
        "top-1 81.23 %",
        "1,234 images",
        "views raw",
        "step 40",
        "hub:x",
    ):
        assert part in text
    assert "1 unreadable" in text
    assert "nothing was tested" in directory.results_table({**results, "test": None})
