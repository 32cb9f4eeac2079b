"""Data sets that TensorFlow Datasets has prepared as ArrayRecord, read without TensorFlow."""

import contextlib
import dataclasses
import io
import os
from typing import Any

import numpy as np

from fgc_jax import console
from fgc_jax.data import dataset, images

FILE_NAMES = ("image/filename", "file_name", "filename")
BATCH = 256  # records read at a time while labels are collected
LONG = 50_000  # images; smaller sets get no progress bar
PREPARE = """{name} is not prepared as ArrayRecord in {folder} ({reason}).
Prepare it once (this downloads it, and needs TensorFlow for most sets):
     python -c "import tensorflow_datasets as tfds; tfds.builder('{name}', {where}\
file_format='array_record').download_and_prepare()"
A folder with TFRecord files cannot be used: choose another one and give it as data.root."""


def load(root, *, tfds_name, label_feature: str = ""):
    """The TFDS set `tfds_name`, such as "food101", "cifar10_corrupted/fog_1" or "cars196:2.1.0"
    (without a version: the newest one), prepared in the folder `root`; "" is the default folder of
    TFDS. `root` may also be the folder of one version.

    The labels are the ClassLabel feature `label_feature`; "": TFDS's own choice, or the only one.
    They are collected by reading every record once, without decoding it: a few thousand images in a
    second. For a large set scripts/prepare_dataset.py is faster, because it stores an index.
    "validation" becomes "val", or "test" if there is no labelled test split, as in food101. Other
    splits are left out, and the notes say so.

    Boxes: the feature of boxes, or the largest of several objects; the annotation "objects" then
    has all of them. In pixels, NaN for images without a box. Pictures are decoded like files (RGB,
    without alpha). Names are file names if the set has them.

    Raises:
        ValueError: it is not prepared (the message has the command that prepares it; nothing is
            downloaded here), it has no pictures or labels, or no split "train".
    """
    import tensorflow_datasets as tfds  # takes a third of a second; only this function needs it

    builder = _builder(tfds, root, tfds_name)
    info = builder.info
    image = _feature(info, tfds.features.Image, "image", "")
    label = _feature(info, tfds.features.ClassLabel, "label", label_feature)
    boxes = _box_feature(tfds, info.features)
    undecoded = {
        name: tfds.decode.SkipDecoding()
        for name, feature in info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    splits, notes = {}, [f"TFDS {info.full_name}"]
    for split, facts in info.splits.items():
        known = dataset.SPLIT_ALIASES.get(split)
        labels = ()
        if known and facts.num_examples:
            records = _Records(builder.as_data_source(split, decoders=undecoded), image, boxes)
            labels, names = _collect(records, label, info, split)
        if not len(labels) or labels.min() < 0:
            notes.append(f"{split!r} left out" + " (no labels)" * bool(len(labels)))
            continue
        splits[known] = dataset.Split(
            labels,
            names,
            records,
            records.largest if boxes else None,
            annotations={"objects": records.objects} if boxes else {},
        )
    if "train" not in splits:
        raise ValueError(f"{info.full_name}: no labelled split 'train' among {list(info.splits)}")
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
        notes.append("test is the official validation split")
    classes = info.features[label]
    return dataset.Dataset(
        f"tfds:{builder.name}",
        tuple(classes.int2str(i) for i in range(classes.num_classes)),
        splits,
        notes="; ".join(notes),
        licence=getattr(info.redistribution_info, "license", ""),
    )


def _builder(tfds, root, name):
    """The read-only builder of the data set in `root`."""
    folder = os.fspath(root) if root else tfds.core.constants.DATA_DIR
    options = {"file_format": "array_record"}
    try:
        if os.path.isfile(os.path.join(folder, "dataset_info.json")):
            return tfds.builder_from_directory(folder, **options)
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder, **options)
    except ValueError as error:
        reason = str(error).partition(". ")[0].partition("\n")[0]
        where = f"data_dir='{folder}', " if root else ""
        message = PREPARE.format(name=name, folder=folder, reason=reason, where=where)
        raise ValueError(message) from error


def _feature(info, kind, usual, wanted):
    """The name of the feature of the type `kind`: `wanted`, else TFDS's own choice, else the
    one with the name `usual`, else the only one."""
    found = [name for name, feature in info.features.items() if isinstance(feature, kind)]
    if wanted and wanted not in found:
        raise ValueError(f"{info.full_name}: no {kind.__name__} {wanted!r}, only {sorted(found)}")
    keys = info.supervised_keys or ()
    for name in (wanted, *(key for key in keys if isinstance(key, str)), usual):
        if name in found:
            return name
    if len(found) != 1:
        raise ValueError(
            f"{info.full_name}: an example must have one picture and one label, but the features "
            f"of type {kind.__name__} are {found}"
        )
    return found[0]


def _box_feature(tfds, features):
    """The feature of the boxes: (feature,) or (sequence, feature of its elements); () if there is
    none."""
    found = []
    for name, feature in features.items():
        if isinstance(feature, tfds.features.BBoxFeature):
            found.append((name,))
        elif isinstance(feature, tfds.features.Sequence):
            inner = feature.feature
            if isinstance(inner, tfds.features.BBoxFeature):
                found.append((name,))
            elif isinstance(inner, tfds.features.FeaturesDict):
                inside = [k for k, f in inner.items() if isinstance(f, tfds.features.BBoxFeature)]
                found += [(name, key) for key in inside]
    return found[0] if found else ()


def _collect(records, label, info, split):
    """(int64 `[N]` labels, N names) of a split. Names are numbers if pictures have no file names or
    share them."""
    names_from = next((name for name in FILE_NAMES if name in info.features), None)
    n, labels, names = len(records.source), [], []
    what = f"labels of {info.full_name} {split}"
    with console.progress(what, n) if n >= LONG else contextlib.nullcontext() as bar:
        for start in range(0, n, BATCH):
            found = records.source.__getitems__(range(start, min(start + BATCH, n)))
            labels += [record[label] for record in found]
            names += [record[names_from].decode() for record in found if names_from]
            if bar is not None:
                bar.update(len(found))
    if len(set(names)) < n:
        names = [f"{split}/{i:08d}" for i in range(n)]
    return np.array(labels), names


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Records:
    """Reader of a split's pictures and boxes."""

    source: Any
    image: str
    boxes: tuple[str, ...]

    def __call__(self, index):
        return images.decode(self.stored(index), f"{self.source} {index}")

    def stored(self, index):
        """The picture as it is stored: the bytes of an image file."""
        return self.source[index][self.image]

    def objects(self, index):
        """float32 `[n, 4]`, the largest first: x0, y0, x1, y1 in pixels."""
        record = self.source[index]
        shape = images.read_shape(io.BytesIO(record[self.image]))
        if shape is None:
            raise ValueError(f"{self.source} {index}: the picture has no readable size")
        found = record[self.boxes[0]]
        found = found[self.boxes[1]] if self.boxes[1:] else found
        corners = np.asarray(found, np.float32).reshape(-1, 4)[:, [1, 0, 3, 2]]
        areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
        # Some sets write a box of zeros for an image without a box.
        order = [i for i in np.argsort(-areas, kind="stable") if areas[i] > 0]
        return corners[order] * np.tile(np.float32(shape[::-1]), 2)

    def largest(self):
        """float32 `[N, 4]`, NaN without a box; None if no picture has one."""
        found = np.full((len(self.source), 4), np.nan, np.float32)
        for i in range(len(found)):
            objects = self.objects(i)
            if len(objects):
                found[i] = objects[0]
        return None if np.isnan(found).all() else found
