"""Data sets: splits of numbered images with their labels, names and boxes."""

import collections
import dataclasses
import functools
import hashlib
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from fgc_jax import config
from fgc_jax.data import images

SPLITS = typing.get_args(config.SplitName)
# Other spellings that a folder or a CSV column may use.
SPLIT_ALIASES = {name: name for name in SPLITS} | {"valid": "val", "validation": "val"}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """N labelled images. Pickling it is cheap, because each picture is read only when needed.

    labels: int32 `[N]`. names: N file names, relative to the data set's root; equal names are one
    photo. read(i): uint8 RGB `[H, W, 3]`, ValueError naming the file if it is damaged.
    box_source: the value of `raw_boxes`, or a function without arguments that returns it.
    size_source: int `[N, 2]` (width, height), or a function that returns it; None if no box
    reaches beyond its picture. annotations: further annotations, each a function of the number i:
    "parts" float32 `[P, 3]` (x, y, 1 if visible), "objects" float32 `[n, 4]` (boxes of all objects,
    not clipped), "mask" uint8 `[H, W]` (0 to 255: share of the raters that marked the object
    there), "telling_boxes" float32 `[n, 4]` (boxes of the parts in which the class differs from
    the most similar classes).
    """

    labels: np.ndarray
    names: Sequence[str]
    read: Callable[[int], np.ndarray]
    box_source: np.ndarray | Callable[[], np.ndarray | None] | None = None
    size_source: np.ndarray | Callable[[], np.ndarray] | None = None
    annotations: Mapping[str, Callable[[int], Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int32))
        object.__setattr__(self, "names", text_array(self.names))
        n = len(self.labels)
        if self.labels.shape != (n,) or len(self.names) != n:
            raise ValueError(f"{len(self.names)} names for labels of shape {self.labels.shape}")
        if not callable(self.box_source):
            _ = self.raw_boxes  # so that wrong boxes are an error here, not at their first use

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        return f"Split({len(self)} images)"

    @functools.cached_property
    def raw_boxes(self):
        """float32 `[N, 4]` or None: x0, y0, x1, y1 in pixels of what `read` returns, 0-based,
        half-open; NaN for an image without a box. Not clipped: some reach beyond the picture."""
        boxes = self.box_source() if callable(self.box_source) else self.box_source
        if boxes is None:
            return None
        boxes, n = np.asarray(boxes, np.float32), len(self)
        if boxes.shape != (n, 4):
            raise ValueError(f"boxes of shape {boxes.shape} for {n} images, expected ({n}, 4)")
        return boxes

    @functools.cached_property
    def boxes(self):
        """`raw_boxes` clipped to the pictures. Computed at the first use, because it may open every
        file to read its size."""
        if self.raw_boxes is None or self.sizes is None:
            return self.raw_boxes
        return np.clip(self.raw_boxes, 0, np.tile(self.sizes, 2))

    @functools.cached_property
    def sizes(self):
        """float32 `[N, 2]`: the pictures' (width, height), or None if no box needs them."""
        sizes = self.size_source() if callable(self.size_source) else self.size_source
        return None if sizes is None else np.asarray(sizes, np.float32)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Named splits (any of "train", "val", "test") with the same list of classes.

    notes: release, level and options. licence: what the authors allow. imagenet_overlap: which
    images are also in ImageNet, on which most pretrained weights were trained. Both are "" if
    unknown. hierarchy: for each class the names of its ancestors, coarsest first; () if there is
    none. part_names: names of the rows of the annotation "parts".
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    notes: str = ""
    licence: str = ""
    imagenet_overlap: str = ""
    hierarchy: tuple[tuple[str, ...], ...] = ()
    part_names: tuple[str, ...] = ()

    def __post_init__(self):
        if len(self.class_names) < 2:
            found = ", ".join(self.class_names) or "none"
            raise ValueError(f"{self.name}: at least 2 classes are needed, found: {found}")
        if len(set(self.class_names)) != len(self.class_names):
            counts = collections.Counter(self.class_names)
            repeated = ", ".join(repr(name) for name, n in counts.items() if n > 1)
            raise ValueError(f"{self.name}: class names are not unique: {repeated}")
        if self.hierarchy and len(self.hierarchy) != len(self.class_names):
            raise ValueError(f"{self.name}: the hierarchy must list the ancestors of each class")
        strays = set(self.splits) - set(SPLITS)
        if strays:
            raise ValueError(f"{self.name}: unknown splits {sorted(strays)}, allowed: {SPLITS}")
        for split_name, split in self.splits.items():
            if not len(split):
                raise ValueError(f"{self.name}: the split {split_name!r} has no images")
            if split.labels.min() < 0 or split.labels.max() >= len(self.class_names):
                raise ValueError(
                    f"{self.name}: labels of {split_name!r} must be 0 to "
                    f"{len(self.class_names) - 1}, the numbers of the classes"
                )

    def __repr__(self):
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"Dataset({self.name}, {len(self.class_names)} classes, {sizes})"

    def facts(self):
        """What to store beside a result, for JSON: names, sizes, and a hash of each split."""
        splits = {
            name: {"images": len(split), "sha256": _fingerprint(split)}
            for name, split in self.splits.items()
        }
        return {
            "name": self.name,
            "notes": self.notes,
            "licence": self.licence,
            "imagenet_overlap": self.imagenet_overlap,
            "class_names": list(self.class_names),
            "splits": splits,
        }


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Files:
    """Reader of a split whose images are files: `root/names[i]`, without the last `bottom` rows (a
    copyright strip)."""

    root: str
    names: np.ndarray
    bottom: int = 0

    def __call__(self, index):
        path = os.path.join(self.root, self.names[index])
        image = images.decode(path)
        height = image.shape[0] - self.bottom
        if height < 1:
            raise ValueError(
                f"{path}: the picture has {image.shape[0]} rows; the last {self.bottom} are "
                "removed, so no rows are left"
            )
        return image[:height]

    def sizes(self):
        """float32 `[N, 2]`: (width, height) from the files' headers; infinite if a header cannot
        be read. Reading the image reports the error."""
        with futures.ThreadPoolExecutor(8) as pool:
            paths = (os.path.join(self.root, name) for name in self.names)
            shapes = pool.map(images.read_shape, paths)
            sizes = [(s[1], s[0] - self.bottom) if s else (np.inf, np.inf) for s in shapes]
        return np.asarray(sizes, np.float32).reshape(-1, 2)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Chosen:
    """Reader or annotation of a subset: image i is image `indices[i]` of the whole split."""

    read: Callable[[int], Any]
    indices: np.ndarray

    def __call__(self, index):
        return self.read(int(self.indices[index]))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Joined:
    """Reader or annotation of two joined splits; the first has `length` images."""

    first: Callable[[int], Any]
    second: Callable[[int], Any]
    length: int

    def __call__(self, index):
        return self.first(index) if index < self.length else self.second(index - self.length)


