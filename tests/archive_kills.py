"""Unpacks in processes that are killed before their n-th access to the disk, for every n.

Run by test_archives.py in a process of its own, which may fork. Arguments: the folder to unpack
into, the archives.
"""

import itertools
import os
import shutil
import signal
import sys

from fgc_jax.data import archives
from tests import data_archives

DISK = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.scandir", "fcntl.flock")


def run(path, folder, kill_before=None):
    """The exit status of a process that unpacks; negative: the signal that ended it."""
    child = os.fork()
    if child == 0:
        calls = itertools.count(1)

        def hook(event, arguments):
            if event in DISK and kill_before is not None and next(calls) == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        archives.unpack(path, folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(row, folder):
    """Whether it counts as unpacked; if so, all must be there."""
    if not archives.is_unpacked(row, folder):
        return False
    assert data_archives.contents(folder).items() >= data_archives.FILES.items()
    return True


def kill_everywhere(path, folder):
    """How often it was killed, and how often that left something to do."""
    rows = [archives.Archive(os.path.basename(path), 0, top) for top in ("attributes.txt", "birds")]
    unfinished = 0
    number = 1
    while (status := run(path, folder, number)) != 0:
        assert status == -signal.SIGKILL, status
        unfinished += not all([check(row, folder) for row in rows])
        run(path, folder, number)
        assert run(path, folder) == 0
        assert all([check(row, folder) for row in rows]), number
        assert data_archives.contents(folder) == data_archives.FILES, number
        assert len(os.listdir(folder)) == 3, os.listdir(folder)
        shutil.rmtree(folder)
        number += 1
    return number - 1, unfinished


def main(folder, *paths):
    counts = []
    for path in paths:
        counts.append(kill_everywhere(path, folder))
        shutil.rmtree(folder)
    times, unfinished = map(sum, zip(*counts, strict=True))
    print(f"killed {times} times, {unfinished} times before the end")


if __name__ == "__main__":
    main(*sys.argv[1:])
