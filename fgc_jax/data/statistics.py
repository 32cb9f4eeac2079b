"""Statistics of a data set, from one pass over its pictures."""

import collections
import dataclasses
import functools

import cv2
import numpy as np

from fgc_jax.data import concurrency, duplicates

LISTED = 1000  # duplicates that are listed; all are counted
# Largest difference of the mean colours of near duplicates, in 0 to 1. Perceptual hashes ignore
# colour, and those of plain pictures can be equal by chance.
COLOUR = 0.06


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Survey:
    """Measurements of the N images of a split; the rows of unreadable images are 0.

    sizes: int32 `[N, 2]` (width, height). means, squares: float64 `[N, 3]`, of the channels and of
    their squares, pixels in 0 to 1. digests, hashes: of duplicates.py. errors: {number: why it
    cannot be read}. kept: {number: result of the caller's `keep`}.
    """

    sizes: np.ndarray
    means: np.ndarray
    squares: np.ndarray
    digests: np.ndarray
    hashes: np.ndarray
    errors: dict
    kept: dict

    @property
    def readable(self):
        """bool `[N]`."""
        return self.sizes[:, 0] > 0


def survey(data, *, keep=None, chosen=(), threads=None):
    """{split: Survey} of a Dataset. `keep(image)` is stored for each of the `chosen` (split,
    number)."""
    chosen = frozenset(chosen)
    surveys = {name: _empty(len(split)) for name, split in data.splits.items()}
    places = functools.partial(concurrency.places, data.splits)
    total = sum(map(len, data.splits.values()))
    measure = functools.partial(_measure, data.splits, keep, chosen)
    results = concurrency.ordered(measure, places(), "inspect", total, threads=threads)
    for (name, i), measured in zip(places(), results, strict=True):
        into = surveys[name]
        if isinstance(measured, str):
            into.errors[i] = measured
            continue
        into.sizes[i], into.means[i], into.squares[i], into.digests[i], into.hashes[i] = measured[
            :5
        ]
        if (name, i) in chosen:
            into.kept[i] = measured[5]
    return surveys


def _empty(n):
    return Survey(
        sizes=np.zeros((n, 2), np.int32),
        means=np.zeros((n, 3)),
        squares=np.zeros((n, 3)),
        digests=np.zeros((n, 2), np.uint64),
        hashes=np.zeros(n, np.uint64),
        errors={},
        kept={},
    )


def _measure(splits, keep, chosen, place):
    """The row of an image in a Survey, or the reason why it cannot be read."""
    name, index = place
    try:
        image = splits[name].read(index)
    except ValueError as error:
        return str(error)
    mean, deviation = (values[:, 0] / 255 for values in cv2.meanStdDev(image))
    row = (image.shape[1::-1], mean, mean**2 + deviation**2)
    row += (duplicates.digest(image), duplicates.perceptual_hash(image))
    return (*row, keep(image) if place in chosen else None)


def channels(found):
    """Statistics of red, green and blue, each a list of three, pixels in 0 to 1. "mean" and "std":
    over all pixels of all images, without resizing, so that large images count more.
    "mean_of_images" and "std_of_images": over the mean colours of the images, which some projects
    state as the standard deviation. None if no image could be read."""
    good = found.readable
    if not good.any():
        return None
    weights = found.sizes[good].astype(np.float64).prod(axis=1)[:, None]
    mean = (weights * found.means[good]).sum(axis=0) / weights.sum()
    square = (weights * found.squares[good]).sum(axis=0) / weights.sum()
    return {
        "mean": mean.tolist(),
        "std": np.sqrt(square - mean**2).tolist(),
        "mean_of_images": found.means[good].mean(axis=0).tolist(),
        "std_of_images": found.means[good].std(axis=0).tolist(),
    }


def describe(data, name, found):
    """Counts, sizes and boxes of the split `name` of `data`; `found` is its Survey."""
    split, good = data.splits[name], found.readable
    counts = np.bincount(split.labels, minlength=len(data.class_names))
    width, height = found.sizes[good].T
    facts = {
        "images": len(split),
        "unreadable": {str(split.names[i]): text for i, text in found.errors.items()},
        "class_counts": counts.tolist(),
        "images_per_class": _spread(counts),
        "width": _spread(width),
        "height": _spread(height),
        "aspect_ratio": _spread(width / height),
    }
    if split.raw_boxes is not None:
        facts["boxes"] = _describe_boxes(split.raw_boxes[good], found.sizes[good])
    return facts


