"""Data sets: where they come from (DATASETS), and the batches that training and evaluation read."""

import functools
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


def load(name, root, options):
    """The Dataset `name` at `root`; `options` as its source's `load` documents them.

    `name` is a key of DATASETS, or "tfds:NAME" for a data set of TensorFlow Datasets. ValueError
    where the name or an option is unknown, an option that is needed is not given, or the data are
    missing or inconsistent.
    """
    key, _, of_tfds = name.partition(":")
    if key not in DATASETS or (of_tfds != "") != (key == "tfds"):
        allowed = ", ".join(DATASETS).replace("tfds", "tfds:NAME")
        raise ValueError(f"unknown data set {name!r}, allowed: {allowed}")
    source = DATASETS[key]
    if of_tfds:
        source = functools.partial(source, tfds_name=of_tfds)
    return source(root, **config.options(source, options, f"data set {name!r}: "))


def labelled_split(path, class_names, *, label_column=None, path_column=0, **csv_options):
    """The labelled images at `path` as one Split over the `class_names` of an existing model.

    `path`: a folder of class folders, or a CSV file (with `label_column`; see
    csv_file.labelled_split for this and the further options). Not all classes need to occur.
    ValueError naming class folder or row where a label is unknown, and the classes allowed.
    """
    if os.path.isdir(path):
        if label_column is not None or csv_options:
            raise ValueError(f"{path} is a folder: columns and other CSV options do not apply")
        return folder.labelled_split(path, class_names)
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such folder or CSV file")
    if label_column is None:
        raise ValueError(f"{path}: the label column must be given, by name or 0-based number")
    return csv_file.labelled_split(
        path, class_names, label_column=label_column, path_column=path_column, **csv_options
    )


def image_files(path, *, path_column=None, image_root=None, delimiter=None):
    """(names, files) of the images at `path`, for which no labels are known.

    `path`: a folder (all image files below it, sorted, named relative to it), a CSV file with a
    header (`path_column` by name or 0-based number, the first if None), a list ".txt" with a file
    in each line, or one image. The files of a table or list keep their order and their names; they
    are relative to `image_root`, which is relative to the folder of the table or list. ValueError
    where nothing is there, a file is missing, or an image is listed twice.
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
        raise ValueError(f"{path}: {' and '.join(strays)} do not apply to it")
    if os.path.isdir(path):
        names = sorted(os.path.relpath(file, path) for file in folder.image_files(path))
        if not names:
            raise ValueError(
                f"{path}: no images below it, looked for {' '.join(images.EXTENSIONS)}"
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
    listing.refuse_repeated(path, names, set())
    root = os.path.join(os.path.dirname(path), image_root or "")
    listing.refuse_missing_files(path, root, names)
    return names, [os.path.join(root, name) for name in names]
