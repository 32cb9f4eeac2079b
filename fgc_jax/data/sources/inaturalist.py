"""iNaturalist 2017 (arXiv:1707.06642), 2018, 2019 and 2021 (arXiv:2103.16483): up to 2.7 million
photos of 10,000 species, indexed by COCO-style JSON files."""

import collections
import dataclasses
import functools
import itertools
import json
import os

import numpy as np

from fgc_jax.data import archives, boxes, dataset
from fgc_jax.data.sources import json_lists, listing, places

HOST = "https://ml-inat-competition-datasets.s3.amazonaws.com"


def _archives(year, *files):
    return tuple(
        archives.Archive(file, size=0, creates=creates, url=f"{HOST}/{year}/{file}", md5=md5)
        for file, creates, md5 in files
    )


FIRST = "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris"
# Each year's pictures, indices and optional files.
ARCHIVES_OF = {
    2017: _archives(
        2017,
        ("train_val_images.tar.gz", "train_val_images", "7c784ea5e424efaec655bd392f87301f"),
        ("train_val2017.zip", "train2017.json", ""),
        ("train_2017_bboxes.zip", "train_2017_bboxes.json", ""),
        ("val_2017_bboxes.zip", "val_2017_bboxes.json", ""),
    ),
    2018: _archives(
        2018,
        ("train_val2018.tar.gz", "train_val2018", "b1c6952ce38f31868cc50ea72d066cc3"),
        ("train2018.json.tar.gz", "train2018.json", "bfa29d89d629cbf04d826a720c0a68b0"),
        ("val2018.json.tar.gz", "val2018.json", "f2ed8bfe3e9901cdefceb4e53cd3775d"),
        ("categories.json.tar.gz", "categories.json", ""),
    ),
    2019: _archives(
        2019,
        ("train_val2019.tar.gz", "train_val2019", "c60a6e2962c9b8ccbd458d12c8582644"),
        ("train2019.json.tar.gz", "train2019.json", "b06a6683537867c0d5c7a45f407a306d"),
        ("val2019.json.tar.gz", "val2019.json", "5cc5509b0fe495f1c8c1362612448497"),
        ("categories.json.tar.gz", "categories.json", ""),
    ),
    2021: _archives(
        2021,
        ("val.tar.gz", f"val/{FIRST}", "f6f6e0e242e3d4c9569ba56400938afc"),
        ("val.json.tar.gz", "val.json", "4d761e0f6a86cc63e8f7afc91f6a8f0b"),
        ("train.tar.gz", f"train/{FIRST}", "e0526d53c7f7b2e3167b2b43bb2690ed"),
        ("train.json.tar.gz", "train.json", "38a7bb733f7a09214d44293460ec0021"),
    ),
}
MINI = _archives(
    2021,
    ("train_mini.tar.gz", f"train_mini/{FIRST}", "db6ed8330e634445efc8fec83ae81442"),
    ("train_mini.json.tar.gz", "train_mini.json", "395a35be3651d86dc3b0d365b8ea5f92"),
)
ARCHIVES = (*itertools.chain(*ARCHIVES_OF.values()), *MINI)
SIZES = {
    2017: "186 GB",
    2018: "120 GB",
    2019: "74 GB",
    2021: "train 224 GB, mini 42 GB, val 8.4 GB",
}
LICENCE = "non-commercial research and education only; the images must not be redistributed"
IMAGENET = "many ImageNet classes are species; shared photos have not been counted"
# The fields that are read from each list of an index, see json_lists.columns.
NAMED = {"id": "q", "file_name": ""}
SIZED = NAMED | {"width": "i", "height": "i"}
LABELLED = {"image_id": "q", "category_id": "q"}
LISTS = {"images": NAMED, "annotations": LABELLED, "categories": {json_lists.ITEM: ""}}
BOXED = {"images": NAMED, "annotations": {"image_id": "q", "bbox": ""}}
RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")


