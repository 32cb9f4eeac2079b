"""Data sets in tables: one CSV file, or one for each split, with a row for each image or object."""

import collections
import csv
import dataclasses
import functools
import math
import os
from typing import Literal

import numpy as np

from fgc_jax.config import Seed
from fgc_jax.data import boxes as conventions
from fgc_jax.data import dataset, splitting
from fgc_jax.data.sources import listing

# `name`: as written in the row; `photo`: the real path, which identifies the image.
Row = collections.namedtuple("Row", "number name path photo label split box")


Column = str | int  # its name, or its number from 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a table has what; see `load`. ValueError if `box_columns` or `box_origin` is wrong."""

    label_column: Column
    path_column: Column = 0
    split_column: Column | None = None
    box_columns: tuple[Column, ...] | None = None
    box_origin: int = 0
    image_root: str | None = None
    delimiter: str = ","

    def __post_init__(self):
        if self.box_columns is not None and len(self.box_columns) != 4:
            raise ValueError(
                f"box_columns must be the four columns x0, y0, x1, y1, got {self.box_columns}"
            )
        if self.box_origin not in (0, 1):
            raise ValueError(f"box_origin must be 0 or 1, got {self.box_origin}")


def load(
    root,
    *,
    label_column: Column,
    path_column: Column = 0,
    split_column: Column | None = None,
    box_columns: tuple[Column, Column, Column, Column] | None = None,
    box_origin: Literal[0, 1] = 0,
    image_root: str | None = None,
    delimiter: str = ",",
    test_fraction: float | None = None,
    seed: Seed = 0,
):
    """The rows of the CSV file `root`, or of train.csv, val.csv and test.csv in the folder `root`.

    Columns are given by name or by number from 0; the first line is the header. Image paths are
    absolute, or relative to `image_root`, which is relative to the CSV's folder; "{split}" in it is
    replaced by the split. Labels are words or whole numbers (then sorted as numbers); the class
    names are their texts. `split_column` contains train, val (or valid, validation) or test.
    `box_columns`: four columns x0, y0, x1, y1 in pixels; `box_origin` 0: counted from 0, x1 and y1
    excluded; 1: counted from 1, included (MATLAB, Stanford Cars).

    If there is no test split, `test_fraction` of the training rows become it (None: 0.2 for a
    single table without splits, else 0).

    Raises:
        ValueError: missing files, unknown splits or labels, repeated images or invalid boxes; the
            message names row and value.
    """
    tables = _tables(root, split_column)
    columns = Columns(
        label_column=label_column,
        path_column=path_column,
        split_column=split_column,
        box_columns=box_columns,
        box_origin=box_origin,
        image_root=image_root,
        delimiter=delimiter,
    )
    rows = {split: [] for split in dataset.SPLITS}
    for table_split, path in tables.items():
        for row in _read_rows(path, table_split, columns):
            rows[row.split].append((path, row))
    _refuse_repeats(rows)
    rows = {split: pairs for split, pairs in rows.items() if pairs}
    if "train" not in rows:
        raise ValueError(f"{root}: no rows of the split 'train'")
    class_names = sort_labels({row.label for _, row in rows["train"]})
    splits = {
        split: _make_split([row for _, row in pairs], class_names, pairs[0][0])
        for split, pairs in rows.items()
    }
    data = dataset.Dataset("csv", class_names, splits, notes=f"from {root}")
    if test_fraction is None:
        test_fraction = 0.2 if list(tables) == [None] and split_column is None else 0.0
    elif test_fraction and "test" in splits:
        raise ValueError(
            f"{root} has test rows, so test_fraction must be None, not {test_fraction}"
        )
    return splitting.with_fraction(data, "test", test_fraction, seed)


def labelled_split(path, class_names, columns, first_label=None):
    """All rows of one CSV file as a Split with the classes of an existing model.

    A label is one of `class_names`. If these are words and the labels are numbers, a label is the
    number of a class, and `first_label` (0 or 1) is the number of the first.

    Raises:
        ValueError: a label is neither; the message names its row.
    """
    rows = _read_rows(path, None, columns)
    _refuse_repeats({"test": [(path, row) for row in rows]})
    if first_label is not None:
        numbered = {str(i + first_label): name for i, name in enumerate(class_names)}
        unknown = [f"row {row.number}: {row.label!r}" for row in rows if row.label not in numbered]
        allowed = f"the numbers {first_label} to {first_label + len(class_names) - 1}"
        listing.refuse(path, unknown, f"labels outside of {allowed}")
        rows = [row._replace(label=numbered[row.label]) for row in rows]
    return _make_split(rows, tuple(class_names), path)


def image_files(path, *, path_column=0, **options):
    """(names, files) of the images of one CSV file, without labels; the options are
    fields of Columns.

    Raises:
        ValueError: a file is missing or an image occurs twice; the message names the row.
    """
    columns = Columns(label_column=path_column, path_column=path_column, **options)
    rows = _read_rows(path, None, columns)
    _refuse_repeats({"test": [(path, row) for row in rows]})
    return [row.name for row in rows], [row.path for row in rows]


def _read_rows(path, split, columns):
    """The rows of one file, a list of Row. `split`: that of all rows; None: that of the split
    column, or train if there is none."""
    rows, problems = [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=columns.delimiter, strict=True)
            places = _places(path, next(reader, []), columns)
            for number, cells in enumerate(reader, start=2):
                if not cells:
                    continue
                try:
                    rows.append(_row(path, number, cells, places, split, columns))
                except ValueError as error:
                    problems.append(f"row {number}: {error}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as CSV ({error})") from error
    listing.refuse(path, problems, "bad rows")
    if not rows:
        raise ValueError(f"{path}: no rows below the header")
    return rows


