"""iNaturalist: four years' indices, their classes and boxes, and what is said of damaged ones."""

import json
import pickle
import shutil

import numpy as np
import pytest

from fgc_jax.data import splitting
from fgc_jax.data.sources import inaturalist
from tests import data_archives, data_collections

YEARS = (2017, 2018, 2019, 2021)
NAMES = {
    2017: ("Ficus variegata (Plantae)", "Ficus variegata (Mollusca)", "Haemorhous mexicanus"),
    2021: ("Ficus variegata (Plantae)", "Ficus variegata (Animalia)", "Haemorhous mexicanus"),
}
FULL = ("P", "C", "O", "F")


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    top = tmp_path_factory.mktemp("inaturalist")
    return {y: data_collections.write_inaturalist(top / str(y), y, boxes=y == 2017) for y in YEARS}


@pytest.fixture
def copy(roots, tmp_path):
    return shutil.copytree(roots[2017], tmp_path / "2017")


@pytest.mark.parametrize("year", YEARS)
def test_labels_of_every_year(roots, year):
    dataset = inaturalist.load(roots[year], year=year)
    assert dataset.class_names == NAMES.get(year, NAMES[2021])
    train, test = dataset.splits["train"], dataset.splits["test"]
    np.testing.assert_array_equal(train.labels, [2, 2, 2, 1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(test.labels, [2, 2, 1, 1, 0, 0])
    np.testing.assert_array_equal(train.read(4), test.read(3))  # the second of its species
    assert train.read(0).shape == (30, 40, 3)
    assert "test is the official validation set" in dataset.notes
    assert sorted(splitting.with_validation(dataset, 0.3, 0).splits) == ["test", "train", "val"]


def test_hierarchies(roots):
    first = inaturalist.load(roots[2017], year=2017).hierarchy
    assert first == (("Plantae",), ("Mollusca",), ("Aves",))
    for year in (2019, 2021):
        assert inaturalist.load(roots[year], year=year).hierarchy == (
            ("Plantae", *FULL, "Ficus"),
            ("Animalia", *FULL, "Ficus"),
            ("Animalia", *FULL, "Haemorhous"),
        )


def test_made_up_names_are_noted(roots, tmp_path):
    root = shutil.copytree(roots[2018], tmp_path / "2018")
    assert "made up" not in inaturalist.load(root, year=2018).notes
    (root / "categories.json").unlink()
    dataset = inaturalist.load(root, year=2018)
    assert dataset.class_names == ("UYRGA0", "UYRGA1", "UYRGA3")
    assert dataset.hierarchy[0] == ("SMHLVG", "AIEVWT") and "made up" in dataset.notes


def test_mini(roots):
    dataset = inaturalist.load(roots[2021], year=2021, train="mini")
    assert len(dataset.splits["train"]) == 6 and len(dataset.splits["test"]) == 6
    assert dataset.splits["train"].names[0].startswith("train_mini/00003_Animalia_P_C_O_F_")
    assert "mini train" in dataset.notes


def test_boxes_and_objects(roots):
    train = pickle.loads(pickle.dumps(inaturalist.load(roots[2017], year=2017).splits["train"]))
    np.testing.assert_array_equal(train.raw_boxes[1], [0, 2, 10, 37.5])
    np.testing.assert_array_equal(train.boxes[[2, 8]], [[1, 2, 12, 30]] * 2)
    assert np.isnan(train.boxes[[0, 3, 6]]).all()
    objects = train.annotations["objects"]
    np.testing.assert_array_equal(objects(2), [[1, 2, 12, 37.5], [0, 2, 10, 37.5]])
    assert objects(0).shape == (0, 4) and objects(0).dtype == np.float32


def test_boxes_are_optional(roots, copy):
    (copy / "val_2017_bboxes.json").unlink()
    splits = inaturalist.load(copy, year=2017).splits
    assert splits["test"].boxes is None and splits["train"].boxes is not None
    assert inaturalist.load(roots[2021], year=2021).splits["train"].boxes is None


def test_boxes_are_looked_for_in_2017_only(roots, monkeypatch):
    asked, optional = [], inaturalist._optional

    def noted(folder, known, file):
        asked.append(file)
        return optional(folder, known, file)

    monkeypatch.setattr(inaturalist, "_optional", noted)
    for year in YEARS:
        inaturalist.load(roots[year], year=year)
    boxes = ["train_2017_bboxes.json", "val_2017_bboxes.json"]
    assert [file for file in asked if file != "categories.json"] == boxes


def test_the_folder_above_and_an_archive_will_do(roots, tmp_path, copy):
    facts = inaturalist.load(roots[2017], year=2017).facts()
    (copy / "train_val2017").mkdir()
    for file in ("train2017.json", "val2017.json"):
        shutil.move(copy / file, copy / "train_val2017" / file)
    for file in copy.glob("*_bboxes.json"):
        shutil.move(file, copy / "train_val2017")
    assert inaturalist.load(tmp_path, year=2017).facts() == facts
    names = [path.name for path in roots[2017].iterdir()]
    archive = data_archives.pack(roots[2017], tmp_path / "everything.tgz", *names)
    assert inaturalist.load(str(archive), year=2017).facts() == facts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(year=2020), "unknown year 2020, allowed: 2017, 2018, 2019, 2021"),
        (dict(year=[2021]), r"unknown year \[2021\], allowed: 2017"),
        (dict(year=2021, train="tiny"), "train='tiny' of 2021: allowed are 'full', and 'mini'"),
        (dict(year=2018, train="mini"), "train='mini' of 2018: allowed are 'full'"),
    ],
)
def test_wrong_options(roots, options, message):
    with pytest.raises(ValueError, match=message):
        inaturalist.load(roots[2021], **options)
    with pytest.raises(ValueError, match=message):
        inaturalist.archives_of(**options)