def archives_of(year, train="full"):
    """The archives that `load` reads with these options. Some file names are the same in several
    years. ValueError for unknown options."""
    if year not in tuple(ARCHIVES_OF):
        raise ValueError(f"unknown year {year!r}, allowed: {', '.join(map(str, ARCHIVES_OF))}")
    if train not in ("full", "mini") or (train == "mini" and year != 2021):
        raise ValueError(f"train={train!r} of {year}: allowed are 'full', and 'mini' of 2021")
    return (*ARCHIVES_OF[year][:2], *MINI) if train == "mini" else ARCHIVES_OF[year]


def load(root, *, year: int, train: str = "full"):
    """The labelled images of the competition of one `year`: 2017, 2018, 2019 or 2021.

    train: "full", or "mini" for the 500,000 images, 50 of each species, of 2021. "test" is the
    official validation set, because the labels of the official test set were never released. There
    is no "val"; it must be drawn from train.

    Classes are in the order of the category ids. If a name occurs twice, the coarsest ancestor is
    added in brackets. The hierarchy is kingdom to genus if it is given, else the super-category.
    2018 and 2019 have made-up names unless there is a categories.json. If the boxes of 2017 are
    there, the box of an image is its largest one, NaN without any, and the annotation "objects" has
    all of them: of one super-category, not always of the same species.

    Only the folders of pictures are checked to exist, not each file. A million images take about
    12 s and 400 MB while loading, then 300 MB.

    Raises:
        ValueError: unknown options, missing data (with their addresses), a damaged index.
    """
    known = archives_of(year, train)
    note = f"pictures: {SIZES[year]}; {LICENCE}"
    find = functools.partial(places.find, f"iNaturalist {year}", note=note)
    stem = "train_mini" if train == "mini" else "train"
    suffix = "" if year == 2021 else year
    files = {"train": f"{stem}{suffix}.json", "test": f"val{suffix}.json"}
    splits, classes, renamed = {}, None, None
    for split, file in files.items():
        folder = find(root, known, file)
        path = os.path.join(folder, file)
        index = json_lists.columns(path, LISTS if year != 2017 else LISTS | {"images": SIZED})
        photos = index["images"]
        names = dataset.text_array(photos.pop("file_name"))
        if classes is None:
            renamed = _optional(folder, known, "categories.json")
            classes = _classes(path, index["categories"][json_lists.ITEM], renamed)
        pictures = find(root, known, os.path.dirname(names[0]))
        _refuse_missing_folders(path, pictures, names)
        labels = _labels(path, photos["id"], index["annotations"], classes[0])
        boxed = None
        if year == 2017:
            boxed = _optional(folder, known, file.replace("2017.json", "_2017_bboxes.json"))
        objects = _read_boxes(boxed, names) if boxed else None
        splits[split] = dataset.Split(
            labels,
            names,
            dataset.Files(pictures, names),
            objects and objects.largest(),
            objects and np.stack([photos["width"], photos["height"]], axis=1),
            {"objects": objects} if objects else {},
        )
    notes = f"iNaturalist {year}, {train} train; test is the official validation set"
    if year in (2018, 2019) and not renamed:
        notes += "; the names of the classes are made up, categories.json has the true ones"
    _, class_names, hierarchy = classes
    return dataset.Dataset(
        "inaturalist",
        class_names,
        splits,
        notes=notes,
        licence=LICENCE,
        imagenet_overlap=IMAGENET,
        hierarchy=hierarchy,
    )


def _optional(folder, known, file):
    """The path of an optional file, unpacked if its archive is there; None if it is missing."""
    for archive in known:
        if archive.creates == file and places.unpacked(folder, archive):
            return os.path.join(folder, file)
    return None


