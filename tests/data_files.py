"""Miniature data sets in the layouts of the real ones, written to disk for tests.

Classes can be told apart by colour, so that a small network learns them in a few steps.
"""

import colorsys
import csv
import dataclasses
import io
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fgc_jax.data import pipeline

# Variant, family, manufacturer: real names, with the spaces, dashes and slash of the real lists.
AIRCRAFT = (
    ("707-320", "Boeing 707", "Boeing"),
    ("737-200", "Boeing 737", "Boeing"),
    ("A320", "A320", "Airbus"),
    ("BAE 146-200", "BAE 146", "British Aerospace"),
    ("DHC-8-100", "Dash 8", "de Havilland"),
    ("F/A-18", "F/A-18", "McDonnell Douglas"),
)
BANNER = 20  # rows at the bottom of an aircraft photo


def fixtures(write):
    """Fixtures: `original`, a miniature that tests only read, and `copy`, which each may change."""

    @pytest.fixture(scope="module")
    def original(tmp_path_factory):
        return write(tmp_path_factory.mktemp("original"))

    @pytest.fixture
    def copy(original, tmp_path):
        return shutil.copytree(original, tmp_path / "copy")

    return original, copy


def picture(label, number, size=(48, 40), classes=6):
    """uint8 RGB `[H, W, 3]` of `size` (width, height): a coloured disc on a smooth background."""
    rng = np.random.default_rng((label, number))
    width, height = size
    image = cv2.resize(
        rng.integers(90, 166, (3, 3, 3), np.uint8), size, interpolation=cv2.INTER_CUBIC
    )
    colour = tuple(int(255 * part) for part in colorsys.hsv_to_rgb(label / classes, 1.0, 0.9))
    centre = rng.uniform(0.35, 0.65, 2) * size
    cv2.circle(image, tuple(int(x) for x in centre), max(1, min(size) // 4), colour, -1)
    return image


def encode(image, extension=".jpg", **options):
    """The bytes of an image file; `options` are those of Pillow's save."""
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}
    if extension in (".jpg", ".jpeg"):
        options.setdefault("quality", 95)
    picture_ = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    picture_.save(stream, kinds.get(extension, extension[1:].upper()), **options)
    return stream.getvalue()


def write_image(path, image, **options):
    """Writes an image in the format of the path's extension, with the folders it needs."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image, path.suffix.lower(), **options))
    return path


def png_header(width, height):
    """A PNG that claims to be huge and holds next to no pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def write_folder(
    root, *, classes=("gull", "tern", "wren"), splits=None, size=(48, 40), suffix=".jpg"
):
    """ROOT/SPLIT/CLASS/NNN.jpg; `splits`: {split: images a class}. `splits` as a number of images
    a class gives ROOT/CLASS/NNN.jpg."""
    root = Path(root)
    splits = {"train": 4, "val": 2, "test": 2} if splits is None else splits
    parts = {"": splits} if isinstance(splits, int) else splits
    for part, (split, count) in enumerate(parts.items()):
        for label, name in enumerate(classes):
            for i in range(count):
                image = picture(label, 1000 * part + i, size, len(classes))
                write_image(root / split / name / f"{i:03d}{suffix}", image)
    return root


def write_lines(path, rows):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def write_table(path, header, rows):
    """A CSV file of `rows` below `header`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_csv(root, *, labels=("gull", "tern", "wren"), splits=None, size=(48, 40)):
    """ROOT/images/*.jpg and ROOT/labels.csv with the columns path, label, split and a box."""
    root, rows = Path(root), []
    for split, count in (splits or {"train": 4, "val": 2, "test": 2}).items():
        for label, name in enumerate(labels):
            for i in range(count):
                file = f"images/{split}_{label}_{i}.jpg"
                write_image(root / file, picture(label, len(rows), size, len(labels)))
                rows.append([file, name, split, 4, 6, size[0] - 2, size[1] - 3])
    header = ["path", "label", "split", "x0", "y0", "x1", "y1"]
    return write_table(root / "labels.csv", header, rows)


def write_cars_csv(root, *, classes=3, splits=None, size=(48, 40)):
    """ROOT/{train,test}.csv with the header filename,bbox_x1,bbox_y1,bbox_x2,bbox_y2,class_id, ids
    from 1 (label column 5), boxes from 1 inclusive; pictures in ROOT/cars_{train,test}/."""
    root = Path(root)
    for split, count in (splits or {"train": 4, "test": 2}).items():
        rows = []
        for i in range(count * classes):
            label, name = i % classes, f"{i + 1:05d}.jpg"
            image = picture(label, i + 1000 * (split == "test"), size, classes)
            write_image(root / f"cars_{split}" / name, image)
            rows.append([name, 1, 1, size[0], size[1], label + 1])
        header = "filename,bbox_x1,bbox_y1,bbox_x2,bbox_y2,class_id".split(",")
        write_table(root / f"{split}.csv", header, rows)
    return root


def write_aircraft(root, *, counts=None, size=(64, 68)):
    """ROOT/fgvc-aircraft-2013b/data as the official archive has it: 7-digit ids, lists a level and
    split, boxes from 1 inclusive of which one starts at 0 and one reaches into the banner. `size`
    is with the banner of white rows; `counts`: {split: images a variant}. Returns ROOT."""
    data = Path(root) / "fgvc-aircraft-2013b" / "data"
    width, height = size
    variants, families, manufacturers = (
        sorted(set(names)) for names in zip(*AIRCRAFT, strict=True)
    )
    lines = {"variants": variants, "families": families, "manufacturers": manufacturers}
    number = 34309
    for split, count in (counts or {"train": 4, "val": 4, "test": 3}).items():
        lists = [split] if split == "test" else [split, "trainval"]
        for i in range(count):
            for label, (variant, family, manufacturer) in enumerate(AIRCRAFT):
                photo = f"{number:07d}"
                image = picture(label, number, (width, height - BANNER), len(AIRCRAFT))
                banner = np.full((BANNER, width, 3), 255, np.uint8)
                write_image(data / "images" / f"{photo}.jpg", np.concatenate([image, banner]))
                for list_name in lists:
                    lines.setdefault(f"images_{list_name}", []).append(photo)
                    levels = {"variant": variant, "family": family, "manufacturer": manufacturer}
                    for level, name in levels.items():
                        lines.setdefault(f"images_{level}_{list_name}", []).append(
                            f"{photo} {name}"
                        )
                box = (3, 5, width - 4, height - BANNER - 2)
                if (i, label) == (0, 0):
                    box = (0, 5, width, height)
                lines.setdefault("images_box", []).append(" ".join([photo, *map(str, box)]))
                number += 11
    for name, content in lines.items():
        (data / f"{name}.txt").write_text("\n".join(content) + "\n")
    return Path(root)


def reader_of(options: dict) -> pipeline.Reader:
    """Takes what a Reader has out of the options of batches."""
    names = [field.name for field in dataclasses.fields(pipeline.Reader)]
    return pipeline.Reader(**{name: options.pop(name) for name in names if name in options})


def joined(batches):
    """Several batches as one."""
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def assert_equal(got, expected):
    """That two lists of batches are the same."""
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
