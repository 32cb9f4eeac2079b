"""Data sets in folders: ROOT/{train,val,test}/CLASS/*.jpg, or ROOT/CLASS/*, which `load` splits."""

import os

import numpy as np

from fgc_jax.config import Seed
from fgc_jax.data import dataset, images, splitting


def load(root, *, test_fraction: float | None = None, seed: Seed = 0):
    """The images in `root` and its sub-folders, each labelled with its class folder.

    If `root` has a folder "train", its folders are splits ("valid" and "validation" mean "val");
    otherwise every folder is a class. If there is no folder for the test split, `test_fraction` of
    the training images of each class become it, drawn with `seed` (None: 0.2 if there are no
    folders of splits, else 0).

    Classes are sorted by name, files by their path. Images in sub-folders of a class belong to the
    class. Hidden files and files without an image extension (images.EXTENSIONS) are ignored; links
    are followed.

    Raises:
        ValueError: the root is missing, there are fewer than two classes, a class has no images, or
            the classes of the splits differ.
    """
    check_root(root)
    parts = _split_folders(root)
    scanned = {split: scan(root, below) for split, below in parts.items()}
    train = next(iter(scanned))
    class_names = tuple(scanned[train])
    for split, classes in scanned.items():
        strays = sorted(set(classes) ^ set(class_names))
        if strays:
            raise ValueError(
                f"{root}: the class folders of {split!r} and {train!r} differ: {_shorten(strays)} "
                f"are in one of them only"
            )
    for split, classes in scanned.items():
        empty = [name for name, files in classes.items() if not files]
        if empty:
            raise ValueError(f"{os.path.join(root, parts[split])}: no images in {_shorten(empty)}")
    splits = {split: labelled(root, found, class_names) for split, found in scanned.items()}
    data = dataset.Dataset("folder", class_names, splits, notes=f"from {root}")
    if test_fraction is None:
        test_fraction = 0.2 if parts == {"train": ""} else 0.0
    elif test_fraction and "test" in splits:
        raise ValueError(
            f"{root} has a test folder, so test_fraction must be None, not {test_fraction}"
        )
    return splitting.with_fraction(data, "test", test_fraction, seed)


def check_root(root):
    """ValueError unless `root` is a folder."""
    if not root:
        raise ValueError("the data root is not set: give the folder of images (data.root)")
    if not os.path.isdir(root):
        raise ValueError(
            f"{root}: the data root is {'not a folder' if os.path.exists(root) else 'missing'}"
        )


def scan(root, below=""):
    """{class: sorted image paths relative to `root`} for the class folders of `root/below`."""
    start = os.path.join(root, below)
    classes = {}
    for entry in sorted(_visible(start), key=lambda entry: entry.name):
        if entry.is_dir():
            files = sorted(image_files(entry.path))
            classes[entry.name] = [
                os.path.relpath(path, root).replace(os.sep, "/") for path in files
            ]
        elif _is_image(entry.name):
            raise ValueError(f"{start}: the image {entry.name!r} is not in a class folder")
    if not any(classes.values()):
        raise ValueError(
            f"{start}: no images in class folders; extensions are {' '.join(images.EXTENSIONS)}"
        )
    return classes


def labelled(root, classes, class_names):
    """A Split of the files of `scan`; a label is the place of the class in `class_names`."""
    number = {name: i for i, name in enumerate(class_names)}
    names = [name for files in classes.values() for name in files]
    counts = [len(files) for files in classes.values()]
    labels = np.repeat(np.array([number[name] for name in classes], np.int32), counts)
    return dataset.file_split(root, names, labels)


def labelled_split(root, class_names):
    """All images of ROOT/CLASS/* as one Split. Every class must be one of `class_names`."""
    check_root(root)
    classes = scan(root)
    unknown = sorted(set(classes) - set(class_names))
    if unknown:
        raise ValueError(
            f"{root}: the model has no class {_shorten(unknown)}, allowed: {_shorten(class_names)}"
        )
    return labelled(root, classes, class_names)


def _split_folders(root):
    """{split: folder in root}; {"train": ""} if the class folders are in `root` itself."""
    folders = {entry.name for entry in _visible(root) if entry.is_dir()}
    if "train" not in folders:
        return {"train": ""}
    parts = {}
    for folder in sorted(folders):
        split = dataset.SPLIT_ALIASES.get(folder)
        if split in parts:
            raise ValueError(
                f"{root}: {parts[split]!r} and {folder!r} are both the split {split!r}"
            )
        if split:
            parts[split] = folder
    return {split: parts[split] for split in dataset.SPLITS if split in parts}


def image_files(folder, seen=frozenset()):
    """Paths of the image files in `folder` and its sub-folders."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in seen:  # a link back to a folder above
        return
    for entry in _visible(folder):
        if entry.is_dir():
            yield from image_files(entry.path, seen | {here})
        elif _is_image(entry.name):  # also a dead link: reading it names the missing file
            yield entry.path


def _visible(folder):
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _is_image(name):
    return name.lower().endswith(images.EXTENSIONS)


def _shorten(names, most=8):
    names = [repr(str(name)) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
