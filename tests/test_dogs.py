"""Stanford Dogs: lists in MATLAB files, an annotation file a picture, and what damaged ones say."""

import pickle

import numpy as np
import pytest

from fgc_jax.data.sources import dogs
from tests import data_benchmarks, data_files

SIZE = data_benchmarks.SIZE


original, copy = data_files.fixtures(data_benchmarks.write_dogs)


def converted(i):
    return [(x0, y0, x1 + 1, y1 + 1) for x0, y0, x1, y1 in data_benchmarks.dog_boxes(i)]


def test_splits_labels_and_names(original):
    data = dogs.load(original)
    assert data.class_names == ("Chihuahua", "Shetland_sheepdog", "miniature_pinscher")
    train, test = data.splits["train"], data.splits["test"]
    np.testing.assert_array_equal(train.labels, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(test.labels, [0, 1, 2])
    assert train.names[0] == "n02085620-Chihuahua/n02085620_5927.jpg"
    assert test.names[2] == "n02107312-miniature_pinscher/n02107312_1916.jpg"
    assert "ImageNet" in data.licence and "training set" in data.imagenet_overlap


def test_the_largest_dog_and_all_of_them(original):
    train = pickle.loads(pickle.dumps(dogs.load(original).splits["train"]))
    for k, i in enumerate((0, 1, 2, 4, 5)):
        objects = train.annotations["objects"](k)
        assert objects.dtype == np.float32
        np.testing.assert_array_equal(objects, converted(i))
    largest = [converted(i)[1 if i == 1 else 0] for i in range(12) if i % 4 != 3]
    np.testing.assert_array_equal(train.boxes, largest)
    assert tuple(train.boxes[1]) == (0, 0, *SIZE)


def test_the_png_with_a_name_in_jpg(original):
    split = dogs.load(original).splits["train"]
    path = original / "Images" / split.names[3]
    assert path.suffix == ".jpg" and path.read_bytes().startswith(b"\x89PNG")
    image = split.read(3)
    assert image.shape == (40, 48, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, data_files.picture(1, 4, SIZE, 3))  # alpha dropped
    np.testing.assert_array_equal(split.boxes[3], converted(4)[0])  # its size is known


def test_boxes_beyond_the_picture_are_clipped(copy):
    xml = copy / "Annotation" / data_benchmarks.DOGS[0] / "n02085620_5927"
    xml.write_text(data_benchmarks.dog_xml("n02085620_5927", "Chihuahua", [(0, 0, 60, 41)]))
    split = dogs.load(copy).splits["train"]
    np.testing.assert_array_equal(split.raw_boxes[0], [0, 0, 61, 42])
    np.testing.assert_array_equal(split.boxes[0], [0, 0, *SIZE])
    np.testing.assert_array_equal(split.annotations["objects"](0), [[0, 0, 61, 42]])


def test_a_picture_without_objects_has_no_box(copy):
    xml = copy / "Annotation" / data_benchmarks.DOGS[0] / "n02085620_5927"
    xml.write_text(data_benchmarks.dog_xml("n02085620_5927", "Chihuahua", []))
    split = dogs.load(copy).splits["train"]
    assert np.isnan(split.boxes[0]).all() and np.isfinite(split.boxes[1:]).all()
    assert split.annotations["objects"](0).shape == (0, 4)


KAGGLE = {"Images": "images/Images", "Annotation": "annotations/Annotation"}
LISTS = {f"{name}_list.mat": f"lists/{name}_list.mat" for name in ("train", "test")}


@pytest.mark.parametrize("where", [KAGGLE, LISTS, KAGGLE | LISTS])
def test_folders_one_level_deeper(copy, original, where):
    for old, new in where.items():
        (copy / new).parent.mkdir(exist_ok=True)
        (copy / old).rename(copy / new)
    data = dogs.load(copy)
    assert data.facts() == dogs.load(original).facts()
    np.testing.assert_array_equal(data.splits["test"].boxes, [converted(i)[0] for i in (3, 7, 11)])


def test_damaged_annotations_are_named_when_read(copy):
    xml = copy / "Annotation" / data_benchmarks.DOGS[0] / "n02085620_4441"
    xml.write_text(xml.read_text()[:150])
    split = dogs.load(copy).splits["train"]
    with pytest.raises(ValueError, match="n02085620_4441: .*not XML"):
        _ = split.raw_boxes
    with pytest.raises(ValueError, match="n02085620_4441: .*not XML"):
        split.annotations["objects"](1)
    assert split.read(1).shape == (40, 48, 3)


def test_damaged_lists_are_named(copy):
    path = copy / "test_list.mat"
    names = [f"{folder}/{folder[:9]}_1916.jpg" for folder in data_benchmarks.DOGS]
    write = data_benchmarks.write_dog_list
    for given, labels, says in (
        (names, [1, 2], "test_list.mat: 3 images, but 2 labels"),
        ([], [], "test_list.mat: 0 images, but 0 labels"),
        (names, [1, 2, 4], "4 pairs of 4 labels and 3 folders"),
        (names, [1, 2, 2], "4 pairs of 3 labels and 3 folders"),
        ([*names, names[0]], [1, 2, 3, 1], "test_list.mat: 1 images are listed twice, or"),
        (
            [names[0].replace("1916", "5927")],
            [1],
            "test_list.mat: 1 images are listed twice, or",
        ),
        ([*names[:2], names[2].replace("n02107312-", "n1-")], [1, 2, 3], "3 labels and 4 folders"),
    ):
        write(path, given, labels)
        with pytest.raises(ValueError, match=says):
            dogs.load(copy)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ValueError, match=r"test_list\.mat: (damaged|there is no)"):
        dogs.load(copy)
    data_benchmarks.write_mat(path, labels=np.array([[1]]))
    with pytest.raises(ValueError, match=r"test_list\.mat: there is no variable 'file_list'"):
        dogs.load(copy)


def test_a_test_list_of_one_picture(copy):
    """MATLAB knows no scalars: one picture is a matrix like many."""
    name = f"{data_benchmarks.DOGS[1]}/n02105855_1916.jpg"
    data_benchmarks.write_dog_list(copy / "test_list.mat", [name], [2])
    test = dogs.load(copy).splits["test"]
    assert list(test.names) == [name] and list(test.labels) == [1]


def test_synsets_stay_where_breeds_collide(tmp_path, monkeypatch):
    monkeypatch.setattr(data_benchmarks, "DOGS", ("n01-collie", "n02-collie", "n03-pug"))
    data = dogs.load(data_benchmarks.write_dogs(tmp_path))
    assert data.class_names == ("n01-collie", "n02-collie", "n03-pug")
