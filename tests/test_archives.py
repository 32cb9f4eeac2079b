"""Unpacking archives: right, restartable, once, and only what was expected."""

import hashlib
import os

import pytest

from fgc_jax.data import archives
from tests import data_archives

SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_unpacked(tmp_path, suffix):
    path = data_archives.write_archive(tmp_path / f"birds{suffix}")
    archives.unpack(path, tmp_path / "out")
    assert data_archives.contents(tmp_path / "out") == data_archives.FILES
    assert sorted(os.listdir(tmp_path / "out")) == [
        f".unpacked-birds{suffix}", "attributes.txt", "birds"
    ]  # fmt: skip


def test_what_the_bytes_are_decides_not_the_suffix(tmp_path):
    path = data_archives.write_archive(tmp_path / "birds.tgz", suffix=".zip")
    archives.unpack(path, tmp_path)
    assert (tmp_path / "birds" / "classes.txt").exists()


def test_unpacking_again_does_nothing_and_a_new_archive_is_unpacked(tmp_path):
    path = data_archives.write_archive(tmp_path / "birds.zip")
    archives.unpack(path, tmp_path)
    (tmp_path / "birds" / "classes.txt").write_bytes(b"mine")
    archives.unpack(path, tmp_path)
    assert (tmp_path / "birds" / "classes.txt").read_bytes() == b"mine"
    data_archives.write_archive(path, {"birds/classes.txt": b"newer"})
    archives.unpack(path, tmp_path)
    assert (tmp_path / "birds" / "classes.txt").read_bytes() == b"newer"


def test_what_was_removed_is_unpacked_again(tmp_path):
    path = data_archives.write_archive(tmp_path / "birds.tgz")
    archives.unpack(path, tmp_path / "out")
    (tmp_path / "out" / "attributes.txt").unlink()
    archives.unpack(path, tmp_path / "out")
    assert data_archives.contents(tmp_path / "out") == data_archives.FILES


def test_two_archives_share_a_folder(tmp_path):
    for number in range(2):
        files = {f"annotations/{number}.txt": b"%d" % number}
        path = data_archives.write_archive(tmp_path / f"{number}.tgz", files)
        archives.unpack(path, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out" / "annotations")) == ["0.txt", "1.txt"]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_checksum(tmp_path, kind):
    path = data_archives.write_archive(tmp_path / "birds.tgz")
    digest = hashlib.new(kind, path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"birds.tgz: its {kind} is {digest}, but .* {'0' * 32}"):
        archives.unpack(path, tmp_path / "out", **{kind: "0" * len(digest)})
    assert not os.listdir(tmp_path / "out")
    archives.unpack(path, tmp_path / "out", **{kind: digest.upper()})
    assert data_archives.contents(tmp_path / "out") == data_archives.FILES


def test_size(tmp_path):
    path = data_archives.write_archive(tmp_path / "birds.tgz")
    size = path.stat().st_size
    for wrong, what in ((size + 1, "the download is incomplete"), (size - 1, "another file")):
        with pytest.raises(ValueError, match=rf"birds.tgz: {size:,} bytes, .* {wrong:,}: .*{what}"):
            archives.unpack(path, tmp_path / "out", size=wrong)
    archives.unpack(path, tmp_path / "out", size=size)
