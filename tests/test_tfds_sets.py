"""TFDS sets that lie prepared: features, splits, boxes, and what is said of what will not do."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fgc_jax import data
from fgc_jax.data.sources import tfds_sets
from fgc_jax.training import plans, rules
from tests import data_files, tiny_run

SIZE = (40, 30)
BOX = tfds.features.BBoxFeature
CLASSES = ("gull", "tern", "wren")


class Toy(tfds.core.GeneratorBasedBuilder):
    """Writes what it is given: `features`, and examples per split. Pictures are file paths, whose
    bytes TFDS stores as they are, without TensorFlow."""

    VERSION = tfds.core.Version("1.2.0")

    def __init__(self, *, features, examples, keys=("image", "label"), **options):
        self.parts = features, examples, keys
        super().__init__(**options)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self.parts[0]),
            supervised_keys=self.parts[2],
            license="CC0",
        )

    def _split_generators(self, manager):
        return {split: self._generate_examples(split) for split in self.parts[1]}

    def _generate_examples(self, split):
        yield from enumerate(self.parts[1][split])


def prepare(root, features, examples, file_format="array_record", **options):
    """Examples are dicts without their picture: number i of a split shows its label."""
    features = {"image": tfds.features.Image(shape=(None, None, 3)), **features}
    features.setdefault("label", tfds.features.ClassLabel(names=CLASSES))
    full = {}
    for split, rows in examples.items():
        for i, row in enumerate(rows):
            if "image" in row:
                full.setdefault(split, []).append(row)
                continue
            path = root / "files" / f"{split}{i}.jpg"
            data_files.write_image(path, data_files.picture(max(row["label"], 0), i, SIZE))
            full.setdefault(split, []).append({"image": str(path), **row})
    options |= {"data_dir": root, "file_format": file_format}
    Toy(features=features, examples=full, **options).download_and_prepare()
    return root


def rows(*labels, **others):
    return [{"label": label, **others} for label in labels]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("plain")
    examples = {"train": rows(0, 1, 2, 0, 1), "validation": rows(2, 1), "test": rows(1, 0, 2)}
    return prepare(root, {}, examples)


def test_labels_and_pictures_belong_together(plain):
    dataset = tfds_sets.load(plain, tfds_name="toy")
    assert dataset.class_names == CLASSES and dataset.name == "tfds:toy"
    assert {k: sorted(v.labels) for k, v in dataset.splits.items()} == {
        "train": [0, 0, 1, 1, 2], "val": [1, 2], "test": [0, 1, 2],
    }  # fmt: skip
    assert dataset.notes == "TFDS toy/1.2.0" and dataset.licence == "CC0"
    train = pickle.loads(pickle.dumps(dataset.splits["train"]))
    assert train.names[3] == "train/00000003" and train.boxes is None
    files = [data_files.picture(label, i, SIZE) for i, label in enumerate((0, 1, 2, 0, 1))]
    for i in range(5):  # TFDS shuffles: compare with the nearest of the pictures written
        errors = [np.abs(train.read(i) - file.astype(float)).mean() for file in files]
        assert min(errors) < 10 and int(np.argmin(errors)) % 3 == train.labels[i]


def test_roots_and_names(plain):
    facts = tfds_sets.load(plain, tfds_name="toy").facts()
    assert tfds_sets.load(str(plain), tfds_name="toy:1.2.0").facts() == facts
    assert tfds_sets.load(plain / "toy" / "1.2.0", tfds_name="toy").facts() == facts


def test_a_run_names_it(plain):
    recipe = tiny_run.recipe(plain)
    recipe.data.update(name="tfds:toy", val_fraction=0.25)
    plan = plans.prepare(rules.parse(recipe))
    assert plan.dataset.class_names == CLASSES
    with pytest.raises(ValueError, match="level is unknown: .*allowed: 'label_feature'$"):
        data.load("tfds:toy", plain, {"level": "family"})
    with pytest.raises(ValueError, match="tfds_name is unknown"):
        data.load("tfds:toy", plain, {"tfds_name": "other"})


def test_the_usual_root(plain, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(plain))
    assert len(tfds_sets.load("", tfds_name="toy").splits["train"]) == 5


def test_validation_is_the_test_where_there_is_no_other(tmp_path):
    examples = {"train": rows(0, 1), "validation": rows(2, 1)}
    prepare(tmp_path, {}, examples | {"test": rows(-1, -1), "mini": rows(0)})
    dataset = tfds_sets.load(tmp_path, tfds_name="toy")
    assert sorted(dataset.splits) == ["test", "train"]
    assert sorted(dataset.splits["test"].labels) == [1, 2]
    for part in ("test is the official", "'test' left out (no labels)", "'mini' left out"):
        assert part in dataset.notes


def test_file_names_and_one_box(tmp_path):
    box = tfds.features.BBox(0.1, 0.25, 0.5, 1.0)  # y0, x0, y1, x1
    none = tfds.features.BBox(0.0, 0.0, 0.0, 0.0)
    train = rows(0, bbox=box, file_name="a.jpg") + rows(1, bbox=none, file_name="b.jpg")
    test = [{"label": 2, "bbox": none, "file_name": "a.jpg"}] * 2
    features = {"bbox": BOX(), "file_name": tfds.features.Text()}
    prepare(tmp_path, features, {"train": train, "test": test})
    splits = tfds_sets.load(tmp_path, tfds_name="toy").splits
    order = np.argsort(splits["train"].names)
    assert list(splits["train"].names[order]) == ["a.jpg", "b.jpg"]
    np.testing.assert_allclose(splits["train"].boxes[order][0], [10, 3, 40, 15], rtol=1e-6)
    assert np.isnan(splits["train"].boxes[order][1]).all()
    assert list(splits["test"].names) == ["test/00000000", "test/00000001"]
    assert splits["test"].boxes is None


@pytest.mark.parametrize("nested", [True, False])
def test_objects(tmp_path, nested):
    found = [tfds.features.BBox(0.0, 0.0, 0.5, 0.5), tfds.features.BBox(0.0, 0.5, 1.0, 1.0)]
    inner = {"bbox": BOX(), "name": tfds.features.Text()} if nested else BOX()
    value = [{"bbox": box, "name": "dog"} for box in found] if nested else found
    train = [{"label": 1, "objects": value}, {"label": 0, "objects": []}]
    prepare(tmp_path, {"objects": tfds.features.Sequence(inner)}, {"train": train})
    split = pickle.loads(pickle.dumps(tfds_sets.load(tmp_path, tfds_name="toy").splits["train"]))
    i = int(np.argmax(split.labels))
    objects = split.annotations["objects"]
    np.testing.assert_allclose(objects(i), [[20, 0, 40, 30], [0, 0, 20, 15]])
    assert objects(1 - i).shape == (0, 4)
    np.testing.assert_allclose(split.boxes[i], [20, 0, 40, 30])
    assert np.isnan(split.boxes[1 - i]).all()


def test_another_label(tmp_path):
    features = {"species": tfds.features.ClassLabel(num_classes=2)}
    prepare(tmp_path, features, {"train": rows(0, 2, species=1)})
    dataset = tfds_sets.load(tmp_path, tfds_name="toy", label_feature="species")
    assert dataset.class_names == ("0", "1") and list(dataset.splits["train"].labels) == [1, 1]
    with pytest.raises(ValueError, match=r"no ClassLabel 'breed', only \['label', 'species'\]"):
        tfds_sets.load(tmp_path, tfds_name="toy", label_feature="breed")


def test_pictures_in_other_formats(tmp_path):
    rgb = data_files.picture(1, 0, SIZE)
    rgba = np.dstack([rgb, np.full(SIZE[::-1], 7, np.uint8)])
    data_files.write_image(tmp_path / "alpha.png", rgba)
    train = [{"label": 0, "image": str(tmp_path / "alpha.png")}, {"label": 1}]
    prepare(tmp_path, {}, {"train": train})
    split = tfds_sets.load(tmp_path, tfds_name="toy").splits["train"]
    np.testing.assert_array_equal(split.read(int(np.argmin(split.labels))), rgb)


def test_damaged_pictures_are_named(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
    train = [{"label": 0, "image": str(tmp_path / "bad.jpg"), "bbox": box}]
    prepare(tmp_path, {"bbox": BOX()}, {"train": train})
    split = tfds_sets.load(tmp_path, tfds_name="toy").splits["train"]
    with pytest.raises(ValueError, match="toy.* 0: damaged or not an image"):
        split.read(0)
    with pytest.raises(ValueError, match="toy.* 0: the picture has no readable size"):
        _ = split.boxes


def test_what_is_not_prepared_says_how_to(plain, tmp_path):
    prepare(tmp_path, {}, {"train": rows(0, 1)}, file_format="tfrecord")
    for root, name in ((plain, "food101"), (plain, "toy:3.0.0"), (tmp_path, "toy")):
        with pytest.raises(ValueError, match="not prepared as ArrayRecord") as error:
            tfds_sets.load(root, tfds_name=name)
        for part in (f"tfds.builder('{name}', data_dir='{root}'", "array_record", "download_and"):
            assert part in str(error.value)


def test_other_kinds_of_data_are_refused(tmp_path):
    labels = {f"label{i}": tfds.features.ClassLabel(num_classes=2) for i in range(2)}
    prepare(tmp_path, labels, {"train": rows(0, label0=0, label1=0)}, keys=None)
    assert tfds_sets.load(tmp_path, tfds_name="toy").splits["train"].labels[0] == 0
    with pytest.raises(ValueError, match="no labelled split 'train' among"):
        root = prepare(tmp_path / "b", {}, {"training": rows(0)})
        tfds_sets.load(root, tfds_name="toy")


def test_tensorflow_is_not_imported(plain):
    code = (
        "import sys; from fgc_jax.data.sources import tfds_sets as s;"
        f"d = s.load({str(plain)!r}, tfds_name='toy'); d.splits['train'].read(0);"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
