"""Oxford-IIIT Pets (Parkhi et al., "Cats and dogs", CVPR 2012): 7,349 photos of 12 breeds of cats
and 25 of dogs."""

import dataclasses
import functools
import os

import numpy as np

from fgc_jax.data import archives, boxes, dataset, images
from fgc_jax.data.sources import listing, places, voc

HOST = "https://thor.robots.ox.ac.uk/~vgg/data/pets"
ARCHIVES = (
    archives.Archive(
        file="images.tar.gz",
        size=791_918_971,
        creates="images/Abyssinian_1.jpg",
        url=f"{HOST}/images.tar.gz",
        md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
        sha256="67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
    ),
    archives.Archive(
        file="annotations.tar.gz",
        size=19_173_078,
        creates="annotations/trainval.txt",
        url=f"{HOST}/annotations.tar.gz",
        md5="95a8c909bbe2e81eed6a22bccdf3f68f",
        sha256="52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
    ),
)
LICENCE = "CC BY-SA 4.0; its readme asks to respect the terms of the sites the photos came from"
IMAGENET = "most of the dog breeds are ImageNet classes; shared photos have not been counted"
SPECIES = {1: "cat", 2: "dog"}
# Value of the trimap -> value of the mask: 1 pet, 2 background, 3 the border, not classified.
TRIMAP = np.array([0, 255, 0, 128], np.uint8)


def load(root):
    """The official splits: train (trainval, 3,680) and test (3,669), 37 breeds in 2 species.

    `root`: the folder with images and annotations (or their archives), or its parent folder. Class
    names are those in the file names, e.g. american_bulldog. Boxes are those of the head, of
    several the largest, NaN if a photo has none (all of test); they are read at the first use. The
    annotation "mask" is the trimap: 255 on the pet, 0 on the background, 128 on the border, which
    the annotators did not classify.

    Raises:
        ValueError: the data are missing (with their addresses), or a list is damaged.
    """
    find = functools.partial(places.find, "Oxford-IIIT Pets", note=LICENCE)
    folder = find(root, ARCHIVES, "annotations/trainval.txt")
    lists = os.path.join(folder, "annotations")
    paths = {split: os.path.join(lists, f"{split}.txt") for split in ("trainval", "test")}
    rows = {path: _rows(path) for path in paths.values()}
    firsts = {split: listing.first(path, rows[path]) for split, path in paths.items()}
    breeds = _breeds(rows)
    first = f"images/{firsts['trainval']}.jpg"
    photos = os.path.join(find(folder, ARCHIVES, first), "images")
    splits, seen = {}, set()
    for split, path in {"train": paths["trainval"], "test": paths["test"]}.items():
        stems = list(rows[path])
        names = [f"{stem}.jpg" for stem in stems]
        listing.check_files(path, photos, names, seen)
        splits[split] = dataset.file_split(
            photos,
            names,
            np.array([number - 1 for number, _ in rows[path].values()]),
            boxes=functools.partial(_heads, os.path.join(lists, "xmls"), stems),
            annotations={"mask": _Trimaps(os.path.join(lists, "trimaps"), stems)},
        )
    return dataset.Dataset(
        "pets",
        tuple(name for name, _ in breeds),
        splits,
        notes="Oxford-IIIT Pets, train is the official trainval; boxes are of heads",
        licence=LICENCE,
        imagenet_overlap=IMAGENET,
        hierarchy=tuple((species,) for _, species in breeds),
    )


def _rows(path):
    """{photo: (class number from 1, species)}."""
    rows = listing.mapping(path, columns=4)
    numbers = listing.numbers(
        path, [row[:2] for row in rows.values()], "lines with bad numbers", int
    )
    found = dict(zip(rows, map(tuple, numbers.tolist()), strict=True))
    bad = [
        photo for photo, (number, species) in found.items() if number < 1 or species not in SPECIES
    ]
    listing.refuse(path, bad, "photos of unknown classes or species")
    return found


def _breeds(lists):
    """[(breed, species)] in the order of the class numbers. All photos of a class must agree."""
    found = {}
    for path, rows in lists.items():
        odd = []
        for photo, (number, species) in rows.items():
            breed = photo.rpartition("_")[0], SPECIES[species]
            if found.setdefault(number, breed) != breed:
                odd.append(f"{photo} (class {number} is {found[number][0]})")
        listing.refuse(path, odd, "photos of another breed or species than the rest of their class")
        absent = sorted(set(range(1, max(found) + 1)) - set(found))
    listing.refuse(path, absent, "class numbers without a photo")
    return [found[number] for number in sorted(found)]


def _heads(folder, stems):
    """float32 `[N, 4]`, NaN without an annotation; None if no photo has one."""
    there = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    corners = np.full((len(stems), 4), np.nan, np.float32)
    for i, stem in enumerate(stems):
        if f"{stem}.xml" in there:
            heads = [head for _, head in voc.read(os.path.join(folder, f"{stem}.xml"))]
            if heads:
                corners[i] = max(heads, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return None if np.isnan(corners).all() else boxes.from_corners(corners)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Trimaps:
    """The annotation "mask"."""

    folder: str
    stems: list[str]

    def __call__(self, index):
        path = os.path.join(self.folder, f"{self.stems[index]}.png")
        values = images.decode(path)[:, :, 0]
        if values.min() < 1 or values.max() > 3:
            raise ValueError(
                f"{path}: not a trimap, it has the values {np.unique(values)[:5].tolist()}"
            )
        return TRIMAP[values]
