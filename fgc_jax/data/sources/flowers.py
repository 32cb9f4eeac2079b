"""Oxford Flowers-102 (Nilsback and Zisserman, "Automated flower classification over a large number
of classes", ICVGIP 2008): 8,189 photos of 102 flowers."""

import os

import numpy as np

from fgc_jax.data import archives, dataset
from fgc_jax.data.sources import listing, matlab, places
from fgc_jax.data.sources.flower_names import NAMES

HOST = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
ARCHIVES = (
    archives.Archive(
        file="102flowers.tgz",
        size=344_862_509,
        creates="jpg/image_00001.jpg",
        url=f"{HOST}/102flowers.tgz",
        md5="52808999861908f626f3c1f4e79d11fa",
        sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
    ),
    archives.Archive(
        file="imagelabels.mat",
        size=502,
        creates="imagelabels.mat",
        url=f"{HOST}/imagelabels.mat",
        md5="e0620be6f572b9609742df49c70aed4d",
        sha256="4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
    ),
    archives.Archive(
        file="setid.mat",
        size=14_989,
        creates="setid.mat",
        url=f"{HOST}/setid.mat",
        md5="a5357ecc9cb78c4bef273ce3793fc85c",
        sha256="46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
    ),
)
LICENCE = "none stated; photos from the web"
IMAGENET = "ImageNet has a few of the flowers as classes; shared photos have not been counted"
NOTES = (
    "Flowers-102, official train, val and test; names of the classes from flower_names, for the "
    "data come without; some publications train on train and val together"
)
SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}


def load(root):
    """The official splits: train (1,020, ten of each class), val (1,020) and test (6,149).

    `root`: the folder with jpg (or 102flowers.tgz), imagelabels.mat and setid.mat, or its parent
    folder. There are no boxes.

    Raises:
        ValueError: the data are missing (with their addresses), or lists are damaged, have images
            in common or contain unknown ones.
    """
    first, label_file, split_file = (
        os.path.join(
            places.find("Flowers-102", root, ARCHIVES, archive.creates, note=LICENCE),
            archive.creates,
        )
        for archive in ARCHIVES
    )
    photos = os.path.dirname(first)
    (labels,) = matlab.read(label_file, "labels")
    labels = _whole(label_file, labels, len(NAMES), "labels")
    splits, seen = {}, set()
    for split, ids in zip(SPLITS, matlab.read(split_file, *SPLITS.values()), strict=True):
        ids = _whole(split_file, ids, len(labels), f"images in {split}")
        names = [f"image_{i:05d}.jpg" for i in ids.tolist()]
        listing.check_files(split_file, photos, names, seen)
        splits[split] = dataset.file_split(photos, names, labels[ids - 1] - 1)
    return dataset.Dataset(
        "flowers", NAMES, splits, notes=NOTES, licence=LICENCE, imagenet_overlap=IMAGENET
    )


def _whole(path, values, most, what):
    """`values` as int32. They must be whole numbers 1 to `most`; MATLAB stores them as floats."""
    if values.dtype.kind not in "uif":
        raise ValueError(f"{path}: the {what} are not numbers")
    good = (values == np.floor(values)) & (values >= 1) & (values <= most)
    bad = [f"{value:g}" for value in np.unique(values[~good])]
    listing.refuse(path, bad, f"unknown {what}, allowed are 1 to {most}")
    return values.astype(np.int32)
