"""CUB-200-2011 (Caltech-UCSD Birds, CNS-TR-2011-001): 11,788 photos of 200 species of birds."""

import dataclasses
import os
import re
import warnings

import numpy as np

from fgc_jax.data import archives, boxes, dataset, images
from fgc_jax.data.sources import listing, places

NAME = "CUB-200-2011"
LICENCE = "no licence is stated; photos from Flickr, used for research"
IMAGENET = (
    "according to its authors about two dozen of the 5,794 test images are, byte for byte, in "
    "ImageNet's training set"
)
SEGMENTATIONS = archives.Archive(
    "segmentations.tgz",
    39_272_883,
    "segmentations/001.Black_footed_Albatross",
    url="https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz",
    sha256="dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
)
ARCHIVES = (
    archives.Archive(
        "CUB_200_2011.tgz",
        1_150_585_339,
        "CUB_200_2011/images.txt",
        url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        md5="97eceeb196236b17998738112f37df78",
        sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
    ),
    SEGMENTATIONS,
)


def load(root):
    """The official splits: train 5,994, test 5,794.

    `root`: the folder CUB_200_2011, its parent folder, or the archive. Annotations: "parts", 15
    points (x, y in pixels from 0; both 0 if invisible), if there is a folder parts; "mask", the
    share of five raters, if segmentations (or its archive) is in or beside CUB_200_2011. Class
    names are without their numbers: "Black_footed_Albatross".

    Raises:
        ValueError: files are missing (with their addresses), or the lists contradict each other.
    """
    folder = places.find(NAME, root, ARCHIVES, "images.txt", note=LICENCE)

    def path(file):
        return os.path.join(folder, file)

    photos = listing.mapping(path("images.txt"))
    names = list(photos.values())
    classes = listing.mapping(path("classes.txt"))
    numbers = _values(path("image_class_labels.txt"), photos)
    labels = listing.labels(path("image_class_labels.txt"), numbers, classes)
    flags = _values(path("train_test_split.txt"), photos)
    trains = listing.labels(path("train_test_split.txt"), flags, ("0", "1"))
    rows = _values(path("bounding_boxes.txt"), photos, columns=5)
    sizes = listing.numbers(path("bounding_boxes.txt"), rows, "bad boxes")
    bad = [photo for photo, size in zip(photos, sizes, strict=True) if size[2:].min() <= 0]
    listing.refuse(path("bounding_boxes.txt"), bad, "empty boxes of the images")
    listing.refuse_missing_files(path("images.txt"), path("images"), names)
    part_names, points = _parts(folder, photos)
    segmentations = _segmentations(folder, names)

    def split(chosen):
        annotations = {}
        if part_names:
            annotations["parts"] = _Points(points[chosen])
        files = dataset.text_array(names)[chosen]
        if segmentations:
            annotations["mask"] = _Masks(segmentations, files)
        corners = boxes.from_sizes(sizes[chosen])
        return dataset.file_split(
            path("images"), files, labels[chosen], boxes=corners, annotations=annotations
        )

    return dataset.Dataset(
        name="cub",
        class_names=readable(classes.values()),
        splits={"train": split(trains == 1), "test": split(trains == 0)},
        notes=f"{NAME}, official splits",
        licence=LICENCE,
        imagenet_overlap=IMAGENET,
        part_names=part_names,
    )


def readable(names):
    """The class names without their numbers ("001."); unchanged if two would become equal."""
    names = tuple(names)
    short = tuple(re.sub(r"^\d+\.", "", name) for name in names)
    return short if len(set(short)) == len(names) else names


def _values(path, photos, columns=2):
    """The values that the list at `path` has for each of `photos`, in their order."""
    found = listing.mapping(path, columns)
    strays = sorted(set(found) ^ set(photos))
    listing.refuse(path, strays, "ids are in only one of this list and images.txt")
    return [found[photo] for photo in photos]


def _parts(folder, photos):
    """Names of the P parts, and float32 `[N, P, 3]`; () and None if there is no such list."""
    path = os.path.join(folder, "parts", "part_locs.txt")
    if not os.path.isfile(path):
        return (), None
    parts_path = os.path.join(folder, "parts", "parts.txt")
    parts = listing.mapping(parts_path)
    photo_ids = listing.numbers(path, [[photo] for photo in photos], "image ids are not numbers")
    part_ids = listing.numbers(parts_path, [[part] for part in parts], "part ids are not numbers")
    try:
        with warnings.catch_warnings(action="ignore"):  # of an empty file
            rows = np.loadtxt(path, np.float32, ndmin=2)  # eight times faster than listing
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as numbers ({error})") from error
    if rows.shape != (len(photos) * len(parts), 5):
        raise ValueError(
            f"{path}: {len(rows)} rows of {rows.shape[1]} numbers, "
            f"not {len(parts)} rows of 5 for each of {len(photos)} images"
        )
    expected = np.stack([photo_ids.repeat(len(parts)), np.tile(part_ids[:, 0], len(photos))], 1)
    wrong = (rows[:, :2] != expected).any(axis=1) | ~np.isfinite(rows).all(axis=1)
    listing.refuse(
        path, (np.flatnonzero(wrong) + 1).tolist(), "rows are out of order or not finite"
    )
    return tuple(parts.values()), rows[:, 2:].reshape(len(photos), len(parts), 3)


def _segmentations(folder, names):
    """The folder of the masks of all images, or None."""
    for place in (folder, os.path.dirname(os.path.abspath(folder))):
        if is_there(place, SEGMENTATIONS):
            masks = os.path.join(place, "segmentations")
            listing.refuse_missing_files(
                os.path.join(folder, "images.txt"), masks, [_mask_name(name) for name in names]
            )
            return masks
    return None


def is_there(folder, archive):
    """Whether the optional files of `archive` are in `folder`. Unpacks them if `folder` can be
    written."""
    if os.access(folder, os.W_OK):
        return places.unpacked(folder, archive)
    return archives.is_unpacked(archive, folder)


def _mask_name(name):
    return os.path.splitext(name)[0] + ".png"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Points:
    """The annotation "parts": row i of an array."""

    points: np.ndarray

    def __call__(self, index):
        return self.points[index]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Masks:
    """The annotation "mask": the picture `folder`/`names[i]`, a PNG file."""

    folder: str
    names: np.ndarray

    def __call__(self, index):
        return images.decode(os.path.join(self.folder, _mask_name(self.names[index])))[:, :, 0]
