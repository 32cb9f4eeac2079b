"""FGVC-Aircraft: the official archive's layout, levels, boxes and the banner."""

import shutil

import numpy as np
import pytest

from fgc_jax import data
from fgc_jax.data import archives
from tests import data_collections, data_files


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


def test_missing_data_say_what_to_get(tmp_path, copy):
    shutil.rmtree(copy / "images")  # as where the annotations alone were downloaded
    for root in (tmp_path / "gone", tmp_path / "data"):
        with pytest.raises(ValueError) as error:
            load(root)
        for part in (str(root), "2.75 GB", "d4acdd33327262359767eeaa97a4f732", "2013b.tar.gz"):
            assert part in str(error.value)


def test_a_missing_class_list_is_named(copy):
    (copy / "families.txt").unlink()
    with pytest.raises(ValueError, match=r"families\.txt: cannot be read"):
        load(copy, level="family")
    (copy / "variants.txt").unlink()
    with pytest.raises(ValueError, match=r"no data/variants\.txt or variants\.txt in"):
        load(copy)


def test_the_images_of_another_data_set_are_not_taken(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "verify", lambda path, **expected: None)
    data_files.write_image(tmp_path / "images" / "1.jpg", data_files.picture(0, 0))
    with pytest.raises(ValueError, match="(?s)no data/variants.*d4acdd33327262359767eeaa97a4f732"):
        load(tmp_path)
    packed = tmp_path / "fgvc-aircraft-2013b.tar.gz"
    data_collections.pack(archive, packed, ["fgvc-aircraft-2013b"])
    assert load(tmp_path).facts() == load(archive).facts()


def test_photos_may_be_added_to_the_annotations(archive, copy, monkeypatch):
    monkeypatch.setattr(archives, "verify", lambda path, **expected: None)
    shutil.rmtree(copy / "images")
    home = copy.parent / "root"
    shutil.move(copy, home / "fgvc-aircraft-2013b" / "data")
    with pytest.raises(ValueError, match=r"no data/images/0034309\.jpg or images/0034309\.jpg in"):
        load(home)
    data_collections.pack(archive, home / "fgvc-aircraft-2013b.tar.gz", ["fgvc-aircraft-2013b"])
    assert load(home).splits["train"].read(0).shape == (48, 64, 3)


def test_a_missing_list_is_named(copy):
    (copy / "images_variant_val.txt").unlink()
    with pytest.raises(ValueError, match=r"images_variant_val\.txt: cannot be read"):
        load(copy)


def test_missing_photos_are_named(copy):
    (copy / "images" / "0034320.jpg").unlink()
    with pytest.raises(ValueError, match=r"train\.txt: 1 images are not in .*images: 0034320\.jpg"):
        load(copy)


def test_an_empty_list_is_named(copy):
    (copy / "images_variant_train.txt").write_text("")
    with pytest.raises(ValueError, match=r"images_variant_train\.txt: the list contains no images"):
        load(copy)


def test_a_photo_in_two_splits_is_named(copy):
    with open(copy / "images_variant_test.txt", "a") as file:
        file.write("0034309 707-320\n")
    with pytest.raises(ValueError, match=r"test\.txt: 1 images are listed twice, .*: 0034309\.jpg"):
        load(copy)


def test_wrong_lines_are_named(copy):
    path = copy / "images_variant_train.txt"
    text = path.read_text()
    path.write_text(text.replace("F/A-18", "F/A-19", 1))
    with pytest.raises(ValueError, match="1 unknown labels: F/A-19"):
        load(copy)
    path.write_text("0034309\n" + text)
    with pytest.raises(ValueError, match="1 lines too short: '0034309'"):
        load(copy)
    path.write_text(text)
    boxes = copy / "images_box.txt"
    lines = boxes.read_text().splitlines()
    boxes.write_text("\n".join(lines[1:]))
    with pytest.raises(ValueError, match="1 photos without a box: 0034309"):
        load(copy)
    boxes.write_text("\n".join(["0034309 1 2 3", *lines[1:]]))
    with pytest.raises(ValueError, match="1 lines too short: '0034309 1 2 3'"):
        load(copy)
