"""What a data set is: splits of images addressed by number, their labels, names and boxes."""

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures

import numpy as np

from fgc_jax.data import images

SPLITS = ("train", "val", "test")
# Other spellings that a folder or a CSV column may use.
SPLIT_ALIASES = {name: name for name in SPLITS} | {"valid": "val", "validation": "val"}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """N labelled images, cheap to pickle: the pictures are read one by one when asked for.

    labels: int32 `[N]`. names: N file names, relative to the data set's root. read(i): uint8 RGB
    `[H, W, 3]`, ValueError naming the file where it is damaged. boxes: float32 `[N, 4]` or None;
    x0, y0, x1, y1 in pixels of what `read` returns, 0-based, half-open, clipped to the image.
    """

    labels: np.ndarray
    names: Sequence[str]
    read: Callable[[int], np.ndarray]
    boxes: np.ndarray | None = None

    def __post_init__(self):
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int32))
        object.__setattr__(self, "names", text_array(self.names))
        if self.boxes is not None:
            object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float32))
        n = len(self.labels)
        if self.labels.shape != (n,) or len(self.names) != n:
            raise ValueError(f"{len(self.names)} names for labels of shape {self.labels.shape}")
        if self.boxes is not None and self.boxes.shape != (n, 4):
            raise ValueError(f"boxes of shape {self.boxes.shape} for {n} images, want ({n}, 4)")

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        return f"Split({len(self)} images)"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Named splits ("train", "val", "test", as far as there are any) over one list of classes."""

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    notes: str = ""

    def __post_init__(self):
        if len(self.class_names) < 2:
            found = ", ".join(self.class_names) or "none"
            raise ValueError(f"{self.name}: at least 2 classes are needed, found: {found}")
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"{self.name}: class names are not unique")
        strays = set(self.splits) - set(SPLITS)
        if strays:
            raise ValueError(f"{self.name}: unknown splits {sorted(strays)}, allowed: {SPLITS}")
        for split_name, split in self.splits.items():
            if not len(split):
                raise ValueError(f"{self.name}: the split {split_name!r} holds no images")
            if split.labels.min() < 0 or split.labels.max() >= len(self.class_names):
                raise ValueError(f"{self.name}: labels of {split_name!r} outside the class list")

    def __repr__(self):
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"Dataset({self.name}, {len(self.class_names)} classes, {sizes})"

    def facts(self):
        """What to note down beside a result, for JSON: names, sizes, which images (a hash)."""
        splits = {
            name: {"images": len(split), "sha256": _fingerprint(split)}
            for name, split in self.splits.items()
        }
        return {
            "name": self.name,
            "notes": self.notes,
            "class_names": list(self.class_names),
            "splits": splits,
        }


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Files:
    """Reader of a split whose images are files: `root/names[i]`.

    `bottom` rows are cut off first (a copyright strip), then, with `boxes` (as in Split), the
    picture is cropped to its box, widened to whole pixels.
    """

    root: str
    names: np.ndarray
    bottom: int = 0
    boxes: np.ndarray | None = None

    def __call__(self, index):
        path = os.path.join(self.root, self.names[index])
        image = images.decode(path)
        height, width = image.shape[0] - self.bottom, image.shape[1]
        if height < 1:
            raise ValueError(
                f"{path}: {image.shape[0]} rows, none left without the last {self.bottom}"
            )
        if self.boxes is None:
            return image[:height]
        x0, y0, x1, y1 = self.boxes[index]
        x0, y0 = max(0, math.floor(x0)), max(0, math.floor(y0))
        x1, y1 = min(width, math.ceil(x1)), min(height, math.ceil(y1))
        if x0 >= x1 or y0 >= y1:
            raise ValueError(f"{path}: the box {self.boxes[index]} is outside of {width}x{height}")
        return image[y0:y1, x0:x1]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Chosen:
    """Reader of a subset: number i of the subset is number `indices[i]` of the whole."""

    read: Callable[[int], np.ndarray]
    indices: np.ndarray

    def __call__(self, index):
        return self.read(int(self.indices[index]))


def _fingerprint(split):
    """sha256 over the labels and file names of a split, in order; not over the pictures."""
    digest = hashlib.sha256(np.asarray(split.labels, "<i4").tobytes())
    digest.update("\0".join(split.names).encode())
    return digest.hexdigest()


def text_array(names):
    """File names as one numpy array of variable-length strings: 16 bytes and the text for each."""
    if isinstance(names, np.ndarray) and isinstance(names.dtype, np.dtypes.StringDType):
        return names  # asarray would copy
    try:
        return np.asarray(names, dtype=np.dtypes.StringDType())
    except UnicodeEncodeError as error:
        raise ValueError(f"a file name is not valid Unicode: {error.object!r}") from error


def file_split(root, names, labels, *, boxes=None, crop_to_box=False, bottom=0):
    """A Split over the files `root/name`; with `crop_to_box` each picture is cropped to its box.

    `boxes` are clipped to the images where the files' headers can be read (see clip_boxes); a split
    of crops carries no boxes any more, the object fills the picture.
    """
    names = text_array(names)
    if boxes is None:
        return Split(labels, names, Files(root, names, bottom))
    boxes = clip_boxes(np.asarray(boxes, np.float32), root, names, bottom)
    if crop_to_box:
        return Split(labels, names, Files(root, names, bottom, boxes))
    return Split(labels, names, Files(root, names, bottom), boxes)


def clip_boxes(boxes, root, names, bottom=0):
    """float32 `[N, 4]` clipped to 0..width, 0..height - bottom, the sizes read from the headers."""
    with futures.ThreadPoolExecutor(8) as pool:
        paths = (os.path.join(root, name) for name in names)
        shapes = pool.map(images.read_shape, paths)
        # A file without a readable header is reported when it is read, and not clipped here.
        limits = [(shape[1], shape[0] - bottom) if shape else (np.inf, np.inf) for shape in shapes]
    limits = np.tile(np.asarray(limits, np.float32).reshape(-1, 2), 2)
    return np.clip(boxes, 0, limits).astype(np.float32)


def subset(split, indices):
    """The Split of the images numbered `indices` (int `[M]`), in that order."""
    indices = np.asarray(indices, np.int64)
    boxes = None if split.boxes is None else split.boxes[indices]
    names = text_array(split.names)[indices]
    return Split(split.labels[indices], names, _Chosen(split.read, indices), boxes)


def stratified_cut(labels, fraction, seed):
    """Cuts `fraction` of the images out, each class in proportion: (kept, cut) sorted indices.

    The cut holds ceil(fraction * N) images as far as every class keeps at least one; what rounding
    leaves over goes to the classes with the largest remainder, ties and choice drawn from `seed`.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"a fraction between 0 and 1 is needed, got {fraction}")
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    total = min(math.ceil(round(fraction * len(labels), 6)), int((counts - 1).sum()))
    shares = counts * (total / len(labels))
    quotas = np.minimum(np.floor(shares).astype(int), counts - 1)
    preference = np.lexsort((rng.permutation(len(classes)), -(shares - quotas)))
    while quotas.sum() < total:
        for row in preference[quotas[preference] < counts[preference] - 1]:
            if quotas.sum() < total:
                quotas[row] += 1
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(labels)) - np.repeat(starts, counts)
    cut = rank < np.repeat(quotas, counts)
    return np.sort(by_class[~cut]), np.sort(by_class[cut])


def with_fraction(dataset, name, fraction, seed):
    """`dataset` with the split `name` cut out of "train", stratified and seeded.

    Unchanged where there is such a split or where `fraction` is 0. ValueError where "train" is too
    small to give any image away.
    """
    if name in dataset.splits or fraction == 0:
        return dataset
    if "train" not in dataset.splits:
        raise ValueError(f"{dataset.name}: no training split to cut {name!r} from")
    train = dataset.splits["train"]
    kept, cut = stratified_cut(train.labels, fraction, seed)
    if not len(cut):
        raise ValueError(
            f"{dataset.name}: {len(train)} training images are too few to cut {name!r} from"
        )
    splits = {**dataset.splits, "train": subset(train, kept), name: subset(train, cut)}
    note = f"{name}: {len(cut)} images cut from train, stratified, seed {seed}"
    notes = f"{dataset.notes}; {note}" if dataset.notes else note
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    return dataclasses.replace(dataset, splits=ordered, notes=notes)


def with_validation(dataset, fraction, seed):
    """`dataset` with a "val" split; where it has none, `fraction` of "train" becomes it."""
    return with_fraction(dataset, "val", fraction, seed)
