"""Data sets that scripts/prepare_dataset.py wrote: ArrayRecord shards, which TFDS can open too.

A folder contains the shards, an index with everything except the pictures, and facts.
`dataset_info.json` is written last, so a folder without it is unfinished.
"""

import bisect
import dataclasses
import functools
import itertools
import os
import zipfile

import numpy as np
from array_record.python import array_record_data_source

from fgc_jax import files
from fgc_jax.data import dataset, images

INFO, FACTS, INDEX, UNFINISHED = "dataset_info.json", "prepared.json", "index.npz", "unfinished"
FORMAT = 1
ARCHIVES = ()
RAGGED = {"parts": 3, "objects": 4}  # annotations with several rows per image: their columns
COLUMNS = ("labels", "sizes", "original_sizes", "source_indices", "checksums")


def load(root):
    """The data set prepared in the folder `root`, with the name, classes, splits, boxes, parts and
    objects of its source; `notes` also say how it was prepared. Boxes are in pixels of the stored
    pictures.

    Only two small files are read before the first picture.

    Raises:
        ValueError: `root` is not a prepared data set or is unfinished, or files are missing,
            truncated or damaged.
    """
    check_finished(root)
    facts = read_facts(root)
    about = facts["dataset"]
    splits = {name: read_split(root, facts, name) for name in facts["splits"]}
    return dataset.Dataset(
        name=about["name"],
        class_names=tuple(about["class_names"]),
        splits=splits,
        notes=about["notes"],
        licence=about["licence"],
        imagenet_overlap=about["imagenet_overlap"],
        hierarchy=tuple(map(tuple, about["hierarchy"])),
        part_names=tuple(about["part_names"]),
    )


def check_finished(root):
    """ValueError unless `root` is a completely prepared folder."""
    if not root:
        raise ValueError("the data root is not set: give the prepared folder (data.root)")
    if not os.path.isdir(root):
        raise ValueError(f"{root}: no such folder; `fgc prepare_dataset` makes one")
    if os.path.isfile(os.path.join(root, INFO)):
        return
    if os.path.isdir(os.path.join(root, UNFINISHED)):
        raise ValueError(
            f"{root}: not finished; the same `fgc prepare_dataset` command completes it"
        )
    raise ValueError(f"{root}: not a prepared data set, there is no {INFO}")


def read_facts(root):
    """The contents of FACTS. ValueError if it cannot be read or has another format."""
    path = os.path.join(root, FACTS)
    if not os.path.exists(path):
        raise ValueError(f"{root}: no {FACTS}, so prepare_dataset.py did not make it")
    facts = files.read_json(path)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(f"{path}: the format is not {FORMAT}; prepare the data set again")
    return facts


def read_split(root, facts, name):
    """The split `name` of the folder, finished or not. ValueError if files of it are damaged."""
    for shard in facts["splits"][name]["shards"]:
        path = os.path.join(root, shard["file"])
        size = os.path.getsize(path) if os.path.isfile(path) else None
        if size is None:
            raise ValueError(f"{path}: missing; prepare the data set again")
        if size != shard["bytes"]:
            raise ValueError(f"{path}: {size} bytes instead of {shard['bytes']}, prepare it again")
    index = read_index(root, name)
    records = tuple(shard["records"] for shard in facts["splits"][name]["shards"])
    if not len(index["labels"]) == len(index["names"]) == sum(records):
        raise ValueError(f"{os.path.join(root, INDEX)}: damaged, {name!r} has the wrong length")
    files = tuple(
        os.path.join(os.path.abspath(root), shard["file"])
        for shard in facts["splits"][name]["shards"]
    )
    return dataset.Split(
        labels=index["labels"],
        names=index["names"],
        read=Records(files, records, index["names"]),
        box_source=index.get("boxes"),
        size_source=index["sizes"] if "boxes" in index else None,
        annotations={
            kind: Ragged(index[kind], np.concatenate([[0], np.cumsum(index[f"{kind}_rows"])]))
            for kind in RAGGED
            if kind in index
        },
    )


def read_index(root, name):
    """The arrays of a split in the index: COLUMNS and "names", and "boxes" and RAGGED if there are
    any.

    Sizes are (width, height); ragged ones float32 `[rows, 3 or 4]`, with their counts as "_rows".
    """
    path = os.path.join(root, INDEX)
    try:
        with np.load(path, allow_pickle=False) as members:
            keys = [key for key in members.files if key.startswith(f"{name}/")]
            index = {key.removeprefix(f"{name}/"): members[key] for key in keys}
        names = index["names"].tobytes().decode().split("\0")
        return index | {"names": dataset.text_array(names)}
    except FileNotFoundError as error:
        raise ValueError(f"{path}: missing; prepare the data set again") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged ({error}); prepare the data set again") from error


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Records:
    """Reader of the pictures in shards. Each process opens a file at its first use."""

    files: tuple[str, ...]
    counts: tuple[int, ...]
    names: np.ndarray

    @functools.cached_property
    def _source(self):
        pairs = zip(self.files, self.counts, strict=True)
        return array_record_data_source.ArrayRecordDataSource([f"{f}[0:{n}]" for f, n in pairs])

    def record(self, index):
        """The bytes of record `index`: a tf.train.Example."""
        try:
            return self._source[index]
        except RuntimeError as error:
            raise ValueError(
                f"{self.names[index]}: record {index} of {self.shard(index)} is damaged ({error})"
            ) from error

    def shard(self, index):
        """The file that contains record `index`."""
        return self.files[bisect.bisect_right(list(itertools.accumulate(self.counts)), index)]

    def stored(self, index):
        """The picture as it is stored: the bytes of an image file."""
        return parse(self.record(index))["image"].bytes_list.value[0]

    def __call__(self, index):
        return images.decode(self.stored(index), self.names[index])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Ragged:
    """An annotation: that of image i are the rows `starts[i]` to `starts[i + 1]` of `values`."""

    values: np.ndarray
    starts: np.ndarray

    def __call__(self, index):
        return self.values[self.starts[index] : self.starts[index + 1]]


def parse(record):
    """The features of a tf.train.Example by name; reading needs no TensorFlow."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature
