"""Orders of training images that are balanced over the classes, instead of a shuffle of all.

An order is a function of the place in the endless stream of images and of the seed only, like the
shuffle. So a run continues at any step, and several processes can share a batch.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from fgc_jax.config import Sampling


def order(
    spec: Sampling,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    batch_size: int,
    seed: int,
    where: str = "sampling",
):
    """The order that `spec` names, or None for "shuffle": see Balanced and ClassesTimesImages.

    labels: int `[N]` of the train split. batch_size: of all processes together.

    Raises:
        ValueError: a class without images, a batch size that is not N x M, or
            fewer than N classes; the message begins with `where`.
    """
    if spec.kind == "shuffle":
        return None
    numbers = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=len(class_names))
    empty = [str(class_names[label]) for label in np.flatnonzero(counts == 0)]
    if empty:
        shown = ", ".join(empty[:5]) + f" and {len(empty) - 5} more" * (len(empty) > 5)
        raise ValueError(f"{where}={spec!r}: the train split has no images of {shown}")
    members = tuple(np.split(numbers, np.cumsum(counts)[:-1]))
    if spec.kind == "balanced":
        return Balanced(members, seed)
    classes, images = spec.classes, spec.images
    if batch_size != classes * images:
        raise ValueError(
            f"{where}={spec!r} makes batches of {classes * images}, but the batch size is "
            f"{batch_size}"
        )
    if classes > len(members):
        raise ValueError(f"{where}={spec!r}: there are only {len(members)} classes")
    return ClassesTimesImages(members, classes, images, seed)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Balanced:
    """Place in the stream -> image. Every K places contain each of the K classes once, in a new
    random order.

    Each class uses all of its images, shuffled, before it repeats one: a class of few images
    repeats them often; of a class of many images other ones are used in the next epoch.
    """

    members: tuple[np.ndarray, ...]  # of each class, the numbers of its images
    seed: int

    def __call__(self, place):
        turn, position = divmod(place, len(self.members))
        label = _permutation(len(self.members), self.seed, 0, turn)[position]
        images = self.members[label]
        again, position = divmod(turn, len(images))
        return int(images[_permutation(len(images), self.seed, 1, label, again)[position]])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ClassesTimesImages:
    """Place in the stream -> image, for batches of `classes` different classes with `images`
    different images each, ordered by class.

    If the number of classes is not a multiple of `classes`, some are left out of each pass over the
    classes, in rotation, so that all are used equally often. The same holds for the images within a
    class. A class of fewer than `images` images repeats them within the batch.
    """

    members: tuple[np.ndarray, ...]
    classes: int
    images: int
    seed: int

    def __call__(self, place):
        batch, place = divmod(place, self.classes * self.images)
        position, image = divmod(place, self.images)
        group = _group(len(self.members), self.classes, batch, self.seed, 0)
        label = group[position]
        members = self.members[label]
        earlier = _times(len(self.members), self.classes, batch, label, self.seed, 0)
        chosen = _group(len(members), self.images, earlier, self.seed, 1, label)
        return int(members[chosen[image]])


# Neighbouring places need the same permutation, and that of a large class takes long to compute.
@functools.lru_cache(4096)
def _permutation(n, *seed):
    return np.random.default_rng(seed).permutation(n)


def _group(n, size, number, *seed):
    """Group `number` of an endless stream of groups of `size` different numbers below n; all occur
    equally often. If n is less than `size`, each group contains all of them, repeated."""
    if n < size:
        return np.resize(_permutation(n, *seed, 1, number), size)
    turn, position = divmod(number, n // size)
    return _turn(n, size, turn, *seed)[position * size : (position + 1) * size]


@functools.lru_cache(4096)
def _turn(n, size, turn, *seed):
    """All numbers below n, shuffled, without n % size of them: different ones in each turn."""
    order = _permutation(n, *seed, 0)
    playing = np.roll(order, -turn * (n % size))[n % size :]
    return playing[_permutation(len(playing), *seed, 1, turn)]


def _times(n, size, number, member, *seed):
    """In how many groups before group `number` the number `member` is; it is in group `number`."""
    turn = number // (n // size)
    place = int(np.flatnonzero(_permutation(n, *seed, 0) == member)[0])
    # How many of the places 0, 1, 2, ... left out so far, in rotation, were those of `member`.
    sat_out = -(-(turn * (n % size) - place) // n)
    return turn - sat_out
