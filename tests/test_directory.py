"""The run directory."""

import pytest

from fgc_jax import files, mesh
from fgc_jax.evaluation import scores
from fgc_jax.runs import directory, results
from fgc_jax.runs.writer import Writer
from tests import made_up

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
    with pytest.raises(ValueError, match=r"not empty and has no config.json"):
        directory.check(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="not a directory"):
        directory.check(tmp_path / "thesis.tex", CONFIG)


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not valid JSON"):
        directory.check(tmp_path, CONFIG)
    files.write_json(tmp_path / "dataset.json", {"name": "folder", "notes": ""})
    with pytest.raises(ValueError, match=r"dataset.json is damaged: it has no class_names, splits"):
        directory.read_dataset(tmp_path)


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


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError):
        patch.setattr(files.Path, "unlink", lambda *_, **__: None)  # as if it was killed
        with files.whole(tmp_path / "results.json") as temporary:
            temporary.write_text("{")
            raise OSError
    (tmp_path / "notes.txt").touch()
    assert len(list(tmp_path.iterdir())) == 2
    directory.begin(tmp_path, CONFIG, {})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"config.json", "dataset.json", "notes.txt"}


def test_other_processes_of_a_run_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(mesh, "is_first_process", lambda: False)
    with directory.locked(tmp_path / "run"), directory.locked(tmp_path / "run"):
        directory.begin(tmp_path / "run", CONFIG, {})
        results.write(tmp_path / "run", made_up.results())
        writer = Writer(tmp_path / "run", 0)
        writer.scalars(1, {"loss": 0.5})
        writer.pictures(1, {"sheet": tmp_path / "gone.png"})
        writer.close()
        scores.write(tmp_path / "run" / "test", made_up.evaluation(), None, None, ())
    assert not list(tmp_path.iterdir())
