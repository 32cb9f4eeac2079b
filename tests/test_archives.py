"""Unpacking archives: right, restartable, once, and only what was expected."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from fgc_jax.data import archives
from tests import commands, data_archives

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
    archives.unpack(path, tmp_path, md5=archives.checksum(path, "md5"))
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


def test_killed_at_any_point_it_is_never_half_there_and_continues(tmp_path):
    paths = [
        data_archives.write_archive(tmp_path / f"birds{suffix}") for suffix in (".tgz", ".zip")
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.archive_kills", tmp_path / "out", *paths],
        cwd=commands.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    times, unfinished = (int(word) for word in done.stdout.split() if word.isdecimal())
    assert times > 80 and 50 < unfinished < times


class Killed(BaseException):
    pass


def interrupt(monkeypatch, path, folder):
    """Unpacks until the fourth file would get its name; returns the names, later ones too."""
    replace, written = os.replace, []

    def replacing(source, target):
        if str(source).endswith("part"):
            written.append(os.path.basename(target))
            if len(written) == 4:
                raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", replacing)
    with pytest.raises(Killed):
        archives.unpack(path, folder)
    return written


def test_what_was_unpacked_is_not_written_again(tmp_path, monkeypatch):
    path = data_archives.write_archive(tmp_path / "birds.tgz")
    written = interrupt(monkeypatch, path, tmp_path / "out")
    assert not (tmp_path / "out" / "birds").exists()
    archives.unpack(path, tmp_path / "out")
    # The fourth twice, because it was not finished; nothing else.
    names = ["classes.txt", "a.jpg", "b.jpg", "c.jpg", "c.jpg", "empty.txt", "attributes.txt"]
    assert written == names
    assert data_archives.contents(tmp_path / "out") == data_archives.FILES


def test_an_archive_that_changed_meanwhile_is_begun_anew(tmp_path, monkeypatch):
    path = data_archives.write_archive(tmp_path / "birds.tgz")
    interrupt(monkeypatch, path, tmp_path / "out")
    other = {name: data[::-1] for name, data in data_archives.FILES.items()}
    data_archives.write_archive(path, other)
    archives.unpack(path, tmp_path / "out")
    assert data_archives.contents(tmp_path / "out") == other


def test_the_checksum_is_taken_once(tmp_path, monkeypatch):
    path = data_archives.write_archive(tmp_path / "birds.tgz")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(archives.members, "read", lambda raw: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            archives.unpack(path, tmp_path, md5=md5)
    monkeypatch.setattr(archives, "checksum", None)
    archives.unpack(path, tmp_path, md5=md5)
    assert (tmp_path / "birds" / "classes.txt").exists()


def test_a_second_process_waits_and_finds_it_done(tmp_path, capsys, monkeypatch):
    path = data_archives.write_archive(tmp_path / "birds.tgz")
    work = archives._work(path, tmp_path / "out")
    with archives.locked(os.path.join(work, "lock"), "first"):
        second = threading.Thread(target=archives.unpack, args=(path, tmp_path / "out"))
        second.start()
        while second.is_alive() and "another process is using it" not in capsys.readouterr().out:
            time.sleep(0.01)
        assert not (tmp_path / "out" / "birds").exists()
    second.join()
    assert data_archives.contents(tmp_path / "out") == data_archives.FILES


def test_disks_without_locks_work(tmp_path, monkeypatch):
    def no_lock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(archives.fcntl, "flock", no_lock)
    archives.unpack(data_archives.write_archive(tmp_path / "birds.tgz"), tmp_path)
    assert (tmp_path / "birds").exists()


def test_no_room_is_said_first_and_a_full_disk_can_be_continued(tmp_path, monkeypatch):
    path = data_archives.write_archive(tmp_path / "birds.zip")
    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "disk_usage", lambda path: type("", (), {"free": 99}))
        with pytest.raises(ValueError, match=r"birds\.zip: cannot be .*15,064 bytes .*99 are free"):
            archives.unpack(path, tmp_path / "out")
    replace = os.replace

    def full(source, target):
        if str(target).endswith("c.jpg"):
            raise OSError(errno.ENOSPC, "No space left on device", target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(ValueError, match=r"No space left on device; .*the same command contin"):
            archives.unpack(path, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == [".unpacking-birds.zip"]
    archives.unpack(path, tmp_path / "out")
    assert data_archives.contents(tmp_path / "out") == data_archives.FILES


def test_what_is_in_the_way(tmp_path):
    path = data_archives.write_archive(tmp_path / "birds.tgz")
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    row = archives.Archive("birds.tgz", 0, "attributes.txt")
    for make in (
        lambda: (out / "birds").write_bytes(b""),
        lambda: (out / "birds").symlink_to(elsewhere),
        lambda: (out / "attributes.txt").mkdir(),
        lambda: (out / "attributes.txt").symlink_to(elsewhere / "new"),
    ):
        make()
        with pytest.raises(ValueError, match=r"out/(birds|attributes.txt) is in the way"):
            archives.unpack(path, out)
        assert not list(elsewhere.iterdir()) and len(list(out.iterdir())) == 2
        assert not archives.is_unpacked(row, str(out))
        for found in out.iterdir():
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink()
    (out / "birds" / "images").mkdir(parents=True)
    (out / "birds" / "images" / "mine.jpg").write_bytes(b"mine")
    archives.unpack(path, out)
    expected = data_archives.FILES | {"birds/images/mine.jpg": b"mine"}
    assert data_archives.contents(out) == expected


@pytest.mark.parametrize("mine", [b"mine", b"2 gull\n1 tern\n"])
def test_files_of_the_user_are_replaced_by_verified_archives_alone(tmp_path, mine):
    path = data_archives.write_archive(tmp_path / "birds.tgz")
    out = tmp_path / "out"
    classes, same = out / "birds" / "classes.txt", out / "attributes.txt"
    classes.parent.mkdir(parents=True)
    classes.write_bytes(mine)  # of another size, or of the same with other content
    same.write_bytes(data_archives.FILES["attributes.txt"])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"out/birds/classes\.txt is in the way .*other cont"):
            archives.unpack(path, out, size=path.stat().st_size)
        assert classes.read_bytes() == mine and not (out / "birds" / "images").exists()
    shutil.copytree(out, tmp_path / "verified")
    archives.unpack(path, tmp_path / "verified", md5=archives.checksum(path, "md5"))
    assert data_archives.contents(tmp_path / "verified") == data_archives.FILES
    classes.rename(tmp_path / "moved")
    archives.unpack(path, out)
    assert data_archives.contents(out) == data_archives.FILES


def test_long_work_shows_a_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(archives, "LONG", 1)
    path = data_archives.write_archive(tmp_path / "birds.tgz")
    archives.unpack(path, tmp_path, md5=hashlib.md5(path.read_bytes()).hexdigest())
    shown = capsys.readouterr().err
    assert "checking birds.tgz: 100%" in shown and "unpacking birds.tgz: 100%" in shown
    assert "B/s" in shown
