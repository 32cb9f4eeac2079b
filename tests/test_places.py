"""Finding a data set's files, unpacking what lies there, and saying what is missing."""

import hashlib
import os
import shutil

import pytest

from fgc_jax.data import archives
from fgc_jax.data.sources import places
from tests import data_archives

NAME = "Three Birds"
IMAGES = {"birds/images/a.jpg": b"picture", "birds/images.txt": b"a.jpg\n"}
LABELS = {"labels/labels.txt": b"gull\n"}
PARTS = {"parts/parts.txt": b"beak\n"}


@pytest.fixture
def official(tmp_path):
    """A folder of three archives, and their rows."""
    root = tmp_path / "data"
    found = []
    for file, files, creates in (
        ("birds.tgz", IMAGES, "birds"),
        ("labels.zip", LABELS, "labels"),
        ("parts.tar", PARTS, "parts"),
    ):
        data = data_archives.write_archive(root / file, files).read_bytes()
        md5 = hashlib.md5(data).hexdigest()
        url = f"https://birds.test/{file}" if file == "birds.tgz" else ""
        found.append(archives.Archive(file, len(data), creates, url, md5))
    return root, tuple(found)


def find(root, rows, marker="images.txt", **options):
    return places.find(NAME, str(root), rows, marker, **options)


def test_archives_in_the_root_are_unpacked(official):
    root, rows = official
    assert find(root, rows) == str(root / "birds")
    assert data_archives.contents(root).items() >= (IMAGES | LABELS | PARTS).items()
    for row in rows:
        (root / row.file).unlink()
    assert find(root, rows) == str(root / "birds")


def test_the_unpacked_folder_and_what_is_above_it(official):
    root, rows = official
    find(root, rows)
    assert find(root / "birds", rows) == str(root / "birds")
    above = root.parent / "above"
    above.mkdir()
    shutil.move(root, above / "data")
    assert find(above, rows) == str(above / "data" / "birds")
    deeper = root.parent / "deeper"
    deeper.mkdir()
    shutil.move(above, deeper / "above")
    with pytest.raises(ValueError, match=r"no images\.txt in .* up to 2 folders below"):
        find(deeper, rows)


def test_markers(official):
    root, rows = official
    find(root, rows)
    assert find(root, rows, ("gone.txt", "labels.txt")) == str(root / "labels")
    assert find(root, rows, "birds/images") == str(root)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "secret.txt").write_text("")
    with pytest.raises(ValueError, match=r"no gone\.txt or secret\.txt in "):
        find(root, rows, ("gone.txt", "secret.txt"))


def test_another_data_set_beside_it_is_not_taken_for_it(official):
    root, rows = official
    (root / "a").mkdir()
    (root / "a" / "images.txt").write_text("of others")
    assert find(root, rows) == str(root / "birds")


def test_what_was_unpacked_into_a_folder_of_its_own_is_found(official):
    root, rows = official
    archives.unpack(root / "birds.tgz", root / "birds")
    assert find(root, rows[:1]) == str(root / "birds" / "birds")
    assert not (root / "birds" / "images.txt").exists()


def test_a_plain_file_is_found_and_never_unpacked(tmp_path):
    row = archives.Archive("labels.mat", 3, "labels.mat")
    (tmp_path / "labels.mat").write_bytes(b"mat")
    for root in (tmp_path, tmp_path / "labels.mat"):
        assert find(root, (row,), "labels.mat") == str(tmp_path)
    assert places.unpacked(str(tmp_path), row)
    (tmp_path / "labels.mat").unlink()
    assert not places.unpacked(str(tmp_path), row)


def test_the_root_may_be_the_archive(official):
    root, rows = official
    assert find(root / "birds.tgz", rows) == str(root / "birds")
    assert not (root / "labels").exists()
    assert find(root / "birds.tgz", rows) == str(root / "birds")