def test_missing_pictures_are_named(copy):
    shutil.rmtree(copy / "train_val_images")
    with pytest.raises(ValueError, match=r"no train_val_images/.* in .*2017"):
        inaturalist.load(copy, year=2017)


def damage(path, change):
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index["images"][0].pop("file_name"), "bad item of 'images'"),
        (lambda index: index["images"][0].update(id="x"), "bad item of 'images'"),
        (lambda index: index["annotations"].pop(0), "1 images without a label: 1008"),
        (lambda index: index["annotations"].append(index["annotations"][0]), "10 labels for 9"),
        (lambda index: index["annotations"][0].update(category_id=2), "1 unknown categories: 2"),
        (lambda index: index["annotations"][0].update(category_id=9), "1 unknown categories: 9"),
        (lambda index: index["categories"][0].pop("name"), "bad or missing category"),
        (lambda index: index["categories"][0].update(id=3), "categories share their"),
        (lambda index: index["images"][1].update(file_name="train_val_images/x/y.jpg"), "x$"),
        (lambda index: index.pop("annotations"), "missing or empty lists: annotations"),
    ],
)
def test_damaged_indices_are_named(copy, change, message):
    damage(copy / "train2017.json", change)
    with pytest.raises(ValueError, match=rf"train2017\.json: .*{message}"):
        inaturalist.load(copy, year=2017)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index["annotations"][0].update(bbox=[1, 2, 3]), "1 boxes that are not four"),
        (lambda index: index["annotations"][0].update(bbox=["a", 2, 3, 4]), "boxes that are not f"),
        (lambda index: index["annotations"][0].update(image_id=99), "boxes of unknown images: 99"),
        (lambda index: index["images"][1].update(file_name="other"), "boxes of unknown images: 1$"),
    ],
)
def test_damaged_boxes_are_named(copy, change, message):
    damage(copy / "train_2017_bboxes.json", change)
    with pytest.raises(ValueError, match=rf"train_2017_bboxes\.json: .*{message}"):
        inaturalist.load(copy, year=2017)


def test_damaged_categories_are_named(roots, tmp_path):
    root = shutil.copytree(roots[2019], tmp_path / "2019")
    for text in ('[{"id": 0, "name": "a"}]', "[", '{"a": 1}'):
        (root / "categories.json").write_text(text)
        with pytest.raises(ValueError, match=r"categories\.json: bad or missing category"):
            inaturalist.load(root, year=2019)