def _places(path, header, columns):
    """The numbers of the columns: (path, label, split or None, four for the box or none)."""
    if not header:
        raise ValueError(f"{path}: the file is empty; it needs a header line")
    place = functools.partial(_column, path, header)
    split = None if columns.split_column is None else place(columns.split_column)
    box = [place(column) for column in columns.box_columns or ()]
    return place(columns.path_column), place(columns.label_column), split, box


def _row(path, number, cells, places, split, columns):
    at_path, at_label, at_split, at_box = places
    used = max(at_path, at_label, at_split or 0, *at_box) + 1
    if len(cells) < used:
        raise ValueError(f"{len(cells)} columns, at least {used} needed")
    split = split or _split("train" if at_split is None else cells[at_split])
    name = cells[at_path].strip()
    folder = os.fspath(columns.image_root or "").replace("{split}", split)
    file = os.path.join(os.path.dirname(path), folder, name)
    if not name or not os.path.isfile(file):
        raise ValueError(f"there is no file {file!r}")
    box = _box([cells[i] for i in at_box], columns.box_origin) if at_box else None
    return Row(number, name, file, _real_path(file), _label(cells[at_label]), split, box)


def _real_path(file):
    """`file` without links, "." and "..". The folder's is cached, as most rows share it."""
    folder, name = os.path.split(file)
    if os.path.islink(file):
        return os.path.realpath(file)
    return os.path.join(_real_folder(os.path.join(os.getcwd(), folder)), name)


_real_folder = functools.lru_cache(maxsize=1024)(os.path.realpath)


def sort_labels(labels):
    """The class names: sorted as numbers if all labels are whole numbers, else as words."""
    try:
        return tuple(sorted(labels, key=int))
    except ValueError:
        return tuple(sorted(labels))


def _tables(root, split_column):
    """{split or None: path of the CSV file}."""
    if not root:
        raise ValueError("the data root is not set: give the CSV file or its folder (data.root)")
    root = os.fspath(root)
    if os.path.isfile(root):
        return {None: root}
    if not os.path.isdir(root):
        raise ValueError(f"{root}: the CSV file or folder is missing")
    tables = {split: os.path.join(root, f"{split}.csv") for split in dataset.SPLITS}
    tables = {split: path for split, path in tables.items() if os.path.isfile(path)}
    if "train" not in tables:
        raise ValueError(
            f"{root}: no train.csv in this folder; add it, or give the path of a CSV file"
        )
    if split_column is not None:
        raise ValueError(
            f"{root}: the files {sorted(tables)} are the splits, so split_column must be None"
        )
    return tables


def _column(path, header, column):
    """The number, from 0, of a column that is given by its name or number (int or digits)."""
    if header.count(column) > 1:
        raise ValueError(f"{path}: {header.count(column)} columns are named {column!r}")
    if column in header:
        return header.index(column)
    if str(column).isdecimal() and int(column) < len(header):
        return int(column)
    raise ValueError(
        f"{path}: no column {column!r}; columns 0 to {len(header) - 1}: {', '.join(header)}"
    )


def _split(value):
    split = dataset.SPLIT_ALIASES.get(value.strip().lower())
    if split is None:
        raise ValueError(f"unknown split {value!r}, allowed: {', '.join(dataset.SPLIT_ALIASES)}")
    return split


def _label(value):
    """The label's text; whole numbers without leading zeros, so that 07 and 7 are one class."""
    value = value.strip()
    if not value:
        raise ValueError("the label is empty")
    return str(int(value)) if value.isdecimal() else value


def _box(cells, origin):
    """(x0, y0, x1, y1), 0-based and half-open."""
    x0, y0, x1, y1 = conventions.from_corners([float(cell) for cell in cells], origin).tolist()
    if not (x0 < x1 and y0 < y1 and math.isfinite(x0 + y0 + x1 + y1)):
        raise ValueError(f"the box {', '.join(cells)} is empty; x0 < x1 and y0 < y1 are required")
    return x0, y0, x1, y1


def _refuse_repeats(rows):
    """ValueError if an image (with the same box) occurs twice, or in two splits."""
    boxes_of, repeats, path = {}, [], None
    for split, pairs in rows.items():
        for path, row in pairs:  # noqa: B007
            where = f"{os.path.basename(path)} row {row.number}"
            first = boxes_of.setdefault(row.photo, (where, split, set()))
            first_where, first_split, boxes = first
            if split != first_split or row.box in boxes:
                repeats.append(
                    f"{where}: {row.path!r} ({split}), first {first_where} ({first_split})"
                )
            boxes.add(row.box)
    listing.refuse(path, repeats, "images listed twice")


def _make_split(rows, class_names, path):
    number = {name: i for i, name in enumerate(class_names)}
    unknown = [f"row {row.number}: {row.label!r}" for row in rows if row.label not in number]
    allowed = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
    listing.refuse(path, unknown, f"unknown labels (allowed: {allowed})")
    # Names are shown and stored relative to the folder that holds all of the images.
    # One name for each photo, even if a link gives it a second: splitting keeps equal names
    # together.
    first = {}
    paths = [first.setdefault(row.photo, row.path) for row in rows]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]
    labels = np.array([number[row.label] for row in rows], np.int32)
    boxes = None if rows[0].box is None else np.array([row.box for row in rows], np.float32)
    return dataset.file_split(root, names, labels, boxes=boxes)
