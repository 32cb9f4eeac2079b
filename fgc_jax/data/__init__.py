"""Data sets: their sources (DATASETS), and images given by path for evaluation and prediction."""

import functools
import inspect
import os

from fgc_jax import config
from fgc_jax.data import images
from fgc_jax.data.sources import (
    aircraft,
    cars,
    csv_file,
    cub,
    cub2010,
    dogs,
    flowers,
    folder,
    food,
    inaturalist,
    listing,
    nabirds,
    pets,
    prepared,
    synthetic_birds,
    tfds_sets,
)

DATASETS = {
    "folder": folder.load,
    "csv": csv_file.load,
    "prepared": prepared.load,
    "synthetic_birds": synthetic_birds.load,
    "aircraft": aircraft.load,
    "cars": cars.load,
    "cub": cub.load,
    "cub2010": cub2010.load,
    "dogs": dogs.load,
    "flowers": flowers.load,
    "food": food.load,
    "inaturalist": inaturalist.load,
    "nabirds": nabirds.load,
    "pets": pets.load,
    "tfds": tfds_sets.load,
}


def load(name, root, given):
    """The Dataset `name` at `root`; the `load` function of its source documents the options that
    may be `given`.

    `name` is a key of DATASETS, or "tfds:NAME" for a data set of TensorFlow Datasets.

    Raises:
        ValueError: the name or an option is unknown, a required option is missing, or the data are
            missing or inconsistent.
    """
    return _source(name)(root, **options(name, given))


def options(name, given):
    """All options of the data set `name`: the `given` ones and defaults. Raises ValueError."""
    return config.options(_source(name), given, f"data set {name!r}: ")


def archives_of(name, given):
    """The official archives of the data set `name` with the options `given`, for a download.

    Raises:
        ValueError: the name or an option is wrong, or the data set has no archives.
    """
    chosen, source = options(name, given), inspect.getmodule(DATASETS[name.partition(":")[0]])
    if hasattr(source, "archives_of"):
        wanted = inspect.signature(source.archives_of).parameters
        return source.archives_of(**{key: chosen[key] for key in wanted})
    if not getattr(source, "ARCHIVES", ()):
        raise ValueError(f"the data set {name!r} has no archives to download")
    return source.ARCHIVES


def _source(name):
    """The `load` function of a data set."""
    key, _, of_tfds = name.partition(":")
    if key not in DATASETS or (of_tfds != "") != (key == "tfds"):
        allowed = ", ".join(DATASETS).replace("tfds", "tfds:NAME")
        raise ValueError(f"unknown data set {name!r}, allowed: {allowed}")
    return functools.partial(DATASETS[key], tfds_name=of_tfds) if of_tfds else DATASETS[key]


def labelled_split(path, class_names, *, label_column=None, first_label=None, **columns):
    """The labelled images at `path` as one Split with the `class_names` of an existing model.

    `path`: a folder of class folders, or a CSV file with `label_column`. For `first_label` see
    csv_file.labelled_split, for the columns csv_file.Columns. Classes may be missing.

    Raises:
        ValueError: a label is unknown; the message names the class folder or row, and the classes.
    """
    if os.path.isdir(path):
        if label_column is not None or first_label is not None or columns:
            raise ValueError(f"{path} is a folder: columns and other CSV options do not apply")
        return folder.labelled_split(path, class_names)
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such folder or CSV file")
    if label_column is None:
        raise ValueError(f"{path}: give the label column, by name or by number from 0")
    if columns.get("split_column") is not None:
        raise ValueError("split_column does not apply: all rows are one split")
    columns = csv_file.Columns(label_column=label_column, **columns)
    return csv_file.labelled_split(path, class_names, columns, first_label)


def image_files(path, *, path_column=None, image_root=None, delimiter=None):
    """(names, files) of the images without labels at `path`.

    `path`: a folder (all image files in it and its subfolders, sorted; names are relative to it),
    a CSV file with a header (`path_column` by name or by number from 0; None: the first column), a
    ".txt" list with one file in each line, or one image. The files of a table or list keep their
    order and names; they are relative to `image_root`, which is relative to the folder of the table
    or list.

    Raises:
        ValueError: there is nothing at `path`, a file is missing, or an image is listed twice.
    """
    path = os.fspath(path)
    kind = os.path.splitext(path)[1].lower()
    given = {"path_column": path_column, "image_root": image_root, "delimiter": delimiter}
    given = {name: value for name, value in given.items() if value is not None}
    useful = {".csv": tuple(given), ".txt": ("image_root",)}.get(kind, ())
    strays = sorted(set(given) - set(useful))
    if os.path.isdir(path):
        strays = sorted(given)
    if strays:
        raise ValueError(f"{path}: {' and '.join(strays)} have no effect on this kind of input")
    if os.path.isdir(path):
        names = sorted(os.path.relpath(file, path) for file in folder.image_files(path))
        if not names:
            raise ValueError(
                f"{path}: the folder has no images; extensions are {' '.join(images.EXTENSIONS)}"
            )
        return [name.replace(os.sep, "/") for name in names], [f"{path}/{name}" for name in names]
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such folder, table, list or image")
    if kind == ".csv":
        return csv_file.image_files(path, **given)
    if kind != ".txt":
        return [os.path.basename(path)], [path]
    names = listing.lines(path)
    listing.first(path, names)
    root = os.path.join(os.path.dirname(path), image_root or "")
    listing.check_files(path, root, names, set())
    return names, [os.path.join(root, name) for name in names]
