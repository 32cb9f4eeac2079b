"""Duplicates in a data set: pictures with the same pixels, and nearly equal pictures."""

import hashlib

import cv2
import numpy as np

BITS = 64
MOST_PAIRS = 1_000_000


def digest(image):
    """Half of the sha256 of the pixels and the shape of uint8 `[H, W, 3]`, uint64 `[2]`: equal for
    equal pictures, even if their files are compressed in different ways."""
    hashed = hashlib.sha256(repr(image.shape).encode())
    hashed.update(np.ascontiguousarray(image))
    return np.frombuffer(hashed.digest()[:16], np.uint64)


def perceptual_hash(image):
    """64 bits (np.uint64) of the coarse brightness pattern of uint8 `[H, W, 3]`: which of the 8x8
    lowest frequencies of the 32x32 thumbnail's cosine transform, without the constant row and
    column, are above their median. Resizing and compression change few of the bits."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[1:9, 1:9].ravel()
    return np.packbits(low > np.median(low)).view(">u8")[0].astype(np.uint64)


def groups(digests):
    """Groups of equal rows of `[N, 2]`: lists of two or more row numbers, sorted."""
    _, inverse = np.unique(digests, axis=0, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.flatnonzero(np.diff(inverse[order])) + 1
    found = [part.tolist() for part in np.split(order, starts) if len(part) > 1]
    return sorted(found)


def near_pairs(hashes, distance, most=MOST_PAIRS):
    """Pairs of uint64 `[N]` that differ in at most `distance` bits.

    Returns (pairs int64 `[M, 2]`, first number below second, nearest first; their distances;
    whether all pairs were found): the search ends early after more than `most` pairs.

    If the bits are divided into distance + 1 groups, two such hashes are equal in at least one
    group. So the hashes are sorted by each group in turn, and only hashes that are equal in it are
    compared. A pair that is equal in several groups is counted in the first of them.
    """
    if not 0 <= distance < BITS:
        raise ValueError(f"the distance must be 0 to {BITS - 1} bits, got {distance}")
    hashes = np.asarray(hashes, np.uint64)
    found, total = [np.zeros((0, 2), np.int64)], 0
    bounds = np.linspace(0, BITS, distance + 2).astype(int)
    earlier = []
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        keys = (hashes << np.uint64(BITS - high)) >> np.uint64(BITS - high + low)
        order = np.argsort(keys, kind="stable")
        keys, sorted_ = keys[order], hashes[order]
        here, step = np.arange(len(hashes)), 0
        while len(here) and total <= most:
            step += 1
            here = here[here + step < len(hashes)]
            here = here[keys[here] == keys[here + step]]
            differing = sorted_[here] ^ sorted_[here + step]
            new = np.bitwise_count(differing) <= distance
            for mask in earlier:
                new &= (differing & mask) != 0
            near = here[new]
            found.append(np.stack([order[near], order[near + step]], axis=1))
            total += len(near)
        earlier.append(np.uint64(2 ** int(high) - 2 ** int(low)))
    pairs = np.sort(np.concatenate(found), axis=1)
    distances = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).astype(int)
    nearest = np.lexsort((pairs[:, 1], pairs[:, 0], distances))
    return pairs[nearest], distances[nearest], total <= most
