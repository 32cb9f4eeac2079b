"""Oxford-IIIT Pets: breeds and species, head boxes, trimaps, photos in other formats."""

import dataclasses
import pickle
import shutil

import numpy as np
import pytest

from fgc_jax.data import archives
from fgc_jax.data.sources import pets
from tests import data_collections, data_files


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return data_collections.write_pets(tmp_path_factory.mktemp("pets"))


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root, tmp_path / "oxford-iiit-pet")


def test_official_splits(root):
    dataset = pets.load(root)
    assert dataset.class_names == ("Abyssinian", "american_bulldog", "Maine_Coon")
    assert dataset.hierarchy == (("cat",), ("dog",), ("cat",))
    train, test = dataset.splits["train"], dataset.splits["test"]
    np.testing.assert_array_equal(train.labels, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert list(test.names[:3]) == [
        "Abyssinian_4.jpg",
        "Abyssinian_5.jpg",
        "american_bulldog_4.jpg",
    ]
    assert "trainval" in dataset.notes and "heads" in dataset.notes


def test_heads(root):
    splits = pets.load(root).splits
    train = splits["train"].boxes
    np.testing.assert_array_equal(train[[0, 1, 3]], [[4, 5, 20, 30]] * 3)
    assert np.isnan(train[[2, 5, 8]]).all()
    assert splits["test"].boxes is None


def test_of_two_heads_the_larger(copy):
    path = copy / "annotations" / "xmls" / "Abyssinian_1.xml"
    text = path.read_text()
    start, end = text.index("<object>"), text.index("</annotation>")
    small = text[start:end].replace("<xmax>20", "<xmax>7")
    path.write_text(text[:start] + small + text[start:])
    np.testing.assert_array_equal(pets.load(copy).splits["train"].boxes[0], [4, 5, 20, 30])


def test_trimaps(root):
    split = pickle.loads(pickle.dumps(pets.load(root).splits["test"]))
    mask = split.annotations["mask"](0)
    assert mask.shape == split.read(0).shape[:2] and mask.dtype == np.uint8
    np.testing.assert_array_equal(
        mask[20, [0, 8, 9, 10, 39, 40, 41]], [0, 0, 128, 255, 255, 128, 0]
    )


def test_a_png_called_jpg_is_read_without_its_alpha(root):
    image = pets.load(root).splits["train"].read(0)
    np.testing.assert_array_equal(image, data_files.picture(1, 1, (50, 40), 3))


def test_the_index_opens_neither_photos_nor_heads(copy):
    shutil.rmtree(copy / "annotations" / "trimaps")
    for path in [*(copy / "images").iterdir(), *(copy / "annotations" / "xmls").iterdir()]:
        path.write_bytes(b"<")
    split = pets.load(copy).splits["train"]
    with pytest.raises(ValueError, match=r"xmls/Abyssinian_1\.xml: not XML"):
        _ = split.boxes
    with pytest.raises(ValueError, match=r"images/Abyssinian_1\.jpg"):
        split.read(0)
    with pytest.raises(ValueError, match=r"trimaps/Abyssinian_1\.png: cannot be read"):
        split.annotations["mask"](0)


def test_heads_may_be_absent(copy):
    shutil.rmtree(copy / "annotations" / "xmls")
    assert pets.load(copy).splits["train"].boxes is None


def test_the_archives_will_do(root, tmp_path, monkeypatch):
    parts = {}
    for archive in pets.ARCHIVES:
        top = archive.creates.partition("/")[0]
        path = data_collections.pack(root, tmp_path / archive.file, [top])
        (tmp_path / top).mkdir()  # of another data set, with a picture of its own
        (tmp_path / top / "other.jpg").write_bytes(b"other")
        parts[archive.file] = archives.checksum(path, "md5")
    small = [
        dataclasses.replace(archive, size=0, md5=parts[archive.file], sha256="")
        for archive in pets.ARCHIVES
    ]
    monkeypatch.setattr(pets, "ARCHIVES", tuple(small))
    assert pets.load(str(tmp_path)).facts() == pets.load(root).facts()


@pytest.mark.parametrize("missing", ["images", "annotations"])
def test_missing_data_say_what_to_get(copy, missing):
    shutil.rmtree(copy / missing)
    with pytest.raises(ValueError, match=f"no {missing}.* in .*oxford-iiit-pet") as error:
        pets.load(copy)
    assert "791.92 MB" in str(error.value) and "95a8c909bbe2e81eed6a22" in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Abyssinian_9 1 1", "1 lines too short: 'Abyssinian_9 1 1'"),
        ("Abyssinian_9 one 1 1", "1 lines with bad numbers"),
        ("Abyssinian_9 0 1 1", "1 photos of unknown classes or species: Abyssinian_9"),
        ("Abyssinian_9 1 3 1", "1 photos of unknown classes or species: Abyssinian_9"),
        ("Abyssinian_9 1 2 1", r"1 photos of another breed .*: Abyssinian_9 \(class 1 is Abys"),
        ("Bengal_9 1 1 1", r"1 photos of another breed .*: Bengal_9 \(class 1 is Abyssinian\)"),
        ("Bengal_9 5 1 1", "1 class numbers without a photo: 4"),
        ("Abyssinian_4 1 1 1", "1 ids listed twice: Abyssinian_4"),
        (
            "Abyssinian_1 1 1 1",
            r"1 images are listed twice, .*: Abyssinian_1\.jpg",
        ),
        ("Abyssinian_9 1 1 1", r"1 images are not in .*: Abyssinian_9\.jpg"),
    ],
)
def test_damaged_lists_are_named(copy, line, message):
    with open(copy / "annotations" / "test.txt", "a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=rf"annotations/test\.txt: {message}"):
        pets.load(copy)


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_an_empty_list_is_named(copy, split):
    (copy / "annotations" / f"{split}.txt").write_text("")
    with pytest.raises(ValueError, match=rf"{split}\.txt: the list contains no images"):
        pets.load(copy)


def test_a_damaged_trimap_is_named(copy):
    path = copy / "annotations" / "trimaps" / "Abyssinian_1.png"
    data_files.write_image(path, np.full((4, 5), 7, np.uint8))
    mask = pets.load(copy).splits["train"].annotations["mask"]
    with pytest.raises(ValueError, match=r"Abyssinian_1\.png: not a trimap, .* \[7\]"):
        mask(0)
