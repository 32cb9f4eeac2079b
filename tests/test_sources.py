"""What holds of every official data set: its archives will do, and what is missing or damaged is
named."""

import dataclasses
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fgc_jax import data
from tests import data_archives, data_benchmarks, data_collections, data_files


@dataclasses.dataclass(frozen=True)
class Source:
    """A miniature of the data set `name`: what its archives hold, which files come unpacked, and
    folders of other data sets that may lie `beside` the archives."""

    name: str
    write: Callable
    archives: dict[str, tuple]
    plain: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    alone: bool = False  # whether the first archive will do as the root

    def load(self, root):
        return data.load(self.name, root, self.options)


def write_inaturalist(root):
    return data_collections.write_inaturalist(root, 2021)


LISTS = tuple(f"{name}_list.mat" for name in ("file", "train", "test"))
SOURCES = {
    "aircraft": Source(
        "aircraft",
        data_files.write_aircraft,
        {"fgvc-aircraft-2013b.tar.gz": ("fgvc-aircraft-2013b",)},
        beside=("fgvc-aircraft-2013b", "images"),
        alone=True,
    ),
    "cars": Source(
        "cars",
        data_benchmarks.write_cars,
        {f"{file}.tgz": (file,) for file in ("cars_train", "cars_test")}
        | {"car_devkit.tgz": ("devkit",)},
        ("cars_test_annos_withlabels.mat",),
        ("devkit",),
    ),
    "car_ims": Source(
        "cars", data_benchmarks.write_car_ims, {"car_ims.tgz": ("car_ims",)}, ("cars_annos.mat",)
    ),
    "cub": Source(
        "cub",
        data_benchmarks.write_cub,
        {
            "CUB_200_2011.tgz": ("CUB_200_2011", "attributes.txt"),
            "segmentations.tgz": ("segmentations",),
        },
        beside=("segmentations",),
        alone=True,
    ),
    "cub2010": Source(
        "cub2010",
        data_benchmarks.write_cub2010,
        {f"{file}.tgz": (file,) for file in ("images", "lists")}
        | {"annotations.tgz": ("annotations-mat",)},
        beside=("images", "lists"),
    ),
    "homework": Source(
        "cub2010",
        data_benchmarks.write_homework,
        {"2021VRDL_HW1_datasets.zip": ("2021VRDL_HW1_datasets",)},
        alone=True,
    ),
    "dogs": Source(
        "dogs",
        data_benchmarks.write_dogs,
        {"images.tar": ("Images",), "annotation.tar": ("Annotation",), "lists.tar": LISTS},
        beside=("Images", "Annotation"),
    ),
    "flowers": Source(
        "flowers",
        data_collections.write_flowers,
        {"102flowers.tgz": ("jpg",)},
        ("imagelabels.mat", "setid.mat"),
        ("jpg",),
    ),
    "food": Source(
        "food", data_collections.write_food, {"food-101.tar.gz": ("food-101",)}, alone=True
    ),
    "inaturalist": Source(
        "inaturalist",
        write_inaturalist,
        {f"{file}.tar.gz": (file,) for file in ("train", "val", "train.json", "val.json")},
        beside=("train", "val"),
        options={"year": 2021},
    ),
    "nabirds": Source(
        "nabirds", data_collections.write_nabirds, {"nabirds.tar.gz": ("nabirds",)}, alone=True
    ),
    "pets": Source(
        "pets",
        data_collections.write_pets,
        {f"{file}.tar.gz": (file,) for file in ("images", "annotations")},
        beside=("images", "annotations"),
    ),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return {name: each.write(tmp_path_factory.mktemp(name)) for name, each in SOURCES.items()}


@pytest.fixture
def copy(originals, name, tmp_path):
    return shutil.copytree(originals[name], tmp_path / "copy")


ROOTS = [(name, "folder") for name in SOURCES]
ROOTS += [(name, "archive") for name, source in SOURCES.items() if source.alone]


@pytest.mark.parametrize(("name", "given"), ROOTS)
def test_archives_beside_folders_of_the_same_names(originals, name, given, tmp_path, monkeypatch):
    data_archives.forget_checksums(monkeypatch)
    source, original = SOURCES[name], originals[name]
    packed = [data_archives.pack(original, tmp_path / x, *y) for x, y in source.archives.items()]
    for folder in source.beside:
        data_files.write_image(tmp_path / folder / "other.jpg", data_files.picture(0, 0))
    for file in source.plain:
        shutil.copy(original / file, tmp_path)
    expected, found = map(source.load, (original, tmp_path if given == "folder" else packed[0]))
    assert found.facts() == expected.facts()
    for split, wanted in expected.splits.items():
        mine = found.splits[split]
        np.testing.assert_array_equal(mine.boxes, wanted.boxes)
        np.testing.assert_array_equal(mine.read(1), wanted.read(1))
        assert mine.annotations.keys() == wanted.annotations.keys()
        for kind, annotation in wanted.annotations.items():
            np.testing.assert_array_equal(mine.annotations[kind](1), annotation(1))


GULL, LAYSAN = "001.Black_footed_Albatross/Black_Footed_Albatross", "002.Laysan_Albatross"
TWICE = "1 images are listed twice, or also in another split"
# In files of lists, `old` is replaced once by `new`; the empty `old` is the start of the file.
DAMAGED = {
    "aircraft": (
        ("images_variant_test.txt", "", "0034309 707-320\n", rf"test\.txt: {TWICE}: 0034309\.jpg"),
        ("images_variant_train.txt", "F/A-18", "F/A-19", "1 unknown labels: F/A-19"),
        ("images_variant_train.txt", "", "0034309\n", "1 lines too short: '0034309'"),
        ("images_box.txt", "0034309 ", "0034310 ", "1 photos without a box: 0034309"),
        ("images_box.txt", "", "0034309 1 2 3\n", "1 lines too short: '0034309 1 2 3'"),
    ),
    "cub": (
        ("images.txt", "9 ", "99 ", "ids are in only one of this list and images.txt: 9; 99"),
        ("images.txt", "_0001_", "_0009_", "1 images are not in .*images: 001.*_0009_796111.jpg"),
        ("image_class_labels.txt", "12 3", "12 4", "class_labels.txt: 1 unknown labels: 4"),
        ("image_class_labels.txt", "12 3", "12", "class_labels.txt: 1 lines too short: '12'"),
        ("train_test_split.txt", "12 1", "12 2", "train_test_split.txt: 1 unknown labels: 2"),
        ("train_test_split.txt", "12 1", "1 1", "train_test_split.txt: 1 ids listed twice: 1"),
        ("bounding_boxes.txt", "20.0 15.0", "20.0 nan", "1 bad boxes: '5.0 4.0 20.0 nan'"),
        ("bounding_boxes.txt", "20.0 15.0", "0.0 15.0", "1 empty boxes of the images: 3"),
        ("parts/part_locs.txt", "1 2 ", "1 3 ", "1 rows are out of order or not finite: 2"),
        ("parts/part_locs.txt", "1 2 4.0", "1 2 nan", "1 rows are out of order or not finite: 2"),
        ("parts/part_locs.txt", "1 2 4.0", "1 2 x", "locs.txt: cannot be read as numbers .*row 1"),
    ),
    "cub2010": (
        ("train.txt", f"{GULL}_0001_796111.jpg", "", "1 images are not in both .*0001_796111.jpg"),
        ("test.txt", "002.", "001.", "2 images are not in both"),
        ("files.txt", f"{GULL}_0001_796111.jpg", "", "1 images are not in both .*0001_796111.jpg"),
        ("test.txt", "", f"{GULL}_0001_796111.jpg\n", f"test.txt: {TWICE}: 001"),
        ("train.txt", "", f"{GULL}_0001_796111.jpg\n", f"train.txt: {TWICE}: 001"),
        ("classes.txt", "002.Lay", "002.Ley", f"train.txt: 1 unknown labels: {LAYSAN}"),
    ),
    "homework": (
        ("training_labels.txt", "", "0001.jpg 001.Gull\n", "1 ids listed twice: 0001.jpg"),
        ("training_labels.txt", "003.Sooty_", "003.", "1 unknown labels: 003.Albatross"),
        ("training_labels.txt", "0001.", "0099.", r"not in .*training_images: 0099\.jpg"),
    ),
    "food": (
        ("test.txt", "", "pizza/12\n", r"meta/test\.txt: 1 unknown labels: pizza"),
        ("test.txt", "", "12\n", r"meta/test\.txt: 1 unknown labels: "),
        ("test.txt", "", "apple_pie/1005649\n", rf"meta/test\.txt: {TWICE}: apple_pie/1005649"),
        ("test.txt", "", "takoyaki/12\n", r"test\.txt: 1 images are not in .*takoyaki/12.jpg"),
    ),
    "nabirds": (
        ("sizes.txt", " 60 48", " 60", r"sizes\.txt: 1 lines too short"),
        ("sizes.txt", " 60 48", " 60 wide", r"sizes\.txt: 1 lines with bad numbers"),
        ("bounding_boxes.txt", "0", "1", r"bounding_boxes\.txt: 1 images without a line: 0000"),
        ("train_test_split.txt", " 1\n", " 2\n", r"1 values that are not 0 or 1: 2"),
        ("image_class_labels.txt", " 817", " 818", r"1 classes without a name: 818"),
        ("hierarchy.txt", "22 0", "22 198", r"hierarchy\.txt: 1 classes above themselves"),
        ("classes.txt", "817 Bald", "299 Bald", r"classes\.txt: 1 ids listed twice: 299"),
        ("images.txt", "0817/", "0818/", r"1 images are not in .*0818/"),
    ),
    "pets": tuple(
        ("test.txt", "", f"{line}\n", rf"annotations/test\.txt: {says}")
        for line, says in (
            ("Abyssinian_9 1 1", "1 lines too short: 'Abyssinian_9 1 1'"),
            ("Abyssinian_9 one 1 1", "1 lines with bad numbers"),
            ("Abyssinian_9 0 1 1", "1 photos of unknown classes or species: Abyssinian_9"),
            ("Abyssinian_9 1 3 1", "1 photos of unknown classes or species: Abyssinian_9"),
            ("Abyssinian_9 1 2 1", r"1 photos of another breed .*_9 \(class 1 is Abyssinian\)"),
            ("Bengal_9 1 1 1", r"1 photos of another breed .*_9 \(class 1 is Abyssinian\)"),
            ("Bengal_9 5 1 1", "1 class numbers without a photo: 4"),
            ("Abyssinian_4 1 1 1", "1 ids listed twice: Abyssinian_4"),
            ("Abyssinian_1 1 1 1", rf"{TWICE}: Abyssinian_1\.jpg"),
            ("Abyssinian_9 1 1 1", r"1 images are not in .*: Abyssinian_9\.jpg"),
        )
    ),
}
# Where they lie, below the root.
FOLDERS = {
    "aircraft": "fgvc-aircraft-2013b/data",
    "cub": "CUB_200_2011",
    "cub2010": "lists",
    "homework": "2021VRDL_HW1_datasets",
    "food": "food-101/meta",
    "nabirds": "nabirds",
    "pets": "annotations",
}


def rows(table):
    return [(name, *row) for name, rows in table.items() for row in rows]


@pytest.mark.parametrize(("name", "file", "old", "new", "says"), rows(DAMAGED))
def test_damaged_lists_are_named(copy, name, file, old, new, says):
    path = copy / FOLDERS[name] / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=says):
        SOURCES[name].load(copy)


