"""NABirds (Van Horn et al., "Building a bird recognition app and large scale dataset with citizen
scientists", CVPR 2015): 48,562 photos of 555 kinds of North American birds."""

import dataclasses
import functools
import os

import numpy as np

from fgc_jax.data import archives, boxes, dataset
from fgc_jax.data.sources import listing, places

ARCHIVES = (
    archives.Archive(
        file="nabirds.tar.gz",
        size=0,
        creates="nabirds",
        md5="df21a9e4db349a14e2b08adfd45873bd",
    ),
)
NOTE = (
    "about 9.8 GB, available with the form at https://dl.allaboutbirds.org/nabirds, for "
    "non-commercial research and education only"
)
LICENCE = "terms of the Cornell Lab of Ornithology: non-commercial; photographers keep copyright"
IMAGENET = "59 of ImageNet's 1,000 classes are birds; shared photos have not been counted"


def load(root):
    """The official splits, train (23,929) and test (24,633), with the 555 leaves as classes.

    `root`: the folder nabirds, its parent folder, or the archive. Labels are the numbers, from 0,
    of the class ids that have images, in ascending order. The hierarchy lists their ancestors
    without the root, "Birds". Some boxes reach a little beyond their photo and are clipped. The
    annotation "parts" (11 points, zeros if not visible) exists if there is a folder parts.

    Raises:
        ValueError: the data are missing (with their address), or a list is damaged.
    """
    folder = places.find("NABirds", root, ARCHIVES, "hierarchy.txt", note=NOTE)
    photos = os.path.join(folder, "images")
    path = os.path.join(folder, "images.txt")
    files = listing.mapping(path)
    listing.refuse_missing_files(path, photos, files.values())
    labels, class_names, hierarchy = _classes(folder, files)
    corners = boxes.from_sizes(_numbers(folder, "bounding_boxes.txt", files, 4))
    sizes = _numbers(folder, "sizes.txt", files, 2)
    names = dataset.text_array(list(files.values()))
    points = _Points(os.path.join(folder, "parts"), tuple(files))
    whole = dataset.Split(
        labels,
        names,
        dataset.Files(photos, names),
        corners,
        sizes,
        {"parts": points} if points.names else {},
    )
    in_train = _numbers(folder, "train_test_split.txt", files, 1)[:, 0]
    path = os.path.join(folder, "train_test_split.txt")
    listing.refuse(path, sorted(set(in_train.tolist()) - {0, 1}), "values that are not 0 or 1")
    rows = {"train": np.flatnonzero(in_train), "test": np.flatnonzero(in_train == 0)}
    return dataset.Dataset(
        "nabirds",
        class_names,
        {split: dataset.subset(whole, chosen) for split, chosen in rows.items()},
        notes=f"NABirds, {len(class_names)} leaves of the hierarchy, official train and test",
        licence=LICENCE,
        imagenet_overlap=IMAGENET,
        hierarchy=hierarchy,
        part_names=points.names,
    )


def _values(folder, file, ids, columns):
    """The values of `file` for each of `ids`, in their order: lists of `columns` words."""
    path = os.path.join(folder, file)
    found = listing.mapping(path, columns + 1)
    listing.refuse(path, [key for key in ids if key not in found], "images without a line")
    return path, [found[key] if columns > 1 else [found[key]] for key in ids]


def _numbers(folder, file, ids, columns):
    path, rows = _values(folder, file, ids, columns)
    return listing.numbers(path, rows, "lines with bad numbers", int)


def _classes(folder, files):
    """(labels, class names, hierarchy) of the classes that occur."""
    path, rows = _values(folder, "image_class_labels.txt", files, 1)
    numbers = listing.numbers(path, rows, "bad class ids", int)[:, 0]
    found, labels = np.unique(numbers, return_inverse=True)
    names = listing.mapping(os.path.join(folder, "classes.txt"))
    above = os.path.join(folder, "hierarchy.txt")
    parents = listing.mapping(above)
    ids = [str(number) for number in found]
    listing.refuse(path, [key for key in ids if key not in names], "classes without a name")
    hierarchy = []
    for key in ids:
        line = []
        while key in parents and len(line) <= len(parents):
            key = parents[key]
            line.append(names.get(key, key))
        listing.refuse(above, [key] * (len(line) > len(parents)), "classes above themselves")
        hierarchy.append(tuple(line[-2::-1]))
    return labels, tuple(names[key] for key in ids), tuple(hierarchy)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Points:
    """The annotation "parts" of the images `ids`."""

    folder: str
    ids: tuple[str, ...]

    def __call__(self, index):
        return self.table[index]

    @functools.cached_property
    def numbers(self):
        """{id: name} of the parts; {} if the folder is missing."""
        there = os.path.isdir(self.folder)
        return listing.mapping(os.path.join(self.folder, "parts.txt")) if there else {}

    @property
    def names(self):
        return tuple(self.numbers.values())

    @functools.cached_property
    def table(self):
        """float32 `[N, P, 3]`. Half a million lines, so they are read at the first use."""
        path = os.path.join(self.folder, "part_locs.txt")
        rows = listing.table(path, 5)
        image = {key: i for i, key in enumerate(self.ids)}
        part = {key: i for i, key in enumerate(self.numbers)}
        strays = [" ".join(row[:2]) for row in rows if row[0] not in image or row[1] not in part]
        listing.refuse(path, strays, "points of unknown images or parts")
        values = listing.numbers(path, [row[2:] for row in rows], "bad points")
        values[values[:, 2] == 0] = 0
        table = np.zeros((len(image), len(part), 3), np.float32)
        table[[image[row[0]] for row in rows], [part[row[1]] for row in rows]] = values
        return table
