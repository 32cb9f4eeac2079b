"""FGVC-Aircraft 2013b (arXiv:1306.5151): 10,000 photos of 100 variants, 70 families, 30 makers."""

import os
from typing import Literal

from fgc_jax.data import archives, boxes, dataset
from fgc_jax.data.sources import listing, places

BANNER = 20  # rows at the bottom of every photo that show the photographer's name
LEVELS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
ARCHIVES = (
    archives.Archive(
        "fgvc-aircraft-2013b.tar.gz",
        size=2_753_340_328,
        md5="d4acdd33327262359767eeaa97a4f732",
        url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
        creates="fgvc-aircraft-2013b/data/images",
    ),
)
LICENCE = "for non-commercial research only; the photographers keep their copyright"
IMAGENET = "airliners are an ImageNet class; no shared photos are known"


def load(
    root,
    *,
    level: Literal[*LEVELS] = "variant",
    train_split: Literal["train", "trainval"] = "train",
):
    """The official splits with the labels of one `level`: variant, family or manufacturer.

    `root`: the archive, the unpacked fgvc-aircraft-2013b, the folder with either of them, or its
    data folder. `train_split`: "train" gives the official train (3,334), val (3,333) and test
    (3,333). With "trainval" the first two together are "train" (6,667), and there is no "val":
    splitting.with_validation with a fraction of a fifth then gives the 5,333 / 1,334 images of the
    bilinear CNN project.

    The banner is removed from every picture; boxes count from 0, half-open.

    Raises:
        ValueError: the data are missing (with their addresses), or a list contains an unknown label
            or image.
    """
    folder = _find(root, "variants.txt")
    class_names = tuple(listing.lines(os.path.join(folder, LEVELS[level])))
    box_list = os.path.join(folder, "images_box.txt")
    corners = listing.mapping(box_list, 5)
    official = {"train": train_split, "val": "val", "test": "test"}
    if train_split == "trainval":
        del official["val"]
    splits, pictures, seen = {}, None, set()
    for split, list_name in official.items():
        path = os.path.join(folder, f"images_{level}_{list_name}.txt")
        names = listing.mapping(path)
        files = [f"{photo}.jpg" for photo in names]
        pictures = pictures or os.path.join(
            _find(root, f"images/{listing.first(path, files)}"), "images"
        )
        listing.check_files(path, pictures, files, seen)
        listing.refuse(
            path, [photo for photo in names if photo not in corners], "photos without a box"
        )
        # The lists count from 1, both corners included; nevertheless some boxes start at 0. That
        # becomes -1 here and is clipped later.
        raw = listing.numbers(box_list, [corners[photo] for photo in names], "bad boxes", int)
        splits[split] = dataset.file_split(
            pictures,
            files,
            listing.labels(path, names.values(), class_names),
            boxes=boxes.from_corners(raw),
            bottom=BANNER,
        )
    return dataset.Dataset(
        "aircraft",
        class_names,
        splits,
        notes=f"FGVC-Aircraft 2013b, {level}, train is the official {train_split}",
        licence=LICENCE,
        imagenet_overlap=IMAGENET,
        hierarchy=_hierarchy(folder, level, class_names),
    )


def _find(root, file):
    """The folder "data" that contains `file`: lists and photos may be in different places."""
    folder = places.find("FGVC-Aircraft", root, ARCHIVES, (f"data/{file}", file), note=LICENCE)
    inner = os.path.join(folder, "data")
    return inner if os.path.exists(os.path.join(inner, file)) else folder


def _hierarchy(folder, level, class_names):
    """For each class its manufacturer and family, if they are coarser than `level`. They are read
    from the photos' labels on each level, because the release has no table of them."""
    coarser = {"variant": ("manufacturer", "family"), "family": ("manufacturer",)}.get(level, ())
    if not coarser:
        return ()
    ancestors = {name: {} for name in class_names}
    for part in ("trainval", "test"):
        fine = listing.mapping(os.path.join(folder, f"images_{level}_{part}.txt"))
        for above in coarser:
            coarse = listing.mapping(os.path.join(folder, f"images_{above}_{part}.txt"))
            for photo, name in fine.items():
                ancestors[name][above] = coarse.get(photo, "")
    return tuple(tuple(ancestors[name].get(above, "") for above in coarser) for name in class_names)
