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
        creates="jpg",
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
    """The official splits: train (1,020, ten a class), val (1,020) and test (6,149).

    `root`: the folder that holds jpg (or 102flowers.tgz), imagelabels.mat and setid.mat, or one
    that holds it. There are no boxes. ValueError where the data are missing (what to get and from
    where), or lists are damaged, share images or name unknown ones.
    """
    lists = [
        os.path.join(places.find("Flowers-102", root, ARCHIVES, file, note=LICENCE), file)
        for file in ("jpg", "imagelabels.mat", "setid.mat")
    ]
    photos, label_file, split_file = lists
    (labels,) = matlab.read(label_file, "labels")
    bad = [] if labels.dtype.kind in "uif" else ["not numbers"]
    bad = bad or sorted({str(n) for n in labels.ravel() if n not in range(1, len(NAMES) + 1)})
    listing.refuse(label_file, bad, f"labels outside 1 to {len(NAMES)}")
    splits, seen = {}, set()
    for split, ids in zip(SPLITS, matlab.read(split_file, *SPLITS.values()), strict=True):
        ids = ids.tolist()
        known = [i for i in ids if i in range(1, len(labels) + 1)]
        listing.refuse(split_file, sorted(set(ids) - set(known)), f"unknown images in {split}")
        listing.refuse(split_file, sorted(seen & set(ids)), f"images of {split} in another split")
        seen |= set(ids)
        names = [f"image_{i:05d}.jpg" for i in ids]
        listing.refuse_missing_files(split_file, photos, names)
        splits[split] = dataset.file_split(photos, names, labels[np.array(ids) - 1] - 1)
    return dataset.Dataset(
        "flowers", NAMES, splits, notes=NOTES, licence=LICENCE, imagenet_overlap=IMAGENET
    )
