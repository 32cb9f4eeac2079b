"""FGVC-Aircraft 2013b (arXiv:1306.5151): 10,000 photos of 100 variants, 70 families, 30 makers."""

import os

import numpy as np

from fgc_jax.data import dataset

BANNER = 20  # rows at the bottom of every photo that carry the photographer's name
LEVELS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
MISSING = """{root}: FGVC-Aircraft is not there ({reason}).
Get  https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz
     (2.75 GB, md5 d4acdd33327262359767eeaa97a4f732; for non-commercial research only)
then unpack it and give the folder as the data root:
     tar -xzf fgvc-aircraft-2013b.tar.gz -C FOLDER   and   --config.data.root=FOLDER"""


def load(root, *, level="variant", train_split="train"):
    """The official splits with the labels of one `level`: variant, family or manufacturer.

    `root`: the unpacked fgvc-aircraft-2013b, the folder that holds it, or its data folder.
    `train_split`: "train" gives the official train (3,334), val (3,333) and test (3,333); with
    "trainval" both of the first are "train" (6,667) and there is no "val": a fifth of it cut by
    dataset.with_validation makes the 5,333 / 1,334 of the bilinear CNN project.

    The banner is cut off every picture. Boxes are given from 0, half-open, clipped to the picture
    without its banner. ValueError where the data are missing (what to
    get and from where) or a list names an unknown label or image.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}, allowed: {', '.join(LEVELS)}")
    if train_split not in ("train", "trainval"):
        raise ValueError(f"unknown train_split {train_split!r}, allowed: train, trainval")
    folder = _find(root)
    class_names = tuple(_lines(folder, LEVELS[level]))
    boxes = dict(_pair(folder, "images_box.txt", line) for line in _lines(folder, "images_box.txt"))
    photos = {entry.name for entry in os.scandir(os.path.join(folder, "images"))}
    official = {"train": train_split, "val": "val", "test": "test"}
    if train_split == "trainval":
        del official["val"]
    splits = {}
    for split, list_name in official.items():
        file = f"images_{level}_{list_name}.txt"
        pairs = [_pair(folder, file, line) for line in _lines(folder, file)]
        labels = _labels(folder, file, pairs, class_names)
        names = [f"{photo}.jpg" for photo, _ in pairs]
        _refuse(
            folder, file, [name for name in names if name not in photos], "photos not in images/"
        )
        _refuse(
            folder,
            file,
            [photo for photo, _ in pairs if photo not in boxes],
            "photos without a box",
        )
        corners = np.array([_box(folder, photo, boxes[photo]) for photo, _ in pairs])
        splits[split] = dataset.file_split(
            os.path.join(folder, "images"),
            names,
            labels,
            boxes=corners,
            bottom=BANNER,
        )
    notes = f"FGVC-Aircraft 2013b, {level}, train is the official {train_split}"
    return dataset.Dataset("aircraft", class_names, splits, notes)


def _find(root):
    """The folder that holds variants.txt and images/."""
    if not root:
        raise ValueError(MISSING.format(root="the data root (data.root)", reason="it is not set"))
    if not os.path.isdir(root):
        raise ValueError(MISSING.format(root=root, reason="no such folder"))
    for below in ("", "data", "fgvc-aircraft-2013b/data"):
        folder = os.path.join(root, below)
        if os.path.isfile(os.path.join(folder, "variants.txt")):
            if not os.path.isdir(os.path.join(folder, "images")):
                raise ValueError(MISSING.format(root=folder, reason="annotations only, no images/"))
            return folder
    raise ValueError(
        MISSING.format(root=root, reason="no variants.txt in it, data/ or fgvc-aircraft-2013b/")
    )


def _lines(folder, file):
    try:
        with open(os.path.join(folder, file), encoding="utf-8") as stream:
            return [line.strip() for line in stream if line.strip()]
    except FileNotFoundError as error:
        raise ValueError(MISSING.format(root=folder, reason=f"{file} is missing")) from error


def _pair(folder, file, line):
    """(photo id, the rest): labels contain spaces and slashes."""
    photo, _, rest = line.partition(" ")
    if not rest:
        raise ValueError(f"{os.path.join(folder, file)}: {line!r} is not an id and a value")
    return photo, rest


def _labels(folder, file, pairs, class_names):
    number = {name: i for i, name in enumerate(class_names)}
    _refuse(
        folder, file, sorted({name for _, name in pairs if name not in number}), "unknown labels"
    )
    return np.array([number[name] for _, name in pairs], np.int32)


def _box(folder, photo, text):
    """x0, y0, x1, y1 from 0, half-open. The file counts from 1, both corners inside; but some
    of its boxes start at 0, which becomes -1 here and is clipped with the rest."""
    try:
        xmin, ymin, xmax, ymax = (int(value) for value in text.split())
    except ValueError as error:
        raise ValueError(
            f"{os.path.join(folder, 'images_box.txt')}: bad box of {photo}: {text!r}"
        ) from error
    return xmin - 1, ymin - 1, xmax, ymax


def _refuse(folder, file, names, what):
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise ValueError(f"{os.path.join(folder, file)}: {len(names)} {what}: {shown}")
