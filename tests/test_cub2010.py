"""CUB-200 of 2010: the official layout and the anonymised one of the homework."""

import pickle
import shutil

import numpy as np
import pytest

from fgc_jax.data.sources import cub2010
from tests import data_archives, data_benchmarks, data_files

HOMEWORK = "2021VRDL_HW1_datasets"


original, copy = data_files.fixtures(data_benchmarks.write_cub2010)


@pytest.fixture(scope="module")
def homework(tmp_path_factory):
    return data_benchmarks.write_homework(tmp_path_factory.mktemp("homework")) / HOMEWORK


@pytest.fixture
def homework_copy(homework, tmp_path):
    return shutil.copytree(homework, tmp_path / "homework")


def test_official_splits(original):
    data = cub2010.load(original)
    assert data.class_names == ("Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross")
    names = data_benchmarks.bird_names()
    assert list(data.splits["test"].names) == names[3::4]
    assert list(data.splits["train"].names) == [n for n in names if n not in names[3::4]]
    np.testing.assert_array_equal(data.splits["train"].labels, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(data.splits["test"].labels, [0, 1, 2])
    assert data.splits["test"].read(2).shape == (40, 48, 3)


def test_boxes_and_masks_are_read_when_asked_for(copy):
    broken = copy / "annotations-mat" / data_benchmarks.bird_names()[4].replace(".jpg", ".mat")
    content = broken.read_bytes()
    broken.write_bytes(content[:200])
    splits = pickle.loads(pickle.dumps(cub2010.load(copy).splits))
    with pytest.raises(ValueError, match=r"_0001_796111\.mat: damaged or not a MATLAB file"):
        _ = splits["train"].raw_boxes
    with pytest.raises(ValueError, match=r"_0001_796111\.mat: damaged or not a MATLAB file"):
        splits["train"].annotations["mask"](3)
    broken.write_bytes(content)
    raw = splits["train"].raw_boxes
    np.testing.assert_array_equal(raw[:3], [[0, 0, 48, 40], [10, 20, 50, 50], [5, 4, 25, 19]])
    np.testing.assert_array_equal(splits["train"].boxes[1], [10, 20, 48, 40])
    np.testing.assert_array_equal(splits["test"].raw_boxes[:, 0], [6, 10, 14])
    mask = splits["test"].annotations["mask"](1)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(data_benchmarks.bird_mask(7) > 51, 255, 0))


def test_annotations_are_not_needed(copy, original):
    shutil.rmtree(copy / "annotations-mat")
    data = cub2010.load(copy)
    assert data.facts() == cub2010.load(original).facts()
    assert data.splits["train"].boxes is None and not data.splits["train"].annotations


def test_homework_has_a_train_split_only(homework):
    data = cub2010.load(homework)
    assert list(data.splits) == ["train"] and data.class_names == data_benchmarks.BIRDS
    lines = (homework / "training_labels.txt").read_text().splitlines()
    train = data.splits["train"]
    shown = [f"{n} {data.class_names[k]}" for n, k in zip(train.names, train.labels, strict=True)]
    assert shown == lines and len(lines) == 9
    assert train.boxes is None and train.read(0).shape == (40, 48, 3)
    assert "homework" in data.notes


def test_homework_test_order(homework):
    folder, names = cub2010.test_order(homework.parent)
    assert folder == str(homework / "testing_images")
    assert sorted(names) == ["0004.jpg", "0008.jpg", "0012.jpg"] != names
    assert names == (homework / "testing_img_order.txt").read_text().split()


def test_the_homework_in_an_archive_of_another_name(homework, tmp_path):
    archive = data_archives.pack(homework.parent, tmp_path / "birds.zip", HOMEWORK)
    assert cub2010.load(archive).facts() == cub2010.load(homework).facts()
    assert cub2010.test_order(archive)[1] == cub2010.test_order(homework)[1]


def test_layouts(original, homework, homework_copy):
    assert cub2010.load(original, layout="official").facts() == cub2010.load(original).facts()
    assert cub2010.load(homework, layout="homework").facts() == cub2010.load(homework).facts()
    with pytest.raises(ValueError, match=r"no lists/train\.txt in") as error:
        cub2010.load(homework, layout="official")
    assert "679.42 MB" in str(error.value) and "VRDL_HW1_datasets.zip" not in str(error.value)
    with pytest.raises(ValueError, match=r"no training_labels\.txt in"):
        cub2010.load(original, layout="homework")
    with pytest.raises(ValueError, match=r"no testing_img_order\.txt in"):
        cub2010.test_order(original)
    shutil.copytree(original / "lists", homework_copy / "lists")
    shutil.copytree(original / "images", homework_copy / "images")
    assert list(cub2010.load(homework_copy).splits) == ["train", "test"]
    assert list(cub2010.load(homework_copy, layout="homework").splits) == ["train"]


def test_an_empty_list_is_named(copy):
    shutil.copy(copy / "lists" / "test.txt", copy / "lists" / "files.txt")
    (copy / "lists" / "train.txt").write_text("")
    with pytest.raises(ValueError, match=r"train\.txt: the list contains no images"):
        cub2010.load(copy)


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ({"left": 1.0, "top": 2.0, "right": 3.0}, r"796118\.mat: 'bbox' has no field 'bottom'"),
        ({"left": 1.0, "top": 2.0, "right": 3.0, "bottom": []}, r"1 bad boxes: '1\.0 2\.0 3\.0 "),
        ({"left": 9.0, "top": 2.0, "right": 3.0, "bottom": 8.0}, "1 empty boxes"),
        (7.0, "has no field 'left', 'top', 'right', 'bottom'"),
    ],
)
def test_bad_boxes_are_named(copy, box, says):
    name = data_benchmarks.bird_names()[1].replace(".jpg", ".mat")
    data_benchmarks.write_mat(copy / "annotations-mat" / name, bbox=box)
    split = cub2010.load(copy).splits["train"]
    with pytest.raises(ValueError, match=says):
        _ = split.boxes
    with pytest.raises(ValueError, match="there is no variable 'seg'"):
        split.annotations["mask"](1)


def test_a_damaged_test_order_is_named(homework_copy):
    order = homework_copy / "testing_img_order.txt"
    order.write_text("0004.jpg\n0001.jpg\n")
    with pytest.raises(ValueError, match=r"1 images are not in .*testing_images: 0001\.jpg"):
        cub2010.test_order(homework_copy)
    order.write_text("0004.jpg\n0004.jpg\n")
    with pytest.raises(ValueError, match=r"1 images are listed twice, .*: 0004\.jpg"):
        cub2010.test_order(homework_copy)
