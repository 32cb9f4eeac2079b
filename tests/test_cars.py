"""Stanford Cars: both packings, the nested copy, and renumbered files."""

import shutil

import numpy as np
import pytest
from scipy import io

from fgc_jax.data.sources import cars
from tests import data_benchmarks, data_files

TRAIN = "devkit/cars_train_annos.mat"
TEST = "cars_test_annos_withlabels.mat"


original, copy = data_files.fixtures(data_benchmarks.write_cars)


@pytest.fixture
def one_folder(tmp_path):
    return data_benchmarks.write_car_ims(tmp_path / "ims")


def rewrite(path, change):
    """Applies `change` to the rows (tuples of fields) of the struct array in a .mat file."""
    found = io.loadmat(path, squeeze_me=True)
    table = found["annotations"]
    rows = change([tuple(row) for row in np.atleast_1d(table)])
    more = {"class_names": found["class_names"]} if "class_names" in found else {}
    data_benchmarks.write_mat(
        path, annotations=data_benchmarks.structs(table.dtype.names, rows), **more
    )


def corners(*numbers):
    """What the boxes of these cars should be: from 0, half-open."""
    boxes = [data_benchmarks.car_box(i) for i in numbers]
    return np.array([(x0 - 1, y0 - 1, x1, y1) for x0, y0, x1, y1 in boxes])


def test_two_folders(original):
    data = cars.load(original)
    assert data.class_names == data_benchmarks.CARS
    train, test = data.splits["train"], data.splits["test"]
    assert list(train.names) == [f"cars_train/{k:05d}.jpg" for k in range(1, 7)]
    assert list(test.names) == [f"cars_test/{k:05d}.jpg" for k in range(1, 4)]
    np.testing.assert_array_equal(train.labels, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(test.labels, [0, 1, 2])
    assert data.class_names[train.labels[1]] == "Ram C/V Cargo Van Minivan 2012"
    np.testing.assert_array_equal(train.boxes, corners(*range(6)))
    np.testing.assert_array_equal(test.boxes, corners(6, 7, 8))
    np.testing.assert_array_equal(train.boxes[0], [0, 0, 48, 40])  # 1 1 48 40: all of it


def test_one_folder(one_folder, original):
    data, other = cars.load(one_folder), cars.load(original)
    assert data.class_names == other.class_names
    train, test = data.splits["train"], data.splits["test"]
    assert list(train.names) == [f"car_ims/{k:06d}.jpg" for k in (2, 3, 5, 6, 8, 9)]
    assert list(test.names) == [f"car_ims/{k:06d}.jpg" for k in (1, 4, 7)]
    np.testing.assert_array_equal(train.boxes, corners(*range(6)))
    np.testing.assert_array_equal(test.boxes, corners(6, 7, 8))
    for split in ("train", "test"):
        np.testing.assert_array_equal(data.splits[split].labels, other.splits[split].labels)
        for i in range(len(data.splits[split])):
            images = [d.splits[split].read(i) for d in (data, other)]
            np.testing.assert_array_equal(*images)


def test_nested_folders(tmp_path, original):
    nested = data_benchmarks.write_cars(tmp_path, nested=True)
    assert (nested / "cars_train" / "cars_train" / "00001.jpg").is_file()
    data = cars.load(nested)
    assert data.facts() == cars.load(original).facts()
    assert data.splits["test"].read(0).shape == (40, 48, 3)


def test_test_labels_may_lie_in_the_devkit(copy, original):
    (copy / TEST).rename(copy / "devkit" / TEST)
    assert cars.load(copy).facts() == cars.load(original).facts()


def test_the_list_of_the_other_packing_is_refused(one_folder, original, tmp_path):
    (one_folder / "car_ims").rename(tmp_path / "away")
    shutil.copytree(original / "cars_train", one_folder / "cars_train")
    with pytest.raises(ValueError, match=r"(?s)no devkit/.*Use cars_annos\.mat with car_ims only"):
        cars.load(one_folder)


def test_renumbered_copies_are_refused(copy):
    shutil.copy(copy / "cars_test" / "00001.jpg", copy / "cars_test" / "00004.jpg")
    with pytest.raises(ValueError, match=r"1 images of .* are not in.*renum.*cars_test/00004\.jpg"):
        cars.load(copy)


def test_the_list_without_labels_is_refused(copy):
    shutil.copy(copy / "devkit" / "cars_test_annos.mat", copy / TEST)
    with pytest.raises(ValueError, match=rf"{TEST}: 'annotations' has no field 'class'"):
        cars.load(copy)


DAMAGES = (
    (lambda rows: [*rows, rows[0]], "1 images are listed twice, .*: cars_train/00001.jpg"),
    (lambda rows: [(*rows[0][:4], 4, rows[0][5]), *rows[1:]], "class outside of 1 to 3: .*01.jpg"),
    (lambda rows: [(*rows[0][:4], 0, rows[0][5]), *rows[1:]], "class outside of 1 to 3: .*01.jpg"),
    (lambda rows: [(*rows[0][:4], 1.5, rows[0][5]), *rows[1:]], "1 bad numbers: '1.5 1 1 48 40'"),
    (lambda rows: [(50, *rows[0][1:]), *rows[1:]], "1 images with an empty box: .*/00001.jpg"),
    (lambda rows: [("x", *rows[0][1:]), *rows[1:]], "1 bad numbers: '1 x 1 48 40'"),
    (lambda rows: [], "the list contains no images"),
    (lambda rows: rows[:-1], r"1 images of .* are not in this list"),
)


@pytest.mark.parametrize(("change", "says"), DAMAGES)
def test_damaged_lists_are_named(copy, change, says):
    rewrite(copy / TRAIN, change)
    with pytest.raises(ValueError, match=rf"cars_train_annos\.mat: .*{says}"):
        cars.load(copy)


def test_an_empty_list_is_named(one_folder):
    rewrite(one_folder / "cars_annos.mat", lambda rows: [])
    with pytest.raises(ValueError, match=r"cars_annos\.mat: the list contains no images"):
        cars.load(one_folder)


def test_a_bad_test_flag_is_named(one_folder):
    rewrite(one_folder / "cars_annos.mat", lambda rows: [(*rows[0][:6], 2), *rows[1:]])
    with pytest.raises(ValueError, match="1 images with a test flag .*: car_ims/000001"):
        cars.load(one_folder)
