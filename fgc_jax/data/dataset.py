"""What a data set is: splits of images addressed by number, their labels, names and boxes."""

import collections
import dataclasses
import functools
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

    labels: int32 `[N]`. names: N file names, relative to the data set's root; equal names are one
    photo. read(i): uint8 RGB `[H, W, 3]`, ValueError naming the file where it is damaged.
    box_source: what `boxes` gives, or a function without arguments that makes it.
    """

    labels: np.ndarray
    names: Sequence[str]
    read: Callable[[int], np.ndarray]
    box_source: np.ndarray | Callable[[], np.ndarray | None] | None = None

    def __post_init__(self):
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int32))
        object.__setattr__(self, "names", text_array(self.names))
        n = len(self.labels)
        if self.labels.shape != (n,) or len(self.names) != n:
            raise ValueError(f"{len(self.names)} names for labels of shape {self.labels.shape}")
        if not callable(self.box_source):
            _ = self.boxes  # wrong ones are refused here, not when someone asks for them

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        return f"Split({len(self)} images)"

    @functools.cached_property
    def boxes(self):
        """float32 `[N, 4]` or None: x0, y0, x1, y1 in pixels of what `read` returns, 0-based,
        half-open, clipped to the image. Made when first asked for: clipping opens every file."""
        boxes = self.box_source() if callable(self.box_source) else self.box_source
        if boxes is None:
            return None
        boxes, n = np.asarray(boxes, np.float32), len(self)
        if boxes.shape != (n, 4):
            raise ValueError(f"boxes of shape {boxes.shape} for {n} images, want ({n}, 4)")
        return boxes


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

    `bottom` rows are cut off first (a copyright strip), then, with `boxes` (as in Split, but
    possibly reaching beyond the picture), it is cropped to its box, widened to whole pixels.
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

    `boxes` may reach beyond the images; the split's are clipped, when they are first asked for (see
    clip_boxes). A split of crops carries no boxes any more, the object fills the picture.
    """
    names = text_array(names)
    if boxes is None:
        return Split(labels, names, Files(root, names, bottom))
    boxes = np.asarray(boxes, np.float32)
    if crop_to_box:
        return Split(labels, names, Files(root, names, bottom, boxes))
    clipped = functools.partial(clip_boxes, boxes, root, names, bottom)
    return Split(labels, names, Files(root, names, bottom), clipped)


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
    names = text_array(split.names)[indices]
    boxes = functools.partial(_chosen_boxes, split, indices)
    return Split(split.labels[indices], names, _Chosen(split.read, indices), boxes)


def _chosen_boxes(split, indices):
    return None if split.boxes is None else split.boxes[indices]


def stratified_cut(labels, fraction, seed, groups=None):
    """Cuts `fraction` of the images out, each class in proportion: (kept, cut) sorted indices.

    The cut holds ceil(fraction * N) images as far as every class keeps at least one; what rounding
    leaves over goes to the classes with the largest remainder, ties and choice drawn from `seed`.

    `groups` (N values; None: each image is its own): what is equal stays together, on one side.
    The numbers above are then met up to about half a group, which is taken or left as a whole.
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
    if groups is not None and len(set(groups)) < len(labels):
        wanted = dict(zip(classes.tolist(), quotas.tolist(), strict=True))
        cut = _cut_groups(labels.tolist(), groups, order.tolist(), wanted)
        return np.flatnonzero(~cut), np.flatnonzero(cut)
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(labels)) - np.repeat(starts, counts)
    cut = rank < np.repeat(quotas, counts)
    return np.sort(by_class[~cut]), np.sort(by_class[cut])


def _cut_groups(labels, groups, order, wanted):
    """Which images are cut, bool `[N]`: groups in the order of their first image in `order`, each
    that brings the numbers cut of each class no further from those `wanted`."""
    members = {}
    for i in order:
        members.setdefault(groups[i], []).append(i)
    kept, missing = collections.Counter(labels), dict(wanted)
    cut = np.zeros(len(labels), bool)
    for images_of in members.values():
        counts = collections.Counter(labels[i] for i in images_of)
        change = sum(abs(missing[c] - n) - abs(missing[c]) for c, n in counts.items())
        if change <= 0 and all(kept[c] > n for c, n in counts.items()):
            cut[images_of] = True
            for c, n in counts.items():
                kept[c] -= n
                missing[c] -= n
    return cut


def with_fraction(dataset, name, fraction, seed):
    """`dataset` with the split `name` cut out of "train", stratified and seeded, by photo: rows of
    one name (several boxes of a photo) stay together.

    Unchanged where there is such a split or where `fraction` is 0. ValueError where "train" is too
    small to give any image away.
    """
    if name in dataset.splits or fraction == 0:
        return dataset
    if "train" not in dataset.splits:
        raise ValueError(f"{dataset.name}: no training split to cut {name!r} from")
    train = dataset.splits["train"]
    kept, cut = stratified_cut(train.labels, fraction, seed, list(train.names))
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
