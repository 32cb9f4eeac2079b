"""Image files to RGB arrays, and the crop of a resized image, both on the host."""

import io
import math
import os
import re
import typing

import cv2
import numpy as np
from PIL import Image

from fgc_jax import config

# The loader decodes many images in parallel; OpenCV's own threads would only slow its threads down,
# and its log on stderr repeats what the ValueError below says.
cv2.setNumThreads(0)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm",
)  # fmt: skip
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MODES = typing.get_args(config.ResizeMode)
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode(source, name=None):
    """Decodes one image (file path or bytes) to uint8 RGB `[H, W, 3]`, values 0..255.

    The EXIF orientation is ignored, because the boxes of the public data sets assume that. Grey is
    repeated, palettes are looked up, CMYK is converted and alpha is dropped, as by Pillow's
    `convert("RGB")`. Of 16 bits the upper 8 are kept, of an animation the first frame. Images of up
    to 2**30 pixels are read.

    Raises:
        ValueError: the file is missing, empty, truncated or not an image. The message names the
            file (or `name`).
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = name or "image", source
    else:
        name = name or os.fspath(source)
        try:
            with open(source, "rb") as file:
                data = file.read()
        except OSError as error:
            raise ValueError(f"{name}: cannot be read ({error.strerror or error})") from error
    if not data:
        raise ValueError(f"{name}: not an image, the file is empty (0 bytes)")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error:
        image = None
    return image if image is not None else _decode_pillow(data, name)


def _decode_pillow(data, name):
    """Reads the formats and variants that OpenCV cannot read; truncated files are an error."""
    try:
        with Image.open(io.BytesIO(data)) as file:
            if file.mode.startswith("I;16"):  # convert("RGB") would clip at 255, not scale
                grey = (np.asarray(file).astype(np.uint16) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            if file.mode in ("I", "F"):
                raise ValueError(f"pixels of type {file.mode!r} have no known range")
            return np.array(file.convert("RGB"))
    except Exception as error:  # Pillow's plugins fail on damaged files with a dozen types
        why = re.sub(r" <_io\.BytesIO object at 0x\w+>", "", str(error))  # differs each time
        raise ValueError(f"{name}: damaged or not an image ({why})") from error


def read_shape(path):
    """(height, width) from the file's header, or None if the header cannot be read."""
    try:
        with Image.open(path) as file:
            return file.height, file.width
    except Exception:  # a damaged file is reported when it is decoded, not here
        return None


def resized_shape(shape, resize, mode):
    """The (height, width) that an image of `shape` (height, width, ...) is resized to.

    "squash": both sides become `resize`. "short_side": the shorter side becomes `resize`, and the
    other keeps the aspect ratio, rounded down, as in torchvision's Resize. "letterbox": the longer
    side becomes `resize` unless it is shorter already, and the other keeps the aspect ratio,
    rounded down.
    """
    height, width = shape[:2]
    if mode == "squash":
        return resize, resize
    if mode == "letterbox":
        longer = max(height, width)
        if longer <= resize:
            return height, width
        return max(1, resize * height // longer), max(1, resize * width // longer)
    if mode != "short_side":
        raise ValueError(f"unknown resize mode {mode!r}: one of {', '.join(MODES)}")
    if height <= width:
        return resize, max(resize, int(resize * width / height))
    return max(resize, int(resize * height / width)), resize


def resize_crop(image, resized, window, interpolation="bilinear"):
    """Resizes uint8 `[H, W, 3]` to `resized` (height, width), returns only `window` of the result.

    `window` is (top, left, height, width) in resized pixels. Shrinking is antialiased. Pixels equal
    Pillow's up to rounding: the mean difference is below 0.2 of 255, or below 0.4 if both sides
    shrink by a factor of four or more.
    """
    top, left, height, width = window
    source_height, source_width = image.shape[:2]
    scale_y, scale_x = source_height / resized[0], source_width / resized[1]
    if scale_y == scale_x == 1.0:
        return np.ascontiguousarray(image[top : top + height, left : left + width])
    enlarged = scale_y <= 1 and scale_x <= 1
    if enlarged and interpolation == "bilinear" and math.prod(resized) <= 4 * height * width:
        # Nothing to antialias, and OpenCV takes a quarter of Pillow's time. This is for bilinear
        # only, because OpenCV's bicubic kernel differs from Pillow's.
        whole = cv2.resize(image, resized[::-1], interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(whole[top : top + height, left : left + width])
    box = np.array(
        [left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y]
    )
    while min(scale_y, scale_x) >= 4:
        # Averaging 2x2 blocks takes almost no time. It is hardly visible, because Pillow's filter
        # still shrinks by two or more afterwards. A last odd row or column is left out.
        half = image.shape[1] // 2, image.shape[0] // 2
        image = cv2.resize(image[: 2 * half[1], : 2 * half[0]], half, interpolation=cv2.INTER_AREA)
        scale_y, scale_x, box = scale_y / 2, scale_x / 2, box / 2
    image, box = _cut(image, box, (scale_x, scale_y), interpolation)
    picture = Image.fromarray(image)
    filter_ = INTERPOLATIONS[interpolation]
    return np.array(picture.resize((width, height), filter_, box=tuple(box)))


def _cut(image, box, scales, interpolation):
    """The part of `image` that the filter needs for `box` (x0, y0, x1, y1), and the box in that
    part. Copying less is faster, and Pillow skips the pass along an axis that keeps its length."""
    reach = 1 if interpolation == "bilinear" else 2
    spans, ends = [], []
    for axis, scale in enumerate(scales):
        length = image.shape[1 - axis]
        low, high = (min(max(end, 0), length) for end in box[axis::2])  # rounding may step outside
        margin = 0 if scale == 1 else math.ceil(reach * max(scale, 1)) + 1
        first, last = max(0, math.floor(low) - margin), min(length, math.ceil(high) + margin)
        spans.append(slice(first, last))
        ends.append((float(low - first), float(high - first)))
    (x0, x1), (y0, y1) = ends
    return np.ascontiguousarray(image[spans[1], spans[0]]), (x0, y0, x1, y1)
