"""Prepared data sets: killed and begun again, damaged, unfinished."""

import functools
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from fgc_jax.data import dataset, prepare, records
from fgc_jax.data.sources import prepared
from tests import data_archives, data_files, data_prepared

FORM = records.Form(resize=32)


KILLED = """
    import sys, time
    from fgc_jax.data import prepare, records
    from fgc_jax.data.sources import folder

    encode = records.Encoder.__call__

    def slow(self, place):
        time.sleep(0.05)
        return encode(self, place)

    records.Encoder.__call__ = slow
    data = folder.load(sys.argv[1])
    form = records.Form(shard_bytes=8000)
    prepare.prepare(data, sys.argv[2], name="folder", form=form, threads=1)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    data = data_prepared.folder_data(tmp_path, splits={"train": 20, "test": 5})
    run = functools.partial(prepare.prepare, name="folder", form=records.Form(shard_bytes=8000))
    run(data, tmp_path / "straight")
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), tmp_path / "photos", out],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("*array_record*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait(10)
    done = {path: path.stat().st_mtime_ns for path in out.glob("*array_record*")}
    assert 3 <= len(done) < len(list((tmp_path / "straight").glob("*array_record*")))
    with pytest.raises(ValueError, match="not finished"):
        prepared.load(out)
    with pytest.raises(ValueError, match="resize: None there, 32 now"):
        run(data, out, form=FORM)
    with pytest.raises(ValueError, match="splits differ"):
        smaller = dataset.subset(data.splits["train"], np.arange(9))
        run(dataset.Dataset("folder", data.class_names, {"train": smaller}), out)
    run(data, out)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert data_archives.contents(out) == data_archives.contents(tmp_path / "straight")


def test_a_file_that_changed_meanwhile_is_stored_anew(tmp_path, monkeypatch):
    data = data_prepared.folder_data(tmp_path)
    monkeypatch.setattr(prepare.shards, "write_metadata", lambda *_: 1 / 0)
    run = functools.partial(prepare.prepare, data, tmp_path / "out", name="folder")
    with pytest.raises(ZeroDivisionError):
        run()
    monkeypatch.undo()
    changed = tmp_path / "photos" / data.splits["test"].names[0]
    data_files.write_image(changed, data_files.picture(0, 99, (60, 20)))
    run()
    assert prepared.load(tmp_path / "out").splits["test"].read(0).shape == (20, 60, 3)


def test_images_that_were_skipped_are_not_forgotten(tmp_path, monkeypatch):
    data = data_prepared.folder_data(tmp_path)
    (tmp_path / "photos" / data.splits["train"].names[0]).write_bytes(b"no image")
    monkeypatch.setattr(prepare.shards, "write_metadata", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare.prepare(data, tmp_path / "out", name="folder", on_bad_image="skip")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="1 images cannot be read"):
        prepare.prepare(data, tmp_path / "out", name="folder")


def test_skipped_images_of_one_name_are_all_noted(tmp_path):
    splits = {}
    for split in ("train", "test"):
        for i in range(3):
            data_files.write_image(tmp_path / split / f"{i}.jpg", data_files.picture(i % 2, i))
        (tmp_path / split / "2.jpg").write_bytes(b"no image")
        splits[split] = dataset.file_split(tmp_path / split, ["0.jpg", "1.jpg", "2.jpg"], [0, 1, 0])
    data = dataset.Dataset("two", ("gull", "tern"), splits)
    facts = prepare.prepare(data, tmp_path / "out", name="two", on_bad_image="skip")
    assert list(facts["skipped"]) == ["2.jpg", "test/2.jpg"]
    assert "without 2 unreadable images" in prepared.load(tmp_path / "out").notes


def test_repaired_images_are_taken_up(tmp_path):
    data = data_prepared.folder_data(tmp_path)
    path = tmp_path / "photos" / data.splits["train"].names[0]
    good = path.read_bytes()
    path.write_bytes(good[:200])
    with pytest.raises(ValueError, match="1 images cannot be read"):
        prepare.prepare(data, tmp_path / "out", name="folder")
    path.write_bytes(good)
    prepare.prepare(data, tmp_path / "out", name="folder")
    assert prepared.load(tmp_path / "out").facts()["splits"] == data.facts()["splits"]


def test_damage_is_found(tmp_path):
    _, out = data_prepared.prepared_folder(tmp_path, form=records.Form(shard_bytes=3000))
    assert prepare.verify(out) == 24
    shards = sorted(out.glob("*train*"))
    whole = shards[1].read_bytes()
    data_prepared.flip_byte(shards[1], 0.02)
    with pytest.raises(ValueError, match="1 records are damaged") as error:
        prepare.verify(out)
    assert shards[1].name in str(error.value)
    split = prepared.load(out).splits["train"]
    assert sum(not readable(split, i) for i in range(len(split))) == 1
    shards[1].write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"{shards[1].name}: {len(whole) - 1} bytes instead of"):
        prepared.load(out)
    shards[1].unlink()
    with pytest.raises(ValueError, match=f"{shards[1].name}: missing"):
        prepared.load(out)
    shards[1].write_bytes(whole)
    data_prepared.flip_byte(out / "index.npz", 0.02)
    with pytest.raises(ValueError, match="index.npz: damaged"):
        prepared.load(out)
    (out / "prepared.json").write_text('{"format": 1')
    with pytest.raises(ValueError, match="prepared.json is not valid JSON"):
        prepared.load(out)


def readable(split, i):
    try:
        return split.read(i) is not None
    except ValueError as error:
        assert split.names[i] in str(error)
        return False


def test_other_records_than_indexed_are_found(tmp_path):
    _, out = data_prepared.prepared_folder(tmp_path)
    index = dict(np.load(out / "index.npz"))
    index["test/labels"][:2] = index["test/labels"][1::-1]
    index["test/checksums"][2] += 1
    index["train/sizes"][3] += 1
    index["train/labels"][0] += 1
    np.savez(out / "index.npz", **index)
    with pytest.raises(ValueError, match="3 records are damaged"):
        prepare.verify(out)


def test_damage_while_preparing_is_repaired_by_the_next_run(tmp_path, monkeypatch):
    data, write_metadata = data_prepared.folder_data(tmp_path), prepare.shards.write_metadata

    def damaging(encoder, output, plan):
        data_prepared.flip_byte(output / plan["shards"][0]["file"])
        return write_metadata(encoder, output, plan)

    monkeypatch.setattr(prepare.shards, "write_metadata", damaging)
    with pytest.raises(ValueError, match="records are damaged, run the command again"):
        prepare.prepare(data, tmp_path / "out", name="folder")
    monkeypatch.undo()
    prepare.prepare(data, tmp_path / "out", name="folder")
    assert prepare.verify(tmp_path / "out") == 24


def test_too_small_a_disk_leaves_nothing(tmp_path, monkeypatch):
    data = data_prepared.folder_data(tmp_path)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(prepare.shards.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match="0.07 GB are needed, 0.00 GB are free"):
        prepare.prepare(data, tmp_path / "new" / "out", name="folder")
    assert not (tmp_path / "new" / "out").exists()


def test_two_at_once(tmp_path):
    data = data_prepared.folder_data(tmp_path)
    with prepare._locked(tmp_path / "out"), pytest.raises(ValueError, match="another process"):
        prepare.prepare(data, tmp_path / "out", name="folder")


@pytest.mark.parametrize(
    ("path", "message"),
    [("", "data root is not set"), ("gone", "no such folder"), ("empty", "not a prepared data")],
)
def test_no_prepared_data(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        prepared.load(path and tmp_path / path)
