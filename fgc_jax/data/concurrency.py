"""One pass over many images: in threads, in order, with a progress bar."""

import collections
import os
from concurrent import futures

from fgc_jax import console

# Finished results wait in order behind a slow one; more of them would only take memory.
AHEAD = 4


def available():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def places(splits):
    """(split, number) of every image of {name: Split}."""
    for name, split in splits.items():
        for i in range(len(split)):
            yield name, i


def ordered(function, items, description, total, *, threads=None, initial=0):
    """Yields function(item) for each of `items`, in their order, computed by `threads` (None: one
    for each core). Draws a bar of `total` images, `initial` of them done before, with rate and time
    left.

    What function raises is raised here, at the item's turn.
    """
    threads = threads or available()
    with (
        futures.ThreadPoolExecutor(threads) as pool,
        console.progress(description, total, initial, unit="image") as bar,
    ):
        pending = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) == AHEAD * threads:
                    result = pending.popleft().result()
                    bar.update()
                    yield result
            while pending:
                result = pending.popleft().result()
                bar.update()
                yield result
        finally:
            for future in pending:
                future.cancel()
