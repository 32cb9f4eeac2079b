"""An image with its annotations as one record of a prepared data set, in the format of TFDS."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from fgc_jax.data import dataset as datasets
from fgc_jax.data import images
from fgc_jax.data.sources import prepared

MODES = ("short_side", "squash")


@dataclasses.dataclass(frozen=True)
class Form:
    """How pictures are stored. They are shrunk to `resize` pixels (None: not at all): with mode
    "short_side" the shorter side, with "squash" each longer side; nothing is enlarged. Resized
    pictures, and those that do not come from a file, are stored as JPEG of `quality` (1 to 100).
    shard_bytes: size of a file that is aimed at.
    """

    resize: int | None = None
    mode: str = "short_side"
    quality: int = 95
    shard_bytes: int = 2**28

    def __post_init__(self):
        if self.resize is not None and self.resize < 1:
            raise ValueError(f"resize must be at least 1 pixel, got {self.resize}")
        if self.mode not in MODES:
            raise ValueError(f"resize_mode {self.mode!r} is unknown, allowed: {', '.join(MODES)}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"the JPEG quality must lie in 1 to 100, got {self.quality}")

    def __str__(self):
        if self.resize is None:
            return f"prepared in original size, pictures without a file as JPEG {self.quality}"
        sides = "a short side" if self.mode == "short_side" else "sides"
        return f"prepared with {sides} of at most {self.resize} pixels, JPEG {self.quality}"

    def shape(self, shape):
        """The stored (height, width) of a picture of `shape`."""
        if self.resize is None or (self.mode == "short_side" and min(shape[:2]) <= self.resize):
            return shape[:2]
        resized = images.resized_shape(shape, self.resize, self.mode)
        return min(shape[0], resized[0]), min(shape[1], resized[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """`data`: the serialised tf.train.Example. `row`, for the index: "sizes" and "original_sizes"
    (width, height in pixels), "checksums", and "boxes" if the split has any. `ragged`: "parts"
    and "objects" if it has any. `error`: why there is no record, else ""."""

    data: bytes = b""
    row: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ragged: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    error: str = ""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Encoder:
    """Makes the record of image `index` of the split `name` of `data`: encoder((name, index))."""

    data: datasets.Dataset
    form: Form

    def __call__(self, place):
        name, index = place
        split = self.data.splits[name]
        try:
            return self._record(split, index)
        except ValueError as error:
            return Record(error=str(error))

    def _record(self, split, index):
        name = str(split.names[index])
        stored = _stored(split.read, index)
        image = split.read(index) if stored is None else images.decode(stored, name)
        shape = image.shape
        resized = self.form.shape(shape)
        if resized != shape[:2]:
            image = images.resize_crop(image, resized, (0, 0, *resized), "bicubic")
            stored = None
        if stored is None:
            stored = encode(image, self.form.quality, name)
        sizes = {
            "sizes": np.array(image.shape[1::-1], np.int32),
            "original_sizes": np.array(shape[1::-1], np.int32),
        }
        scale = sizes["sizes"] / sizes["original_sizes"]
        none = np.full(4, np.nan, np.float32)
        box = none if split.raw_boxes is None else _scaled(split.raw_boxes[index], scale)
        ragged = {
            kind: _scaled(split.annotations[kind](index), scale).reshape(-1, columns)
            for kind, columns in prepared.RAGGED.items()
            if kind in split.annotations
        }
        missing = {kind: np.zeros((0, prepared.RAGGED[kind]), np.float32) for kind in self.ragged}
        example = {
            "image": stored,
            "label": int(split.labels[index]),
            "filename": name,
            "box": box,
            "index": index,
            "original_size": sizes["original_sizes"],
            **missing,
            **ragged,
        }
        data = self._serialise(example)
        row = sizes | {"checksums": checksum(data)}
        return Record(data, row if split.raw_boxes is None else row | {"boxes": box}, ragged)

    def _serialise(self, example):
        example = self._serialiser.get_tf_example(self.features.encode_example(example))
        # Without this, the order of the entries of a map is random.
        return example.SerializeToString(deterministic=True)

    @functools.cached_property
    def _serialiser(self):
        from tensorflow_datasets.core import example_serializer

        return example_serializer.ExampleSerializer(self.features.get_serialized_info())

    @functools.cached_property
    def ragged(self):
        """The kinds of prepared.RAGGED that any split has."""
        kinds = {kind for split in self.data.splits.values() for kind in split.annotations}
        return tuple(kind for kind in prepared.RAGGED if kind in kinds)

    @functools.cached_property
    def features(self):
        """The TFDS features of a record."""
        import tensorflow_datasets as tfds

        floats = functools.partial(tfds.features.Tensor, dtype=np.float32)
        # The boxes of TFDS are shares of the picture within 0 and 1: they cannot be NaN and cannot
        # reach beyond the picture.
        optional = {
            "parts": floats(shape=(None, 3), doc="x, y in pixels, 1 where it is visible"),
            "objects": floats(shape=(None, 4), doc="boxes of all objects, as `box`"),
        }
        return tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=list(self.data.class_names)),
                "filename": tfds.features.Text(),
                "box": floats(shape=(4,), doc="x0, y0, x1, y1 in pixels, half-open; NaN: none"),
                "index": tfds.features.Scalar(np.int64, doc="its number in the source's split"),
                "original_size": tfds.features.Tensor(
                    shape=(2,), dtype=np.int32, doc="width, height in the source, in pixels"
                ),
                **{kind: optional[kind] for kind in self.ragged},
            }
        )


def checksum(data):
    """A hash of bytes, np.uint64."""
    return np.frombuffer(hashlib.blake2b(data, digest_size=8).digest(), "<u8")[0]


def encode(image, quality, name):
    """uint8 RGB `[H, W, 3]` as the bytes of a JPEG file; ValueError if it is too large."""
    try:
        done, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
    except cv2.error:
        done = False
    if not done:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise ValueError(f"{name}: {size} pixels are too many for a JPEG file; give a resize")
    return data.tobytes()


def copied(read):
    """Whether the pictures of a split's `read` are files, which are stored unchanged unless
    resized."""
    read, _ = _origin(read, 0)
    return hasattr(read, "stored") or (isinstance(read, datasets.Files) and not read.bottom)


def source_file(read, index):
    """The path of the file that `read` takes image `index` from, or None."""
    read, index = _origin(read, index)
    return os.path.join(read.root, read.names[index]) if isinstance(read, datasets.Files) else None


def _stored(read, index):
    """The bytes of an image file with exactly the picture that `read` returns, or None."""
    if not copied(read):
        return None
    origin, number = _origin(read, index)
    if hasattr(origin, "stored"):
        return origin.stored(number)
    path = source_file(read, index)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error


def _origin(read, index):
    """The reader of the whole split that a subset is part of, and the image's number in it."""
    while hasattr(read, "indices"):
        read, index = read.read, int(read.indices[index])
    return read, index


def _scaled(points, scale):
    """Boxes `[..., 4]` or points `[..., 3]` in pixels, times `scale` (x, y); the third column of
    points is kept."""
    points = np.array(points, np.float32)
    factors = (*scale, *scale) if points.shape[-1] == 4 else (*scale, 1)
    return points * np.array(factors, np.float32)
