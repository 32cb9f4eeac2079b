"""Stanford Dogs (Khosla et al., Novel Dataset for Fine-Grained Image Categorization, 2011): 20,580
photos of 120 breeds of dogs."""

import dataclasses
import functools
import os
from concurrent import futures

import numpy as np

from fgc_jax.data import archives, boxes, dataset
from fgc_jax.data.sources import listing, matlab, places, voc

NAME = "Stanford Dogs"
LICENCE = "ImageNet's terms: non-commercial research and education"
IMAGENET = (
    "all images are from ImageNet's training set: a network pretrained on ImageNet was trained on "
    "the test images, with their labels"
)
HOST = "http://vision.stanford.edu/aditya86/ImageNetDogs"
ARCHIVES = (
    archives.Archive(
        "images.tar",
        793_579_520,
        "Images/n02085620-Chihuahua",
        url=f"{HOST}/images.tar",
        md5="1bb1f2a596ae7057f99d7d75860002ef",
        sha256="a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
    ),
    archives.Archive(
        "annotation.tar",
        21_852_160,
        "Annotation/n02085620-Chihuahua",
        url=f"{HOST}/annotation.tar",
        md5="4298cc0031f6bc6e74612ac83b5988e2",
        sha256="662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
    ),
    archives.Archive(
        "lists.tar",
        481_280,
        "train_list.mat",
        url=f"{HOST}/lists.tar",
        md5="edbb9f16854ec66506b5f09b583e0656",
        sha256="34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
    ),
)


def load(root):
    """The official splits: train 12,000 (100 of each breed), test 8,580.

    `root` contains Images, Annotation and the lists train_list.mat and test_list.mat (unpacked, one
    folder deeper, or as archives). The box of a photo is that of its largest dog; the annotation
    "objects" has the boxes of all dogs. Class names are without their synset: "Chihuahua".

    Raises:
        ValueError: files are missing, or the lists contradict each other. Damaged annotation files
            are an error when boxes are first read.
    """
    lists = places.find(NAME, root, ARCHIVES, "train_list.mat", note=LICENCE)
    found = {split: _read(os.path.join(lists, f"{split}_list.mat")) for split in ("train", "test")}
    folders = _folders(lists, found)
    first = found["train"][0][0]
    pictures = _find(root, "Images", first)
    xml = _find(root, "Annotation", _xml_name(first))
    splits = {}
    for split, (names, labels) in found.items():
        path = os.path.join(lists, f"{split}_list.mat")
        listing.refuse_missing_files(path, pictures, names)
        listing.refuse_missing_files(path, xml, [_xml_name(name) for name in names])
        objects = _Objects(xml, dataset.text_array(names))
        splits[split] = dataset.file_split(
            pictures,
            names,
            labels,
            boxes=functools.partial(_largest, objects),
            annotations={"objects": objects},
        )
    return dataset.Dataset(
        name="dogs",
        class_names=_class_names(folders),
        splits=splits,
        notes=f"{NAME}, official splits; boxes are the largest dog's",
        licence=LICENCE,
        imagenet_overlap=IMAGENET,
    )


def _find(root, folder, file):
    """The path of the folder that contains `file`."""
    holder = places.find(NAME, root, ARCHIVES, f"{folder}/{file}", note=LICENCE)
    return os.path.join(holder, folder)


def _read(path):
    """(names "SYNSET-BREED/PHOTO.jpg", int32 labels from 0) of a list."""
    names, labels = matlab.read(path, "file_list", "labels")
    names = [str(name) for name in names]
    if not names or len(names) != len(labels):
        raise ValueError(f"{path}: {len(names)} images, but {len(labels)} labels")
    numbers = listing.numbers(path, [[str(label)] for label in labels], "bad labels", int)[:, 0]
    return names, (numbers - 1).astype(np.int32)


def _folders(lists, found):
    """The folder of each class. ValueError unless labels and folders match one to one."""
    pairs, seen = set(), set()
    for split, (names, labels) in found.items():
        path = os.path.join(lists, f"{split}_list.mat")
        listing.refuse_repeated(path, names, seen)
        folders = [name.partition("/")[0] for name in names]
        pairs |= set(zip(labels.tolist(), folders, strict=True))
    numbers, folders = zip(*sorted(pairs), strict=True)
    if numbers != tuple(range(len(numbers))) or len(set(folders)) != len(folders):
        raise ValueError(
            f"{lists}: labels 1, 2, ... and folders must match one to one, but the lists have "
            f"{len(pairs)} pairs of {len(set(numbers))} labels and {len(set(folders))} folders"
        )
    return folders


def _class_names(folders):
    """The breeds; without the synsets "n02085620-" if they are unique without them."""
    breeds = tuple(folder.partition("-")[2] or folder for folder in folders)
    return breeds if len(set(breeds)) == len(folders) else folders


def _xml_name(name):
    return os.path.splitext(name)[0]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Objects:
    """The annotation "objects", from files of VOC XML."""

    folder: str
    names: np.ndarray

    def __call__(self, index):
        found = voc.read(os.path.join(self.folder, _xml_name(self.names[index])))
        # Not VOC's convention: of the 22,126 boxes 2,278 have an xmin of 0 and 1,867 an xmax of
        # width - 1; an xmax of width never occurs. So they count from 0, both corners included.
        return boxes.from_corners(np.reshape([corners for _, corners in found], (-1, 4)) + 1)


def _largest(objects):
    """float32 `[N, 4]`: the box of largest area of each image, NaN if it has none."""
    with futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(objects, range(len(objects.names))))
    result = np.full((len(found), 4), np.nan, np.float32)
    for row, corners in zip(result, found, strict=True):
        if len(corners):
            row[:] = corners[np.argmax(np.prod(corners[:, 2:] - corners[:, :2], axis=1))]
    return result
