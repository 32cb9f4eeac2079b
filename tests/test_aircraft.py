"""FGVC-Aircraft: the official archive's layout, levels, boxes and the banner."""

import shutil

import numpy as np
import pytest

from fgc_jax import data
from tests import data_archives, data_files


def load(root, **options):
    return data.load("aircraft", root, options)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return data_files.write_aircraft(tmp_path_factory.mktemp("aircraft"))


@pytest.fixture
def copy(archive, tmp_path):
    return shutil.copytree(archive / "fgvc-aircraft-2013b" / "data", tmp_path / "data")


def test_official_splits(archive):
    dataset = load(archive)
    assert dataset.class_names == (
        "707-320", "737-200", "A320", "BAE 146-200", "DHC-8-100", "F/A-18",
    )  # fmt: skip
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 24, "val": 24, "test": 18}
    train = dataset.splits["train"]
    assert list(train.names[:2]) == ["0034309.jpg", "0034320.jpg"]
    np.testing.assert_array_equal(train.labels[:7], [0, 1, 2, 3, 4, 5, 0])


def test_levels_and_trainval(archive):
    families = load(archive, level="family", train_split="trainval")
    assert len(families.splits["train"]) == 48 and "val" not in families.splits
    assert families.class_names[families.splits["train"].labels[3]] == "BAE 146"
    makers = load(archive, level="manufacturer")
    assert makers.class_names[2] == "British Aerospace"
    assert [makers.class_names[i] for i in makers.splits["test"].labels[:6]] == [
        manufacturer for _, _, manufacturer in data_files.AIRCRAFT
    ]
    assert len(data.splitting.with_validation(families, 0.2, seed=0).splits["val"]) == 10


@pytest.mark.parametrize("below", ["", "fgvc-aircraft-2013b", "fgvc-aircraft-2013b/data"])
def test_roots(archive, below):
    assert load(archive / below).facts() == load(archive).facts()


def test_banner_and_boxes(archive):
    split = load(archive).splits["train"]
    image = split.read(1)
    assert image.shape == (48, 64, 3)  # 68 rows with the banner
    assert image[-1].mean() < 200  # the banner is white
    # The first box starts at column 0 and reaches into the banner; the next is 3 5 60 46.
    np.testing.assert_array_equal(split.boxes[:2], [[0, 4, 64, 48], [2, 4, 60, 46]])


def test_hierarchy(archive):
    variants, families = load(archive), load(archive, level="family")
    assert variants.hierarchy[3] == ("British Aerospace", "BAE 146")
    assert families.hierarchy[families.class_names.index("Dash 8")] == ("de Havilland",)
    assert load(archive, level="manufacturer").hierarchy == ()


def test_photos_may_be_added_to_the_annotations(archive, copy, monkeypatch):
    data_archives.forget_checksums(monkeypatch)
    shutil.rmtree(copy / "images")
    home = copy.parent / "root"
    shutil.move(copy, home / "fgvc-aircraft-2013b" / "data")
    with pytest.raises(ValueError, match=r"no data/images/0034309\.jpg or images/0034309\.jpg in"):
        load(home)
    data_archives.pack(archive, home / "fgvc-aircraft-2013b.tar.gz", "fgvc-aircraft-2013b")
    assert load(home).splits["train"].read(0).shape == (48, 64, 3)