def _classes(path, categories, renamed):
    """(ascending ids int64 `[K]`, names, hierarchy) of the categories. The file `renamed`, if there
    is one, replaces names and ancestors."""
    try:
        found = {int(category["id"]): category for category in categories}
        if renamed:
            path = renamed
            with open(renamed, encoding="utf-8") as stream:
                others = {int(category["id"]): category for category in json.load(stream)}
            found = {key: {**old, **others[key]} for key, old in found.items()}
        ids = sorted(found)
        names = [str(found[key]["name"]) for key in ids]
        lines = [[found[key].get(rank) for rank in RANKS] for key in ids]
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise ValueError(f"{path}: bad or missing category ({error!r})") from error
    listing.refuse(path, ["ids"] * (len(found) < len(categories)), "categories share their")
    above = [found[key].get("supercategory") for key in ids]
    hierarchy = [
        tuple(filter(None, line)) or tuple(filter(None, [top]))
        for line, top in zip(lines, above, strict=True)
    ]
    names = _told_apart(names, [line[0] if line else "" for line in hierarchy])
    names = _told_apart(names, ids)
    return np.array(ids), tuple(names), tuple(hierarchy) if all(hierarchy) else ()


def _told_apart(names, hints):
    counts = collections.Counter(names)
    pairs = zip(names, hints, strict=True)
    return [f"{name} ({hint})" if counts[name] > 1 else name for name, hint in pairs]


def _labels(path, image_ids, annotations, class_ids):
    """int32 `[N]`: the places of the images' categories in `class_ids`; one for each image."""
    order = np.argsort(annotations["image_id"], kind="stable")
    labelled = annotations["image_id"][order]
    where = np.searchsorted(labelled, image_ids).clip(max=len(labelled) - 1)
    listing.refuse(path, image_ids[labelled[where] != image_ids].tolist(), "images without a label")
    if len(labelled) != len(image_ids) or len(np.unique(image_ids)) != len(image_ids):
        raise ValueError(
            f"{path}: {len(labelled)} labels for {len(image_ids)} images, or repeated ids"
        )
    categories = annotations["category_id"][order][where]
    labels = np.searchsorted(class_ids, categories).clip(max=len(class_ids) - 1)
    strays = np.unique(categories[class_ids[labels] != categories])
    listing.refuse(path, strays.tolist(), "unknown categories")
    return labels.astype(np.int32)


def _refuse_missing_folders(path, folder, names):
    """ValueError if folders are missing. Millions of files are not looked for here; a missing one
    is an error when it is read."""
    below = sorted({name.rpartition("/")[0] for name in names})
    missing = [name for name in below if not os.path.isdir(os.path.join(folder, name))]
    listing.refuse(path, missing, f"folders of images are not in {folder}")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Objects:
    """The annotation "objects": image i has the rows starts[i] to starts[i + 1], largest first."""

    corners: np.ndarray  # float32 [M, 4]
    starts: np.ndarray  # int64 [N + 1]

    def __call__(self, index):
        return self.corners[self.starts[index] : self.starts[index + 1]]

    def largest(self):
        """float32 `[N, 4]`, NaN for images without a box."""
        found = np.full((len(self.starts) - 1, 4), np.nan, np.float32)
        boxed = np.flatnonzero(np.diff(self.starts))
        found[boxed] = self.corners[self.starts[boxed]]
        return found


def _read_boxes(path, names):
    """The boxes of a COCO file as _Objects of the images `names`, matched by file name, because the
    ids may differ."""
    index = json_lists.columns(path, BOXED)
    row = {name: i for i, name in enumerate(names.tolist())}
    images = index["images"]
    row_of = {
        key: row.get(name, -1)
        for key, name in zip(images["id"].tolist(), images["file_name"], strict=True)
    }
    ids = index["annotations"]["image_id"].tolist()
    listing.refuse(
        path, sorted({key for key in ids if row_of.get(key, -1) < 0}), "boxes of unknown images"
    )
    xywh = index["annotations"]["bbox"]
    bad = [str(box) for box in xywh if not isinstance(box, list) or len(box) != 4]
    listing.refuse(path, bad, "boxes that are not four numbers")
    sizes = listing.numbers(path, xywh, "boxes that are not four numbers")
    rows = np.array([row_of[key] for key in ids])
    order = np.lexsort((-sizes[:, 2] * sizes[:, 3], rows))
    starts = np.searchsorted(rows[order], np.arange(len(names) + 1))
    return _Objects(boxes.from_sizes(sizes[order]), starts)
