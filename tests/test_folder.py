"""Folders of images: layouts, what is ignored, what is refused."""

import os

import numpy as np
import pytest

from fgc_jax import data
from tests import data_files


def load(root, **options):
    return data.load("folder", root, options)


def sizes(dataset):
    return {name: len(split) for name, split in dataset.splits.items()}


def test_official_splits(tmp_path):
    dataset = load(data_files.write_folder(tmp_path))
    assert dataset.class_names == ("gull", "tern", "wren")
    assert sizes(dataset) == {"train": 12, "val": 6, "test": 6}
    train = dataset.splits["train"]
    assert list(train.names[:5]) == [
        "train/gull/000.jpg", "train/gull/001.jpg", "train/gull/002.jpg", "train/gull/003.jpg",
        "train/tern/000.jpg",
    ]  # fmt: skip
    np.testing.assert_array_equal(train.labels, np.repeat([0, 1, 2], 4))
    expected = data_files.picture(1, 1, classes=3).astype(int)
    assert np.abs(train.read(5) - expected).mean() < 6  # JPEG


def test_other_spellings_of_val(tmp_path):
    for spelling in ("valid", "validation"):
        root = data_files.write_folder(tmp_path / spelling, splits={"train": 2, spelling: 1})
        assert sizes(load(root)) == {"train": 6, "val": 3}
    data_files.write_folder(tmp_path / "valid", splits={"validation": 1})
    with pytest.raises(ValueError, match="'valid' and 'validation' are both the split 'val'"):
        load(tmp_path / "valid")


def test_one_folder_is_split(tmp_path):
    root = data_files.write_folder(tmp_path, splits=10)
    dataset = load(root)
    assert sizes(dataset) == {"train": 24, "test": 6}
    np.testing.assert_array_equal(np.bincount(dataset.splits["test"].labels), [2, 2, 2])
    assert "test: 6 images drawn from train" in dataset.notes
    dataset = load(root, test_fraction=0.3, seed=5)
    assert sizes(dataset) == {"train": 21, "test": 9}
    names = [name for split in dataset.splits.values() for name in split.names]
    assert len(set(names)) == 30
    assert load(root, seed=5).facts() == load(root, seed=5).facts()
    assert load(root, seed=5).facts() != load(root, seed=6).facts()
    assert sizes(load(root, test_fraction=0)) == {"train": 30}


def test_a_test_split_can_be_cut_where_there_is_none(tmp_path):
    root = data_files.write_folder(tmp_path, splits={"train": 5, "val": 1})
    assert sizes(load(root)) == {"train": 15, "val": 3}
    assert sizes(load(root, test_fraction=0.2)) == {"train": 12, "val": 3, "test": 3}
    data_files.write_folder(tmp_path, splits={"test": 1})
    with pytest.raises(ValueError, match="has a test folder, so test_fraction must be None"):
        load(root, test_fraction=0.2)


def test_what_is_ignored_and_what_counts(tmp_path):
    root = data_files.write_folder(tmp_path / "data", splits=2)
    for name in (".hidden.jpg", "notes.txt", "Thumbs.db", ".git/a.jpg"):
        data_files.write_image(root / "gull" / "x.jpg", data_files.picture(0, 9))
        path = root / "gull" / name
        path.parent.mkdir(exist_ok=True)
        (root / "gull" / "x.jpg").rename(path)
    (root / ".cache").mkdir()
    (root / "README.md").write_text("about")
    data_files.write_image(root / "gull" / "deep" / "er" / "B.PNG", data_files.picture(0, 3))
    dataset = load(root, test_fraction=0)
    assert dataset.class_names == ("gull", "tern", "wren")
    gulls = [name for name in dataset.splits["train"].names if name.startswith("gull")]
    assert gulls == ["gull/000.jpg", "gull/001.jpg", "gull/deep/er/B.PNG"]


def test_links_are_followed_and_loops_end(tmp_path):
    root = data_files.write_folder(tmp_path / "data", splits=2)
    elsewhere = tmp_path / "elsewhere"
    (root / "wren").rename(elsewhere)
    (root / "wren").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(elsewhere)
    (root / "gull" / "002.jpg").symlink_to(elsewhere / "000.jpg")
    dataset = load(root, test_fraction=0)
    assert [name for name in dataset.splits["train"].names if "loop" in name] == []
    assert np.bincount(dataset.splits["train"].labels).tolist() == [3, 2, 2]
    assert dataset.splits["train"].read(2).shape == (40, 48, 3)


def test_a_dead_link_is_named_when_read(tmp_path):
    root = data_files.write_folder(tmp_path, splits=2)
    (root / "gull" / "002.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match=r"gull/002\.jpg: cannot be read"):
        load(root, test_fraction=0).splits["train"].read(2)


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    root = data_files.write_folder(tmp_path)
    names = list(load(root).splits["train"].names)
    real = os.scandir

    class Backwards:
        def __init__(self, path):
            self.entries = real(path)

        def __enter__(self):
            return iter(sorted(self.entries, key=lambda entry: entry.name, reverse=True))

        def __exit__(self, *error):
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Backwards)
    assert list(load(root).splits["train"].names) == names


def test_classes_must_agree(tmp_path):
    root = data_files.write_folder(tmp_path)
    data_files.write_image(root / "test" / "crow" / "0.jpg", data_files.picture(0, 0))
    with pytest.raises(ValueError, match="'test' and 'train' differ: 'crow' are in one of them"):
        load(root)
    (root / "train" / "finch").mkdir()
    with pytest.raises(ValueError, match="'val' and 'train' differ: 'finch'"):
        load(root)


@pytest.mark.parametrize("below", ["", "train", "test"])
def test_an_empty_class_is_refused(tmp_path, below):
    root = data_files.write_folder(tmp_path, splits=2 if not below else None)
    for path in (root / below / "tern").iterdir():
        path.unlink()
    (root / below / "tern" / "notes.txt").write_text("no images here")
    with pytest.raises(ValueError, match=rf"{below}.*: no images in 'tern'"):
        load(root)


def test_one_class_is_refused(tmp_path):
    root = data_files.write_folder(tmp_path, classes=("gull",), splits=3)
    with pytest.raises(ValueError, match="at least 2 classes are needed, found: gull"):
        load(root)


def test_no_images_and_loose_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no images in class folders; extensions are .jpg"):
        load(tmp_path)
    root = data_files.write_folder(tmp_path, splits=2)
    data_files.write_image(root / "loose.jpg", data_files.picture(0, 0))
    with pytest.raises(ValueError, match=r"'loose\.jpg' is not in a class folder"):
        load(root)


def test_a_file_is_no_root(tmp_path):
    path = data_files.write_image(tmp_path / "a.jpg", data_files.picture(0, 0))
    with pytest.raises(ValueError, match="the data root is not a folder"):
        load(path)


def test_labelled_split_of_an_existing_model(tmp_path):
    root = data_files.write_folder(tmp_path, classes=("tern", "wren"), splits=2)
    split = data.labelled_split(root, ("gull", "tern", "wren"))
    np.testing.assert_array_equal(split.labels, [1, 1, 2, 2])
    with pytest.raises(ValueError, match="has no class 'wren', allowed: 'gull', 'tern'"):
        data.labelled_split(root, ("gull", "tern"))
    with pytest.raises(ValueError, match="is a folder: columns .* do not apply"):
        data.labelled_split(root, ("gull", "tern"), label_column=1)
    with pytest.raises(ValueError, match="no such folder or CSV file"):
        data.labelled_split(tmp_path / "gone", ("gull", "tern"))
