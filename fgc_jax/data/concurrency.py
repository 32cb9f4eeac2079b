"""One pass over many images: in threads, in order, with a progress bar."""

import collections
import os
from concurrent import futures

from fgc_jax import console

# Finished results wait for a slow one before them; more of them would only take memory.
AHEAD = 4


def available():
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def places(splits):
    """(split, number) of every image of {name: Split}."""
    for name, split in splits.items():
        for i in range(len(split)):
            yield name, i


def ordered(function, items, description, total, *, threads=None, initial=0):
    """Yields function(item) for each of `items`, in their order, computed by `threads` (None: one
    for each core). Shows a progress bar of `total` images, of which `initial` were done before.

    An exception of `function` is raised here when its item is next.
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
