"""Files that are whole or not there."""

import json
import os

import pytest

from fgc_jax import files


def test_json_holds_no_nan(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": [float("nan"), 1.5], "b": {"c": float("inf")}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.5], "b": {"c": None}}


@pytest.mark.parametrize("content", [b"{", b"\xff"])
def test_damaged_and_missing_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.json is not valid JSON"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"b.json does not exist"):
        files.read_json(tmp_path / "b.json")
    with pytest.raises(ValueError, match=r"cannot be read: Is a directory"):
        files.read_json(tmp_path)


def test_a_file_appears_whole_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with files.whole(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
        assert temporary.parent == path.parent and temporary.name.endswith(files.UNFINISHED)
    os.umask(mask := os.umask(0))
    assert path.read_text() == "first" and path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert list(path.parent.iterdir()) == [path]


def test_writers_of_one_file_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "a.txt"
    with files.whole(path) as first, files.whole(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # which was finished last


def test_after_an_error_the_file_is_as_before(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), files.whole(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("sync"), real_sync(number)))
    monkeypatch.setattr(os, "replace", lambda *pair: (done.append("name"), real_replace(*pair)))
    files.write_json(tmp_path / "a.json", {})
    assert done == ["sync", "name"]
