"""Damaged and hostile archives: one error that names the file, soon, and nothing written."""

import hashlib
import os
import shutil
import signal
import stat
import tarfile

import pytest

from fgc_jax.data import archives, members
from tests import bad_archives, data_archives

SECONDS = 20


@pytest.fixture(autouse=True)
def in_time():
    def late(*_):
        raise TimeoutError(f"not done in {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def small(monkeypatch):
    """Limits that small archives exceed."""
    monkeypatch.setattr(members, "FLOOR", 2_000_000)
    monkeypatch.setattr(members, "MEMBER_FLOOR", 1000)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of files that must stay as they are, with the working folder among them."""
    for name in ("outside.txt", "evil.txt", "work/file.txt", "out/sub/mine.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "out" / "sub" / "target").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def state(place):
    """{path: kind, size, time of change} of all but the archive's own record."""
    found = {}
    for below, folders, names in os.walk(place):
        for name in (*folders, *names):
            path = os.path.join(below, name)
            info = os.lstat(path)
            if not stat.S_ISDIR(info.st_mode):
                found[path] = (info.st_mode, info.st_size, info.st_mtime_ns, info.st_nlink)
            else:
                found[path] = info.st_mode
    return found


@pytest.mark.parametrize("kind", bad_archives.BAD)
def test_it_is_refused(place, small, kind):
    file, data, message = bad_archives.BAD[kind]
    path = place / file
    path.write_bytes(data)
    before = state(place)
    with pytest.raises(ValueError, match=message or None) as error:
        archives.unpack(path, place / "out" / "sub" / "target")
    assert str(error.value).startswith(f"{path}: ") and len(str(error.value)) < 700
    assert str(error.value).isprintable()
    assert state(place) == before
    assert not os.path.lexists(bad_archives.EVIL)


FEW = {"birds/a.jpg": data_archives.noise(400), "birds/b.txt": b"gull\n" * 40, "c.txt": b""}
SUFFIXES = (".tar", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


def unpack_or_refuse(path, target):
    """What an archive brought, and None where it was refused in the right way."""
    try:
        archives.unpack(path, target)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
        assert not os.listdir(target)
        return None
    found = data_archives.contents(target)
    shutil.rmtree(target)
    target.mkdir()
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_off_anywhere(place, suffix):
    data, path = data_archives.archive_bytes(suffix, FEW), place / f"x{suffix}"
    target, before = place / "out" / "sub" / "target", state(place)
    lengths = [*range(0, len(data), max(1, len(data) // 100)), *range(len(data) - 30, len(data))]
    refused = 0
    for length in lengths:
        path.write_bytes(data[:length])
        found = unpack_or_refuse(path, target)
        refused += found is None
        # A tar file ends in zeros that nobody needs.
        assert found in (None, FEW) if suffix == ".tar" else found is None, length
    assert refused > 0.2 * len(lengths)
    path.unlink()
    assert state(place) == before


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_changed_anywhere(place, suffix, width):
    data, path = data_archives.archive_bytes(suffix, FEW), place / f"x{suffix}"
    target, before = place / "out" / "sub" / "target", state(place)
    refused = 0
    places = range(0, len(data) - width, max(1, len(data) // 120))
    for at in places:
        noise = data_archives.noise(width, at)
        path.write_bytes(bad_archives.patched(data, at, noise))
        found = unpack_or_refuse(path, target)
        refused += found is None
        # A bare tar file has no checksum of the data, and one of 6 digits for each header.
        assert suffix == ".tar" or found in (None, FEW), at
    assert refused > 0.1 * len(places)
    path.unlink()
    assert state(place) == before


def test_a_checksum_finds_every_change(place):
    data, path = data_archives.archive_bytes(".tar", FEW), place / "x.tar"
    md5 = hashlib.md5(data).hexdigest()
    for at in range(0, len(data), 97):
        path.write_bytes(bad_archives.patched(data, at, bytes([data[at] ^ 1])))
        with pytest.raises(ValueError, match=f"x.tar: its md5 is .* {md5}"):
            archives.unpack(path, place / "out" / "sub" / "target", md5=md5)


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
def test_bombs_are_refused_with_the_real_limits(place, suffix):
    path = data_archives.write_archive(place / f"x{suffix}", {"zeros": bytes(90_000_000)})
    before = state(place)
    with pytest.raises(ValueError, match="claims? 90,000,000 bytes, more than the 7"):
        archives.unpack(path, place / "out" / "sub" / "target")
    assert state(place) == before


def test_what_is_no_file(place):
    target = place / "out" / "sub" / "target"
    os.mkfifo(place / "fifo.tgz")
    (place / "folder.tgz").mkdir()
    (place / "dangling.tgz").symlink_to("nowhere")
    for name in ("fifo.tgz", "folder.tgz", "dangling.tgz", "gone.tgz"):
        with pytest.raises(ValueError, match=f"{name}: no such file"):
            archives.unpack(place / name, target)
    assert not list(target.iterdir())


def test_a_file_where_the_folder_should_be(place):
    path = data_archives.write_archive(place / "x.zip")
    before = state(place)
    for target in (place / "evil.txt", place / "evil.txt" / "below"):
        with pytest.raises(ValueError, match=rf"x\.zip: cannot be unpacked into {target} \("):
            archives.unpack(path, target)
    assert state(place) == before


def test_rights_and_owners_are_not_taken_over(place):
    odd = {"mode": 0o6777, "uid": 1234, "gid": 1234, "uname": "evil", "mtime": 2**33}
    entries = [data_archives.entry("a", b"x", **odd)]
    (place / "x.tar").write_bytes(data_archives.tar_bytes(entries))
    archives.unpack(place / "x.tar", place / "out")
    mine, found = os.stat(place / "evil.txt"), os.stat(place / "out" / "a")
    assert (found.st_mode, found.st_uid, found.st_gid) == (mine.st_mode, mine.st_uid, mine.st_gid)


@pytest.mark.parametrize("suffix", [".tgz", ".zip"])
def test_odd_names_that_are_harmless(place, suffix):
    good = {
        "\N{BIRD}/\u00fc b'\".jpg": b"1",
        "a..b/...": b"2",
        "n" * 251 + ".jpg": b"3",
        "-rf": b"4",
        "d/" * 30 + "x": b"5",
        "%2e%2e/x": b"6",
    }
    skipped = {"__MACOSX/._a": b"x", "d/._x": b"x", "d/.DS_Store": b"x", "._a": b"x"}
    dotted = {f"./{name}": data for name, data in (good | skipped).items()}
    path = data_archives.write_archive(place / f"x{suffix}", dotted)
    archives.unpack(path, place / "out" / "sub" / "target")
    assert data_archives.contents(place / "out" / "sub" / "target") == good


def test_names_in_no_known_encoding(place):
    name = b"\xfc.jpg".decode("utf-8", "surrogateescape")
    info = data_archives.entry(name, b"1")
    (place / "x.tar").write_bytes(data_archives.tar_bytes([info], format=tarfile.GNU_FORMAT))
    archives.unpack(place / "x.tar", place / "out" / "sub" / "target")
    assert (place / "out" / "sub" / "target" / name).read_bytes() == b"1"