def test_an_archive_of_another_name_is_unpacked_unverified_and_says_so(official, capsys):
    root, rows = official
    (root / "birds.tgz").rename(root / "download (1).tgz")
    for said in (1, 0):
        found = find(root / "download (1).tgz", rows)
        assert found == str(root / "download (1)" / "birds")
        assert capsys.readouterr().out.count("no official name: unpacked into") == said
    (root / "labels.zip").rename(root / "other.zip")
    with pytest.raises(ValueError, match=r"no images\.txt in .*other or up to 2"):
        find(root / "other.zip", rows)


def test_an_archive_that_is_not_the_official_one_is_refused(official):
    root, rows = official
    data = bytearray((root / "parts.tar").read_bytes())
    data[600] ^= 1
    (root / "parts.tar").write_bytes(data)
    with pytest.raises(ValueError, match=rf"parts\.tar: its md5 is .* {rows[2].md5}"):
        find(root, rows)
    data_archives.write_archive(root / "parts.tar", PARTS | {"more": bytes(20000)})
    with pytest.raises(ValueError, match=r"parts\.tar: 30,720 bytes, .* has 10,240"):
        find(root, rows)
    assert not (root / "parts").exists()


def test_an_interruption_between_two_archives_is_made_up_for(official, monkeypatch):
    root, rows = official
    unpack = archives.unpack

    def first_alone(path, *arguments, **options):
        if not path.endswith("birds.tgz"):
            raise KeyboardInterrupt
        unpack(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(archives, "unpack", first_alone)
        with pytest.raises(KeyboardInterrupt):
            find(root, rows)
    assert (root / "birds" / "images.txt").exists()
    assert find(root, rows) == str(root / "birds")
    assert (root / "labels").exists() and (root / "parts").exists()
    assert not [name for name in os.listdir(root) if name.startswith(".unpacking")]


def test_more_archives_are_unpacked_when_asked_for(official):
    root, rows = official
    (root / "parts.tar").rename(root.parent / "parts.tar")
    find(root, rows)
    assert not places.unpacked(str(root), rows[2])
    (root.parent / "parts.tar").rename(root / "parts.tar")
    assert find(root, rows) and not (root / "parts").exists()
    assert places.unpacked(str(root / "birds.tgz"), rows[2])
    assert (root / "parts" / "parts.txt").exists()
    (root / "parts.tar").unlink()
    assert places.unpacked(str(root), rows[2])


def test_what_is_missing_is_told(official):
    root, rows = official
    empty = root.parent / "empty"
    empty.mkdir()
    lonely = root.parent / "file.txt"
    lonely.write_text("text")
    reasons = {
        "": "the data root (data.root): Three Birds is not there (it is not set).",
        str(root / "gone"): f"{root / 'gone'}: Three Birds is not there (no such folder).",
        str(lonely): f"{lonely}: Three Birds is not there (it is neither a folder nor",
        str(empty): f"{empty}: Three Birds is not there (no images.txt in {empty} or up to 2",
    }
    rows = (*rows, archives.Archive("big.tgz", 1_150_585_339, "big", sha256="0123"))
    for place, reason in reasons.items():
        with pytest.raises(ValueError) as error:
            find(place, rows, note="for research only")
        message = str(error.value)
        assert message.startswith(reason)
        for part in (
            "https://birds.test/birds.tgz",
            rows[0].md5,
            "labels.zip\n",
            f"md5 {rows[1].md5}, not online",
            "10.24 kB",
            "1.15 GB, sha256 0123",
            "(for research only)",
            "--config.data.root=FOLDER",
        ):
            assert part in message, part
    assert not list(empty.iterdir())


def test_where_nothing_can_be_written(official):
    root, rows = official
    (root / ".unpacking-birds.tgz").write_text("in the way")
    with pytest.raises(ValueError, match=r"birds\.tgz: cannot be unpacked there \(File exists\)"):
        find(root, rows)
