"""CUB-200-2011: labels, boxes, parts and masks of the official files, and what damaged ones say."""

import pickle
import shutil

import numpy as np
import pytest

from fgc_jax.data import boxes
from fgc_jax.data.sources import cub
from tests import data_benchmarks


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return data_benchmarks.write_cub(tmp_path_factory.mktemp("cub"))


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy")


@pytest.fixture(scope="module")
def data(original):
    return cub.load(original)


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_splits_labels_and_names(data):
    names = data_benchmarks.bird_names()
    assert data.class_names == ("Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross")
    assert list(data.splits) == ["train", "test"]
    for split, first in (("train", 1), ("test", 0)):
        assert list(data.splits[split].names) == names[first::2]
        np.testing.assert_array_equal(data.splits[split].labels, [0, 0, 1, 1, 2, 2])
    assert "Flickr" in data.licence and "5,794" in data.imagenet_overlap


def test_boxes_are_corners_and_clipped_only_in_boxes(data):
    raw = data.splits["train"].raw_boxes  # ids 2, 4, 6, ...
    np.testing.assert_array_equal(raw[0], [10, 20, 50, 50])
    np.testing.assert_array_equal(data.splits["train"].boxes[0], [10, 20, 48, 40])
    np.testing.assert_array_equal(raw[1:, 0], [6, 8, 10, 12, 14])
    np.testing.assert_array_equal(raw[1:, 2] - raw[1:, 0], 20)
    np.testing.assert_array_equal(data.splits["test"].boxes[0], [0, 0, 48, 40])


def test_grey_photos_are_read_as_rgb(data):
    image = data.splits["train"].read(2)  # image 6 is a grey JPEG
    assert image.shape == (40, 48, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_parts_and_masks(data):
    assert data.part_names == data_benchmarks.PARTS
    for split, first in (("train", 1), ("test", 0)):
        annotations = pickle.loads(pickle.dumps(data.splits[split])).annotations
        for k in range(6):
            i = 2 * k + first
            points = [data_benchmarks.bird_point(i, part) for part in range(1, 16)]
            assert annotations["parts"](k).dtype == np.float32
            np.testing.assert_array_equal(annotations["parts"](k), points)
            mask = annotations["mask"](k)
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, data_benchmarks.bird_mask(i))


def test_works_with_box_crops(data):
    cropped = boxes.with_box_crops(data, ["train"])
    assert cropped.splits["train"].read(1).shape == (15, 20, 3)


@pytest.mark.parametrize("below", [".", "CUB_200_2011"])
def test_parts_and_masks_are_not_needed(root, data, below):
    shutil.rmtree(root / "segmentations")
    shutil.rmtree(root / "CUB_200_2011" / "parts")
    bare = cub.load(root / below)
    assert bare.part_names == () and not bare.splits["train"].annotations
    assert bare.facts() == data.facts()


def test_masks_may_lie_inside(root):
    (root / "segmentations").rename(root / "CUB_200_2011" / "segmentations")
    mask = cub.load(root).splits["test"].annotations["mask"](0)
    np.testing.assert_array_equal(mask, data_benchmarks.bird_mask(0))


@pytest.mark.parametrize("given", ["folder", "archive"])
def test_archives(original, data, tmp_path, unchecked, given):
    archive = data_benchmarks.pack(
        original, tmp_path / "CUB_200_2011.tgz", "CUB_200_2011", "attributes.txt"
    )
    data_benchmarks.pack(original, tmp_path / "segmentations.tgz", "segmentations")
    (tmp_path / "segmentations" / "others").mkdir(parents=True)  # of another data set
    loaded = cub.load(archive if given == "archive" else tmp_path)
    assert loaded.facts() == data.facts()
    mask = loaded.splits["test"].annotations["mask"](1)
    np.testing.assert_array_equal(mask, data_benchmarks.bird_mask(2))


@pytest.fixture
def unchecked(monkeypatch):
    """The miniatures are not the official files: no sizes, no checksums."""
    data_benchmarks.forget_checksums(monkeypatch)