def _describe_boxes(boxes, sizes):
    sides = np.tile(sizes, 2)
    there = np.isfinite(boxes).all(axis=1)
    clipped = np.clip(boxes, 0, sides)[there]
    area = np.prod(np.maximum(clipped[:, 2:] - clipped[:, :2], 0), axis=1)
    beyond = (boxes[there] < 0) | (boxes[there] > sides[there])
    return {
        "share_of_images": float(there.mean()) if len(there) else 0.0,
        "share_of_area": _spread(area / sizes[there].prod(axis=1)),
        "beyond_the_picture": int(beyond.any(axis=1).sum()),
        "empty": int((area == 0).sum()),
    }


def _spread(values):
    """{"min", "median", "max"}, None if there are no values."""
    if not len(values):
        return None
    return {
        key: float(of(values)) for key, of in (("min", min), ("median", np.median), ("max", max))
    }


def describe_duplicates(data, surveys, distance):
    """{"exact": ..., "near": ...}: duplicates within and across splits.

    "exact": groups of images with the same pixels. "near": pairs whose pixels differ, whose
    perceptual hashes differ in at most `distance` bits, and whose mean colours differ by at most
    COLOUR. The first image of an exact group represents the group in these pairs, but all of its
    images count in "shared". A name that occurs several times in a split (an image with several
    boxes) counts once. "shared": {"test": {"train": 3}} means that 3 images of test are also in
    train. The first LISTED of each kind are listed, as {"split", "name", "class"}.
    """
    rows = [
        (name, int(i))
        for name, split in data.splits.items()
        for i in _distinct(split.names, surveys[name].readable)
    ]
    digests = np.array([surveys[name].digests[i] for name, i in rows], np.uint64).reshape(-1, 2)
    hashes = np.array([surveys[name].hashes[i] for name, i in rows], np.uint64)
    means = np.array([surveys[name].means[i] for name, i in rows]).reshape(-1, 3)
    exact = duplicates.groups(digests)
    copies = {group[0]: group for group in exact}
    once = np.setdiff1d(np.arange(len(rows)), [n for group in exact for n in group[1:]])
    pairs, distances, complete = duplicates.near_pairs(hashes[once], distance)
    first, second = once[pairs].T
    wanted = (np.abs(means[first] - means[second]) <= COLOUR).all(axis=1)
    near, bits = once[pairs[wanted]].tolist(), distances[wanted].tolist()
    sides = [[copies.get(number, [number]) for number in pair] for pair in near]
    alike = [(group, group) for group in exact]
    similar = [pair for one, other in sides for pair in ((one, other), (other, one))]
    return {
        "exact": {"images": sum(map(len, exact)), **_about(data, rows, exact, alike)},
        "near": {
            "distance": distance,
            "complete": complete,
            **_about(data, rows, near, similar, bits),
        },
    }


def _distinct(names, readable):
    """The numbers of the readable images; of images with the same name only the first."""
    _, first = np.unique(names[readable], return_index=True)
    return np.sort(np.flatnonzero(readable)[first])


def _about(data, rows, groups, relations, distances=None):
    """Describes groups of duplicates; a group is a list of numbers of `rows` (split, image).
    `relations`: pairs of such lists; each image of the first is a duplicate of each of the second.
    """
    labels = [int(data.splits[name].labels[i]) for name, i in rows]
    shared = collections.defaultdict(set)
    for numbers, others in relations:
        splits = {rows[other][0] for other in others}
        for number in numbers:
            for split in splits - {rows[number][0]}:
                shared[rows[number][0], split].add(number)
    counts = collections.defaultdict(dict)
    for (split, other), numbers in shared.items():
        counts[split][other] = len(numbers)

    def entry(number):
        name, i = rows[number]
        split = data.splits[name]
        return {
            "split": name,
            "name": str(split.names[i]),
            "class": data.class_names[labels[number]],
        }

    listed = [[entry(number) for number in group] for group in groups[:LISTED]]
    if distances is not None:
        listed = [
            {"distance": bits, "images": images}
            for bits, images in zip(distances, listed, strict=False)
        ]
    return {
        "groups": len(groups),
        "with_different_labels": sum(len({labels[n] for n in group}) > 1 for group in groups),
        "shared": counts,
        "list": listed,
    }
