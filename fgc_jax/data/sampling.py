"""Which image comes when, where it is not a shuffle of all: orders balanced over the classes.

An order is a function of a place in the endless stream of images and of the seed alone, like the
shuffle's, so that a run continues anywhere and processes can share a batch.
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
    """Place in the stream -> image: of K places each class has one, in an order of their own.

    Each class goes through its own images, shuffled, as often as it takes: a class of few images
    repeats them, one of many shows other ones in the next epoch.
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
    different images each, class by class.

    Where the number of classes is no multiple of `classes`, some sit out while the others have
    their turn, in rotation, so that all come equally often; so do the images within a class. A
    class of fewer than `images` images repeats them within the batch.
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


# Neighbours in the stream need the same ones, and of a class of many images each takes long.
@functools.lru_cache(4096)
def _permutation(n, *seed):
    return np.random.default_rng(seed).permutation(n)


def _group(n, size, number, *seed):
    """Group `number` of an endless stream of groups of `size` different numbers below n; all come
    equally often. Where n is less than `size`, each group holds all of them, repeated."""
    if n < size:
        return np.resize(_permutation(n, *seed, 1, number), size)
    turn, position = divmod(number, n // size)
    return _turn(n, size, turn, *seed)[position * size : (position + 1) * size]


@functools.lru_cache(4096)
def _turn(n, size, turn, *seed):
    """All numbers below n, shuffled, but for n % size that sit out: other ones in each turn."""
    order = _permutation(n, *seed, 0)
    playing = np.roll(order, -turn * (n % size))[n % size :]
    return playing[_permutation(len(playing), *seed, 1, turn)]


def _times(n, size, number, member, *seed):
    """In how many of the groups before `number` the number `member` is, which is in that one."""
    turn = number // (n // size)
    place = int(np.flatnonzero(_permutation(n, *seed, 0) == member)[0])
    # Of the places 0, 1, 2, ... that sat out so far, going round and round, those of `member`.
    sat_out = -(-(turn * (n % size) - place) // n)
    return turn - sat_out
