"""CUB-200 (Caltech-UCSD Birds of 2010, CNS-TR-2010-001): 6,033 photos of 200 species of birds.

Also an anonymised copy, used in a competition of a course (NYCU, Visual Recognition using Deep
Learning, 2021); its test labels were never published.
"""

import dataclasses
import functools
import os
from concurrent import futures
from typing import Literal

import numpy as np

from fgc_jax.data import archives, boxes, dataset
from fgc_jax.data.sources import cub, listing, matlab, places

NAME = "CUB-200 (2010)"
LICENCE = "no licence is stated; photos from Flickr, used for research"
IMAGENET = "photos from Flickr, as ImageNet's; images in both are likely, their number is unknown"
DRIVE = "https://drive.google.com/uc?export=download&id="
ANNOTATIONS = archives.Archive(
    "annotations.tgz",
    11_531_634,
    "annotations-mat",
    url=f"{DRIVE}16NsbTpMs5L6hT4hUJAmpW2u7wH326WTR",
    sha256="c17b7841c21a66aa44ba8fe92369cc95dfc998946081828b1d7b8a4b716805c1",
)
OFFICIAL = (
    archives.Archive(
        "images.tgz",
        679_421_896,
        "images/001.Black_footed_Albatross",
        url=f"{DRIVE}1GDr1OkoXdhaXWGA8S3MAq3a522Tak-nx",
        sha256="2a6d2246bbb9778ca03aa94e2e683ccb4f8821a36b7f235c0822e659d60a803e",
    ),
    archives.Archive(
        "lists.tgz",
        201_844,
        "lists/files.txt",
        url=f"{DRIVE}1vZuZPqha0JjmwkdaS_XtYryE3Jf5Q1AC",
        sha256="aeacbd5e3539ae84ea726e8a266a9a119c18f055cd80f3836d5eb4500b005428",
    ),
    ANNOTATIONS,
)
HOMEWORK = (
    archives.Archive("2021VRDL_HW1_datasets.zip", 0, "2021VRDL_HW1_datasets/training_labels.txt"),
)
ARCHIVES = OFFICIAL + HOMEWORK
# Google Drive does not keep file names.
NOTE = f"{LICENCE}; from Google Drive save them as images.tgz, lists.tgz and annotations.tgz"
# The file that identifies a layout.
MARKERS = {"official": "lists/train.txt", "homework": "training_labels.txt"}
SIDES = ("left", "top", "right", "bottom")


def load(root, *, layout: Literal["auto", *MARKERS] = "auto"):
    """The official splits (train 3,000, test 3,033), or the homework's train (3,000) alone.

    `layout` "official": images, lists and, for boxes and masks, annotations-mat (each a folder or
    its archive); masks are those of one rater. "homework": training_images, training_labels.txt and
    classes.txt; class names keep their numbers ("001.Black_footed_Albatross"), as required in
    answer files; for its test images see `test_order`. "auto": the layout that is there.

    Boxes are read as counted from 0, second corner excluded, like those of CUB-200-2011; the files
    do not state it.

    Raises:
        ValueError: files are missing, or the lists contradict each other.
    """
    wanted = tuple(MARKERS.values()) if layout == "auto" else MARKERS[layout]
    known = {"auto": ARCHIVES, "official": OFFICIAL, "homework": HOMEWORK}[layout]
    folder = places.find(NAME, root, known, wanted, note=NOTE)
    if layout == "auto":
        layout = next(n for n, file in MARKERS.items() if os.path.isfile(f"{folder}/{file}"))
    class_names, splits = _official(root, folder) if layout == "official" else _homework(folder)
    return dataset.Dataset(
        name="cub2010",
        class_names=class_names,
        splits=splits,
        notes=f"{NAME}, {layout} layout",
        licence=LICENCE,
        imagenet_overlap=IMAGENET,
    )


def test_order(root):
    """The unlabelled test images of the homework: (their folder, their file names in the order of
    an answer file). ValueError as for `load`."""
    file = "testing_img_order.txt"
    folder = places.find(NAME, root, HOMEWORK, file, note=LICENCE)
    names = listing.lines(os.path.join(folder, file))
    listing.refuse_repeated(os.path.join(folder, file), names, set())
    pictures = os.path.join(folder, "testing_images")
    listing.refuse_missing_files(os.path.join(folder, file), pictures, names)
    return pictures, names


def _official(root, folder):
    lists = os.path.join(folder, "lists")
    classes = listing.lines(os.path.join(lists, "classes.txt"))
    names = {
        split: listing.lines(os.path.join(lists, f"{split}.txt")) for split in ("train", "test")
    }
    all_names = listing.lines(os.path.join(lists, "files.txt"))
    strays = sorted(set(all_names) ^ {name for split in names.values() for name in split})
    listing.refuse(lists, strays, "images are not in both files.txt and train.txt or test.txt")
    first = f"images/{listing.first(os.path.join(lists, 'train.txt'), names['train'])}"
    pictures = os.path.join(places.find(NAME, root, OFFICIAL, first, note=NOTE), "images")
    annotated = cub.is_there(folder, ANNOTATIONS)
    splits, seen = {}, set()
    for split, files in names.items():
        path = os.path.join(lists, f"{split}.txt")
        listing.check_files(path, pictures, files, seen)
        labels = listing.labels(path, [name.partition("/")[0] for name in files], classes)
        box_source, annotations = None, {}
        if annotated:
            mats = _Mats(os.path.join(folder, ANNOTATIONS.creates), dataset.text_array(files))
            missing = [mats.name(i) for i in range(len(files))]
            listing.refuse_missing_files(path, mats.folder, missing)
            box_source, annotations = functools.partial(_boxes, mats), {"mask": mats}
        splits[split] = dataset.file_split(
            pictures, files, labels, boxes=box_source, annotations=annotations
        )
    return cub.readable(classes), splits


def _homework(folder):
    path = os.path.join(folder, "training_labels.txt")
    classes = listing.lines(os.path.join(folder, "classes.txt"))
    found = listing.mapping(path)
    pictures = os.path.join(folder, "training_images")
    listing.refuse_missing_files(path, pictures, found)
    labels = listing.labels(path, found.values(), classes)
    return tuple(classes), {"train": dataset.file_split(pictures, list(found), labels)}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Mats:
    """The annotation files of a split; called, the annotation "mask"."""

    folder: str
    names: np.ndarray

    def name(self, index):
        return os.path.splitext(self.names[index])[0] + ".mat"

    def box(self, index):
        """left, top, right, bottom as four texts."""
        path = os.path.join(self.folder, self.name(index))
        return [values[0] for values in matlab.columns(path, "bbox", *SIDES)]

    def __call__(self, index):
        (mask,) = matlab.read(os.path.join(self.folder, self.name(index)), "seg")
        return np.where(mask > 0, np.uint8(255), np.uint8(0))


def _boxes(mats):
    """float32 `[N, 4]`, read from N files."""
    with futures.ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(mats.box, range(len(mats.names))))
    corners = boxes.from_corners(listing.numbers(mats.folder, rows, "bad boxes"), origin=0)
    empty = np.flatnonzero((corners[:, 2:] <= corners[:, :2]).any(axis=1))
    listing.refuse(mats.folder, [mats.name(i) for i in empty], "empty boxes")
    return corners
