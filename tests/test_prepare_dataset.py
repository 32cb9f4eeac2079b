"""`fgc prepare_dataset`: its flags, what it refuses and what it downloads."""

import json
import os

import pytest

from fgc_jax.cli import data_flags, prepare_dataset
from fgc_jax.data import download
from fgc_jax.data.sources import prepared
from tests import data_archives, data_files


def test_the_command(tmp_path, capsys):
    root, out = data_files.write_folder(tmp_path / "photos", splits=5), tmp_path / "out"
    words = ["--name=folder", f"--root={root}", f"--output={out}", "--resize=20"]
    words += ["--options", "test_fraction=0.4", "seed=3"]
    assert prepare_dataset.main(words) == 0
    assert "test: 6 images" in capsys.readouterr().out
    identity = json.loads((out / "prepared.json").read_text())["identity"]
    assert identity["options"] == {"test_fraction": 0.4, "seed": 3}
    assert prepared.load(out).splits["test"].read(0).shape == (20, 24, 3)
    assert prepare_dataset.main([f"--output={out}", "--verify"]) == 0
    assert "all 15 records" in capsys.readouterr().out
    before = data_archives.contents(tmp_path)
    for wrong, message in (
        ([*words[:3], "--options", "seed"], "'seed' is not KEY=VALUE"),
        ([*words[:3], "--options", "{seed"], "is not valid JSON"),
        ([*words[:3], "--options", "speed=1"], "speed is unknown: "),
        ([*words[:3], "--jpeg_quality=0"], "must lie in 1 to 100"),
        (["--name=folder", "--root=gone", words[2]], "the data root is missing"),
        ([*words[:3], "--download"], "no archives to download"),
        (["--name=synthetic_birds", *words[1:3]], "must be ''"),
        (words[:3], "made from other data or options"),
        (["--output=gone", "--verify"], "no such folder"),
    ):
        assert prepare_dataset.main(wrong) == 1, wrong
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and message in captured.err, captured.err
    assert data_archives.contents(tmp_path) == before and not os.path.exists("gone")


@pytest.mark.parametrize(
    ("name", "options", "files"),
    [
        ("aircraft", [], {"fgvc-aircraft-2013b.tar.gz"}),
        ("inaturalist", ["year=2021", "train=mini"], {"train_mini.tar.gz", "val.tar.gz"}),
        ("inaturalist", [], "year must be given"),
        ("inaturalist", ["year=2020"], "unknown year 2020, allowed: 2017"),
        ("folder", [], "no archives"),
        ("coffee", [], "unknown data set 'coffee'"),
    ],
)
def test_what_is_downloaded(tmp_path, monkeypatch, capsys, name, options, files):
    asked = []
    monkeypatch.setattr(download, "download_archives", lambda *given: asked.append(given))
    root = tmp_path / "data"
    words = [f"--name={name}", f"--root={root}", f"--output={tmp_path / 'out'}", "--download"]
    assert prepare_dataset.main([*words, "--options", *options]) == 1  # nothing is there to prepare
    if isinstance(files, str):
        assert files in capsys.readouterr().err and not asked
    else:
        assert asked[0][1] == str(root)
        there = {archive.file for archive in asked[0][0]}
        assert files <= there and "train2017.json" not in there


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(1,2,3,4)", (1, 2, 3, 4)),
        ("('x0', 'y0')", ("x0", "y0")),
        ("[1, 2]", [1, 2]),
        ("True", True),
        ("true", True),
        ("None", None),
        ("0.5", 0.5),
        ("family", "family"),
        ("cars_{split}", "cars_{split}"),
        ("{split}", "{split}"),
        ("{1,2}", "{1,2}"),
        ("...", "..."),
        (",", ","),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_options_are_json_python_or_text(text, value):
    options = data_flags.parse_options([f"key={text}", "other=1"])
    assert options == {"key": value, "other": 1} and type(options["key"]) is type(value)


def test_the_result_never_lies_among_its_source(tmp_path, monkeypatch, capsys):
    root = data_files.write_folder(tmp_path / "photos", splits=3)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    before = data_archives.contents(tmp_path)
    for where in (root / "small", root, "photos/a/b", "link/small"):
        words = ["--name=folder", f"--root={root}", f"--output={where}"]
        assert prepare_dataset.main(words) == 1
        assert f"{where} is inside {root}" in capsys.readouterr().err
    assert data_archives.contents(tmp_path) == before
    assert prepare_dataset.main([*words[:2], "--output=photos_small"]) == 0