EMPTY = [
    ("aircraft", "images_variant_train.txt"),
    ("cub", "parts/part_locs.txt"),
    ("pets", "trainval.txt"),
    ("pets", "test.txt"),
]


@pytest.mark.parametrize(("name", "file"), EMPTY)
def test_empty_lists_are_named(copy, name, file):
    (copy / FOLDERS[name] / file).write_text("")
    with pytest.raises(ValueError, match=f"{file}: (the list contains no images|0 rows)"):
        SOURCES[name].load(copy)


MASK = f"{GULL}_0004_796132.png"
SHEEPDOG = "n02105855-Shetland_sheepdog/n02105855_4441"
AIRCRAFT = "fgvc-aircraft-2013b/data"
CARS = "b0a2b23655a3edd16d84508592a98d10"
FLOWERS = "344.86 MB.*a5357ecc9cb78c4bef"
PETS = "791.92 MB.*95a8c909bbe2e81eed6a22"
# A file or folder that is not there, and the message: what to get, or the list that names it.
REMOVED = {
    "aircraft": (
        ("fgvc-aircraft-2013b", r"no data/variants\.txt or variants\.txt .*2013b\.tar\.gz"),
        (f"{AIRCRAFT}/images", "no data/images/0034309.jpg .*2.75 GB, md5 d4acdd333272623"),
        (f"{AIRCRAFT}/images/0034320.jpg", r"train\.txt: 1 images are not in .*34320\.jpg"),
        (f"{AIRCRAFT}/images_variant_val.txt", r"variant_val\.txt: cannot be read"),
    ),
    "cars": (
        ("devkit", rf"no devkit/.* in .*{CARS}"),
        ("cars_train", rf"no cars_train/.* in .*{CARS}"),
        ("cars_test", rf"no cars_test/.* in .*{CARS}"),
        ("devkit/cars_meta.mat", r"devkit/cars_meta\.mat: cannot be read"),
        ("cars_test_annos_withlabels.mat", rf"no cars_test_.* or devkit/cars_test_.* in .*{CARS}"),
        ("cars_test/00003.jpg", r"withlabels\.mat: 1 images are not in .*: cars_test/00003\.jpg"),
    ),
    "car_ims": (("car_ims/000009.jpg", r"cars_annos\.mat: 1 images are not in .*/000009\.jpg"),),
    "cub": (
        ("CUB_200_2011", r"no images\.txt in .*CUB_200_2011\.tgz.*97eceeb196236b17998738112f37"),
        ("CUB_200_2011/classes.txt", r"classes\.txt: cannot be read"),
        ("CUB_200_2011/bounding_boxes.txt", r"bounding_boxes\.txt: cannot be read"),
        ("CUB_200_2011/parts/parts.txt", r"parts/parts\.txt: cannot be read"),
        (f"segmentations/{MASK}", r"1 images are not in .*segmentations: .*796132\.png"),
        (f"CUB_200_2011/images/{GULL}_0004_796132.jpg", r"1 images are not in .*796132\.jpg"),
    ),
    "cub2010": (
        ("images", r"no images/001.*679\.42 MB.*save them as images\.tgz"),
        ("lists/files.txt", r"files\.txt: cannot be read"),
        (f"annotations-mat/{GULL}_0002_796118.mat", r"1 images are not in .*-mat: .*18\.mat"),
        (f"images/{GULL}_0002_796118.jpg", r"train\.txt: 1 images are not in .*796118\.jpg"),
    ),
    "dogs": (
        ("Images", "no Images/.* in .*1bb1f2a596ae7057f99d7d75860002ef"),
        ("Annotation", "no Annotation/.* in .*4298cc0031f6bc6e74612ac83b5988e2"),
        ("train_list.mat", r"no train_list\.mat in .*edbb9f16854ec66506b5f09b583e0656"),
        ("test_list.mat", r"test_list\.mat: cannot be read"),
        *(
            (f"{folder}/{file}", rf"train_list\.mat: 1 images are not in .*{folder}: {file}$")
            for folder, file in (("Annotation", SHEEPDOG), ("Images", f"{SHEEPDOG}.jpg"))
        ),
    ),
    "flowers": (
        ("jpg", f"no jpg/.* in .*{FLOWERS}"),
        ("imagelabels.mat", f"no imagelabels.mat in .*{FLOWERS}"),
        ("setid.mat", f"no setid.mat in .*{FLOWERS}"),
        ("jpg/image_00104.jpg", r"setid\.mat: 1 images are not in .*image_00104"),
    ),
    "food": (
        ("food-101", r"food-101\.tar\.gz.*5\.00 GB, md5 85eeb15f3717b99a5da872d97d918f87"),
        ("food-101/meta/train.txt", r"train\.txt: cannot be read"),
    ),
    "inaturalist": (
        ("train.json", r"^(?!.*train_mini).*no train\.json in .*38a7bb733f7a0921.*224 GB"),
    ),
    "nabirds": (
        ("nabirds", "md5 df21a9e4db349a14e2b08adfd45873bd.*9.8 GB.*dl.allaboutbirds.org/nabirds"),
        ("nabirds/sizes.txt", r"sizes\.txt: cannot be read"),
    ),
    "pets": tuple((folder, f"no {folder}/.* in .*{PETS}") for folder in ("images", "annotations")),
}


@pytest.mark.parametrize(("name", "path", "says"), rows(REMOVED))
def test_what_is_missing_is_named(copy, name, path, says):
    path = copy / path
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ValueError, match=f"(?s){says}") as error:
        SOURCES[name].load(copy)
    assert str(copy) in str(error.value)