def test_an_archive_that_is_not_the_official_one_is_refused(original, tmp_path):
    data_benchmarks.pack(original, tmp_path / "CUB_200_2011.tgz", "CUB_200_2011")
    with pytest.raises(ValueError, match=r"CUB_200_2011\.tgz"):
        cub.load(tmp_path)
    assert not (tmp_path / "CUB_200_2011").exists()


def test_missing_data_say_what_to_get(tmp_path):
    with pytest.raises(ValueError) as error:
        cub.load(tmp_path)
    for part in (
        str(tmp_path),
        "CUB_200_2011.tgz",
        "97eceeb196236b17998738112f37df78",
        "images.txt",
    ):
        assert part in str(error.value)


LISTS = (
    ("images.txt", "9 ", "99 ", "ids are in only one of this list and images.txt: 9; 99"),
    ("images.txt", "_0001_", "_0009_", "1 images are not in .*images: 001.*_0009_796111.jpg"),
    ("image_class_labels.txt", "12 3", "12 4", "image_class_labels.txt: 1 unknown labels: 4"),
    ("image_class_labels.txt", "12 3", "12", "image_class_labels.txt: 1 lines too short: '12'"),
    ("train_test_split.txt", "12 1", "12 2", "train_test_split.txt: 1 unknown labels: 2"),
    ("train_test_split.txt", "12 1", "1 1", "train_test_split.txt: 1 ids listed twice: 1"),
    ("bounding_boxes.txt", "20.0 15.0", "20.0 nan", "1 bad boxes: '5.0 4.0 20.0 nan'"),
    ("bounding_boxes.txt", "20.0 15.0", "0.0 15.0", "1 empty boxes of the images: 3"),
    ("parts/part_locs.txt", "1 2 ", "1 3 ", "1 rows are out of order or not finite: 2"),
    ("parts/part_locs.txt", "1 2 4.0", "1 2 nan", "1 rows are out of order or not finite: 2"),
    ("parts/part_locs.txt", "1 2 4.0", "1 2 x", "locs.txt: cannot be read as numbers .*'x'.*row 1"),
)


@pytest.mark.parametrize(("file", "old", "new", "says"), LISTS)
def test_damaged_lists_are_named(root, file, old, new, says):
    replace(root / "CUB_200_2011" / file, old, new)
    with pytest.raises(ValueError, match=says):
        cub.load(root)


@pytest.mark.parametrize("file", ["classes.txt", "bounding_boxes.txt", "parts/parts.txt"])
def test_missing_lists_are_named(root, file):
    (root / "CUB_200_2011" / file).unlink()
    with pytest.raises(ValueError, match=f"{file}: cannot be read"):
        cub.load(root)


@pytest.mark.parametrize(
    "file",
    ["images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"]
    + ["parts/part_locs.txt"],
)
def test_lists_that_are_cut_short_are_refused(root, file):
    path = root / "CUB_200_2011" / file
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(
        ValueError, match="only one of this list|179 rows of 5 numbers, not 15 rows of 5 for"
    ):
        cub.load(root)


def test_an_empty_list_of_parts_is_named(root):
    (root / "CUB_200_2011" / "parts" / "part_locs.txt").write_text("")
    with pytest.raises(ValueError, match=r"part_locs\.txt: 0 rows"):
        cub.load(root)


def test_missing_photos_and_masks_are_named(root):
    name = data_benchmarks.bird_names()[3]
    mask = root / "segmentations" / name.replace(".jpg", ".png")
    mask.write_bytes(b"")
    with pytest.raises(ValueError, match=r"0004_796132\.png: not an image"):
        cub.load(root).splits["train"].annotations["mask"](1)
    mask.unlink()
    with pytest.raises(ValueError, match=r"1 images are not in .*segmentations: .*796132\.png"):
        cub.load(root)
    (root / "CUB_200_2011" / "images" / name).unlink()
    with pytest.raises(ValueError, match=r"images\.txt: 1 images are not in .*796132\.jpg"):
        cub.load(root)


def test_names_keep_their_numbers_where_they_would_collide():
    assert cub.readable(["001.Gull", "002.Tern"]) == ("Gull", "Tern")
    assert cub.readable(["001.Gull", "002.Gull"]) == ("001.Gull", "002.Gull")
