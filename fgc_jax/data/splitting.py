"""Validation and test splits drawn from the training images: stratified, seeded, by photo."""

import collections
import dataclasses
import math

import numpy as np

from fgc_jax.data import dataset as datasets


def stratified_split(labels, fraction, seed, groups=None):
    """Draws `fraction` of the images of each class: (indices kept, indices drawn), both sorted.

    ceil(fraction * N) images are drawn, or fewer if a class would otherwise keep no image. What
    rounding leaves over goes to the classes with the largest remainder; `seed` decides ties and
    which images are drawn.

    `groups` (N values; None: no groups): images with equal values stay together. Groups are drawn
    whole, so the numbers above are met only up to about half a group.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction must be between 0 and 1, got {fraction}")
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
        drawn = _draw_groups(labels.tolist(), groups, order.tolist(), wanted)
        return np.flatnonzero(~drawn), np.flatnonzero(drawn)
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(labels)) - np.repeat(starts, counts)
    drawn = rank < np.repeat(quotas, counts)
    return np.sort(by_class[~drawn]), np.sort(by_class[drawn])


def _draw_groups(labels, groups, order, wanted):
    """Which images are drawn, bool `[N]`. Goes through the groups in the order of their first image
    in `order` and draws each group that brings the counts of the classes no further from `wanted`.
    """
    members = {}
    for i in order:
        members.setdefault(groups[i], []).append(i)
    kept, missing = collections.Counter(labels), dict(wanted)
    drawn = np.zeros(len(labels), bool)
    for images_of in members.values():
        counts = collections.Counter(labels[i] for i in images_of)
        change = sum(abs(missing[c] - n) - abs(missing[c]) for c, n in counts.items())
        if change <= 0 and all(kept[c] > n for c, n in counts.items()):
            drawn[images_of] = True
            for c, n in counts.items():
                kept[c] -= n
                missing[c] -= n
    return drawn


def with_fraction(dataset, name, fraction, seed):
    """`dataset` with a split `name` drawn from "train", stratified and seeded. Rows of one name
    (several boxes of a photo) stay together.

    Returns it unchanged if it has that split or `fraction` is 0.

    Raises:
        ValueError: there is no "train", or it is too small.
    """
    if name in dataset.splits or fraction == 0:
        return dataset
    if "train" not in dataset.splits:
        raise ValueError(f"{dataset.name}: there is no training split to draw {name!r} from")
    train = dataset.splits["train"]
    kept, drawn = stratified_split(train.labels, fraction, seed, list(train.names))
    if not len(drawn):
        raise ValueError(
            f"{dataset.name}: {len(train)} training images are too few to draw {name!r} from"
        )
    splits = {
        **dataset.splits,
        "train": datasets.subset(train, kept),
        name: datasets.subset(train, drawn),
    }
    note = f"{name}: {len(drawn)} images drawn from train, stratified, seed {seed}"
    notes = f"{dataset.notes}; {note}" if dataset.notes else note
    ordered = {split: splits[split] for split in datasets.SPLITS if split in splits}
    return dataclasses.replace(dataset, splits=ordered, notes=notes)


def with_validation(dataset, fraction, seed):
    """`dataset` with a "val" split; if it has none, `fraction` of "train" becomes it."""
    return with_fraction(dataset, "val", fraction, seed)