def without_images(classes: int) -> Dataset:
    """A data set with this number of classes and no splits."""
    return Dataset("none", tuple(map(str, range(classes))), {})


def _fingerprint(split):
    """sha256 of the labels and file names of a split, in order; the pictures are not read."""
    digest = hashlib.sha256(np.asarray(split.labels, "<i4").tobytes())
    digest.update("\0".join(split.names).encode())
    return digest.hexdigest()


def text_array(names):
    """File names as one numpy array of variable-length strings: 16 bytes and the text for each."""
    if isinstance(names, np.ndarray) and isinstance(names.dtype, np.dtypes.StringDType):
        return names  # asarray would copy
    try:
        return np.asarray(names, dtype=np.dtypes.StringDType())
    except UnicodeEncodeError as error:
        raise ValueError(f"a file name is not valid Unicode: {error.object!r}") from error


def file_split(root, names, labels, *, boxes=None, bottom=0, annotations=None):
    """A Split over the files `root/name`; `boxes` as in Split.raw_boxes."""
    names = text_array(names)
    files = Files(os.fspath(root), names, bottom)
    sizes = None if boxes is None else files.sizes
    return Split(labels, names, files, boxes, sizes, annotations or {})


def subset(split, indices):
    """The Split of the images numbered `indices` (int `[M]`), in that order."""
    indices = np.asarray(indices, np.int64)
    names = text_array(split.names)[indices]
    return Split(
        labels=split.labels[indices],
        names=names,
        read=_Chosen(split.read, indices),
        box_source=functools.partial(_chosen_rows, split, "raw_boxes", indices),
        size_source=functools.partial(_chosen_rows, split, "sizes", indices),
        annotations={name: _Chosen(of, indices) for name, of in split.annotations.items()},
    )


def _chosen_rows(split, name, indices):
    rows = getattr(split, name)
    return None if rows is None else rows[indices]


def joined(first, second):
    """The Split of the images of both splits, with the annotations that both have."""
    shared = first.annotations.keys() & second.annotations.keys()
    one, other = first.annotations, second.annotations
    return Split(
        labels=np.concatenate([first.labels, second.labels]),
        names=np.concatenate([text_array(first.names), text_array(second.names)]),
        read=_Joined(first.read, second.read, len(first)),
        box_source=functools.partial(_joined_rows, first, second, "raw_boxes"),
        size_source=functools.partial(_joined_rows, first, second, "sizes"),
        annotations={name: _Joined(one[name], other[name], len(first)) for name in sorted(shared)},
    )


def with_validation_in_train(dataset):
    """`dataset` with the images of "val" moved to "train"."""
    splits = {name: split for name, split in dataset.splits.items() if name != "val"}
    splits["train"] = joined(splits["train"], dataset.splits["val"])
    note = f"the {len(dataset.splits['val'])} images of val are also trained on"
    return dataclasses.replace(
        dataset, splits=splits, notes="; ".join(filter(None, (dataset.notes, note)))
    )


def _joined_rows(first, second, name):
    rows = [getattr(split, name) for split in (first, second)]
    return None if any(part is None for part in rows) else np.concatenate(rows)
