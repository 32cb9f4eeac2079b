"""Food-101 (Bossard et al., "Food-101: mining discriminative components with random forests", ECCV
2014): 101,000 photos of 101 dishes."""

import os

from fgc_jax.data import archives, dataset
from fgc_jax.data.sources import listing, places

ARCHIVES = (
    archives.Archive(
        file="food-101.tar.gz",
        size=4_996_278_331,
        creates="food-101",
        url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
        md5="85eeb15f3717b99a5da872d97d918f87",
        sha256="d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
    ),
)
LICENCE = "photos from Foodspotting, not the authors' property: scientific fair use only"
IMAGENET = "ImageNet has some of the dishes as classes; shared photos have not been counted"
NOTES = (
    "Food-101, official train and test; the training labels are noisy on purpose (wrong labels, "
    "intense colours), the test labels were cleaned"
)


def load(root):
    """The official splits, train (75,750) and test (25,250), classes in the order of classes.txt.

    `root`: the folder food-101, its parent folder, or the archive. There are no boxes. ValueError
    if the data are missing (with their address) or a list is damaged.
    """
    folder = places.find("Food-101", root, ARCHIVES, "meta/classes.txt", note=LICENCE)
    class_names = tuple(listing.lines(os.path.join(folder, "meta", "classes.txt")))
    images = os.path.join(folder, "images")
    splits, seen = {}, set()
    for split in ("train", "test"):
        path = os.path.join(folder, "meta", f"{split}.txt")
        photos = listing.lines(path)
        labels = listing.labels(path, [photo.rpartition("/")[0] for photo in photos], class_names)
        names = [f"{photo}.jpg" for photo in photos]
        listing.check_files(path, images, names, seen)
        splits[split] = dataset.file_split(images, names, labels)
    return dataset.Dataset(
        "food", class_names, splits, notes=NOTES, licence=LICENCE, imagenet_overlap=IMAGENET
    )
