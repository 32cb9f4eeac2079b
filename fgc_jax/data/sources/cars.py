"""Stanford Cars (Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013):
16,185 photos of 196 models of cars."""

import os

import numpy as np

from fgc_jax.data import archives, boxes, dataset
from fgc_jax.data.sources import listing, matlab, places

NAME = "Stanford Cars"
LICENCE = "no licence is stated; used for research"
NOTE = (
    f"{LICENCE}. The official host has been offline since 2023. Copies: the images are the Kaggle "
    "data set jessicali9530/stanford-cars-dataset, the devkit is attached to the issue "
    "https://github.com/pytorch/vision/issues/7545. Use cars_annos.mat with car_ims only: the "
    "images of cars_train and cars_test have other numbers"
)
TRAIN_LIST = "devkit/cars_train_annos.mat"
ARCHIVES = (
    archives.Archive(
        "cars_train.tgz",
        979_269_282,
        "cars_train",
        md5="065e5b463ae28d29e77c1b4b166cfe61",
        sha256="512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
    ),
    archives.Archive(
        "cars_test.tgz",
        977_350_468,
        "cars_test",
        md5="4ce7ebf6a94d07f1952d94dd34c4d501",
        sha256="bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
    ),
    archives.Archive(
        "car_devkit.tgz",
        330_960,
        TRAIN_LIST,
        md5="c3b158d763b6e2245038c8ad08e45376",
        sha256="b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd",
    ),
    archives.Archive(
        "cars_test_annos_withlabels.mat",
        185_758,
        "cars_test_annos_withlabels.mat",
        md5="b0a2b23655a3edd16d84508592a98d10",
        sha256="790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
    ),
    archives.Archive("car_ims.tgz", 0, "car_ims"),
    archives.Archive("cars_annos.mat", 0, "cars_annos.mat"),
)
TEST_LIST = "cars_test_annos_withlabels.mat"
CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def load(root):
    """The official splits: train 8,144, test 8,041.

    Both layouts are read: cars_train, cars_test (the images directly in them or, as on Kaggle, in a
    folder of the same name), devkit and cars_test_annos_withlabels.mat; or car_ims and
    cars_annos.mat. Class 174 has a slash in its name, "Ram C/V Cargo Van Minivan 2012".

    For a table made from them (filename, box, class number) use the data set "csv".

    Raises:
        ValueError: files are missing, or images and lists do not match (a renumbered copy).
    """
    folder = places.find(NAME, root, ARCHIVES, (TRAIN_LIST, "car_ims"), note=NOTE)
    if os.path.isfile(os.path.join(folder, TRAIN_LIST)):
        class_names, splits = _two_folders(root, folder)
    else:
        class_names, splits = _one_folder(root)
    return dataset.Dataset(
        name="cars",
        class_names=class_names,
        splits=splits,
        notes=f"{NAME}, official splits",
        licence=LICENCE,
    )


def _two_folders(root, folder):
    kit = os.path.join(folder, "devkit")
    class_names = _class_names(os.path.join(kit, "cars_meta.mat"))
    wanted = (TEST_LIST, f"devkit/{TEST_LIST}")
    labelled = places.find(NAME, root, ARCHIVES, wanted, note=NOTE)
    test_list = os.path.join(labelled, TEST_LIST)
    if not os.path.isfile(test_list):
        test_list = os.path.join(labelled, "devkit", TEST_LIST)
    splits = {}
    for split, path in (("train", os.path.join(folder, TRAIN_LIST)), ("test", test_list)):
        names, *numbers = matlab.columns(path, "annotations", "fname", "class", *CORNERS)
        # With their folder, as both splits have a 00001.jpg.
        names = [f"cars_{split}/{name}" for name in names]
        first = listing.first(path, names)
        pictures = places.find(NAME, root, ARCHIVES, first, note=NOTE)
        _check_files(path, pictures, f"cars_{split}", names)
        labels, corners = _numbers(path, names, numbers, class_names)
        splits[split] = dataset.file_split(pictures, names, labels, boxes=corners)
    return class_names, splits


def _one_folder(root):
    path = "cars_annos.mat"
    path = os.path.join(places.find(NAME, root, ARCHIVES, path, note=NOTE), path)
    class_names = _class_names(path)
    names, tests, *numbers = matlab.columns(
        path, "annotations", "relative_im_path", "test", "class", *CORNERS
    )
    names = [f"car_ims/{name.rpartition('/')[2]}" for name in names]
    folder = places.find(NAME, root, ARCHIVES, listing.first(path, names), note=NOTE)
    _check_files(path, folder, "car_ims", names)
    labels, corners = _numbers(path, names, numbers, class_names)
    tests = listing.numbers(path, [[test] for test in tests], "bad test flags", int)[:, 0]
    odd = [name for name, test in zip(names, tests, strict=True) if test not in (0, 1)]
    listing.refuse(path, odd, "images with a test flag other than 0 and 1")
    splits = {}
    for value, split in enumerate(("train", "test")):
        chosen = np.flatnonzero(tests == value)
        splits[split] = dataset.file_split(
            folder, [names[i] for i in chosen], labels[chosen], boxes=corners[chosen]
        )
    return class_names, splits


def _class_names(path):
    (names,) = matlab.read(path, "class_names")
    return tuple(str(name).strip() for name in names)


def _numbers(path, names, columns, class_names):
    """Labels from 0 and boxes, from columns of texts: class, x1, y1, x2, y2, all counted from 1."""
    values = listing.numbers(path, list(zip(*columns, strict=True)), "bad numbers", int)
    labels = values[:, 0] - 1
    corners = boxes.from_corners(values[:, 1:], origin=1)
    wrong = [n for n, label in zip(names, labels, strict=True) if not 0 <= label < len(class_names)]
    listing.refuse(path, wrong, f"images with a class outside of 1 to {len(class_names)}")
    empty = (corners[:, 2:] <= corners[:, :2]).any(axis=1)
    listing.refuse(path, [names[i] for i in np.flatnonzero(empty)], "images with an empty box")
    return labels, corners


def _check_files(path, holder, folder, names):
    """ValueError unless the images in `holder`/`folder` are exactly the `names` of the list `path`,
    which begin with `folder`."""
    seen = set()
    listing.check_files(path, holder, names, seen)
    there = (f"{folder}/{name}" for name in os.listdir(os.path.join(holder, folder)))
    strays = sorted(n for n in there if n.lower().endswith(".jpg") and n not in seen)
    listing.refuse(path, strays, f"images of {holder} are not in this list (a renumbered copy?)")
