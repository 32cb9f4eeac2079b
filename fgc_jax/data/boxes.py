"""Bounding boxes: the conventions of annotation files, and crops to the annotated object."""

import dataclasses
import math

import numpy as np

from fgc_jax.data import dataset as datasets


def from_corners(corners, origin=1):
    """`[..., 4]` x_min, y_min, x_max, y_max as in most annotation files -> float32 0-based,
    half-open. `origin` 1: counted from 1, both corners included (MATLAB, VOC); 0: counted from 0,
    second corner excluded."""
    corners = np.asarray(corners, np.float32)
    return corners - np.array([origin, origin, 0, 0], np.float32)


def from_sizes(boxes):
    """`[..., 4]` x, y, width, height counted from 0 (COCO, CUB-200-2011) -> float32 corners."""
    boxes = np.asarray(boxes, np.float32)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def with_box_crops(dataset, splits, *, margin=0.0, square=False):
    """`dataset` with each picture of `splits` cropped to its annotated box.

    `margin`: share of the box's width and height that is added on each of its four sides. `square`:
    the shorter side grows to the length of the longer one, around the same centre, as far as the
    picture allows. Crops are widened to whole pixels; an image without a box stays whole. Crops
    have no boxes and no annotations, because the object fills the picture.

    Raises:
        ValueError: the data set has no such split, or that split has no boxes.
    """
    if margin < 0:
        raise ValueError(f"the margin of a box must not be negative, got {margin}")
    cropped = dict(dataset.splits)
    for name in splits:
        if name not in cropped:
            raise ValueError(
                f"{dataset.name}: there is no split {name!r} to crop, only {', '.join(cropped)}"
            )
        split = cropped[name]
        if split.box_source is None or split.raw_boxes is None:
            raise ValueError(
                f"{dataset.name}: the split {name!r} has no boxes, so it cannot be cropped to boxes"
            )
        read = _Crops(split, margin, square)
        cropped[name] = datasets.Split(split.labels, split.names, read)
    return dataclasses.replace(dataset, splits=cropped)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Crops:
    """Reader of pictures cropped to their boxes."""

    split: datasets.Split
    margin: float
    square: bool

    def __call__(self, index):
        image = self.split.read(index)
        window = crop_window(self.split.raw_boxes[index], image.shape, self.margin, self.square)
        if window is None:
            raise ValueError(
                f"{self.split.names[index]}: the box {self.split.raw_boxes[index]} is outside the "
                f"picture of {image.shape[1]}x{image.shape[0]} pixels"
            )
        x0, y0, x1, y1 = window
        return image[y0:y1, x0:x1]


def crop_window(box, shape, margin=0.0, square=False):
    """The crop, in whole pixels (x0, y0, x1, y1), of a picture of `shape` (height, width, ...): the
    whole picture for a box of NaN, None for a box outside the picture."""
    height, width = shape[:2]
    if not np.isfinite(box).all():
        return 0, 0, width, height
    x0, y0, x1, y1 = (float(value) for value in box)
    if min(x1, width) <= max(x0, 0) or min(y1, height) <= max(y0, 0):
        return None
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    x0, y0, x1, y1 = (
        math.floor(x0 - dx), math.floor(y0 - dy), math.ceil(x1 + dx), math.ceil(y1 + dy),
    )  # fmt: skip
    if square:
        side = max(x1 - x0, y1 - y0)
        x0, x1 = _widened(x0, x1, side, width)
        y0, y1 = _widened(y0, y1, side, height)
    return max(0, x0), max(0, y0), min(width, x1), min(height, y1)


def _widened(low, high, side, limit):
    """The interval widened to `side` around its centre, then moved into 0..limit if it fits."""
    start = max(0, min((low + high - side) // 2, limit - side))
    return start, start + side
