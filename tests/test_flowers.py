"""Flowers-102: the official .mat files, 102 names, and what is said where they are damaged."""

import numpy as np
import pytest
from scipy import io

from fgc_jax.data.sources import flower_names, flowers
from tests import data_archives, data_collections, data_files

original, copy = data_files.fixtures(data_collections.write_flowers)


def test_official_splits(original):
    dataset = flowers.load(original)
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 102, "val": 102, "test": 102}
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert list(train.names[:2]) == ["image_00103.jpg", "image_00104.jpg"]
    assert test.names[0] == "image_00001.jpg"
    np.testing.assert_array_equal(test.labels[:3], [5, 10, 15])
    np.testing.assert_array_equal(train.labels, (np.arange(103, 205) * 5) % 102)
    assert train.read(0).shape == (20, 24, 3) and train.boxes is None


def test_names():
    names = flower_names.NAMES
    assert len(names) == len(set(names)) == 102
    assert [names[i] for i in (0, 5, 50, 101)] == [
        "pink primrose", "tiger lily", "petunia", "blackberry lily",
    ]  # fmt: skip
    assert not any("  " in name or name != name.strip() for name in names)


def test_names_are_those_that_tfds_has():
    builder = "oxford_flowers102.oxford_flowers102_dataset_builder"
    tfds = pytest.importorskip(f"tensorflow_datasets.datasets.{builder}")
    assert list(flower_names.NAMES) == [name.rstrip("?") for name in tfds._NAMES]


def test_roots(original, tmp_path, copy):
    facts = flowers.load(original).facts()
    assert flowers.load(tmp_path).facts() == facts
    archive = data_archives.pack(
        original, tmp_path / "all.tgz", "jpg", "imagelabels.mat", "setid.mat"
    )
    assert flowers.load(str(archive)).facts() == facts


IDS = {"trnid": [[1, 2]], "valid": [[3]], "tstid": [[4]]}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("imagelabels.mat", b"MATLAB 5.0", "damaged or not a MATLAB file"),
        ("imagelabels.mat", {"label": [[1, 2]]}, "no variable 'labels'"),
        ("imagelabels.mat", {"labels": [[1, 103]]}, "1 unknown labels, allowed are 1 to 102: 103"),
        ("imagelabels.mat", {"labels": [[1, 1.5]]}, "1 unknown labels, .*: 1.5"),
        ("imagelabels.mat", {"labels": [["rose"]]}, "the labels are not numbers"),
        ("setid.mat", {"trnid": [[1, 2]], "valid": [[3]]}, "no variable 'tstid'"),
        ("setid.mat", IDS | {"trnid": [[0, 307]]}, "2 unknown images in train, .* 306: 0; 307"),
        ("setid.mat", IDS | {"tstid": [[2]]}, "1 images are listed twice, .*: image_00002.jpg"),
    ],
)
def test_damaged_files_are_named(copy, file, content, message):
    if isinstance(content, bytes):
        (copy / file).write_bytes(content)
    else:
        io.savemat(copy / file, content)
    with pytest.raises(ValueError, match=rf"{file}: (there is )?({message})"):
        flowers.load(copy)
