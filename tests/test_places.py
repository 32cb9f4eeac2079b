"""Finding a data set's files, unpacking what lies there, and saying what is missing."""

import hashlib

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
