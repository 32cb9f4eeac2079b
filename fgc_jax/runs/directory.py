"""The run directory: which run it contains, and which process may write to it."""

import contextlib
import fcntl
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from fgc_jax import files, mesh

CONFIG, DATASET, RESULTS, LOCK = "config.json", "dataset.json", "results.json", ".lock"
# These keys do not change the results: the place of the files, how they are read, and W&B.
MAY_DIFFER = ("data.root", "data.threads", "data.workers", "wandb")


def check(workdir: Path, config: Mapping[str, Any]) -> None:
    """Raises ValueError if the directory contains another run, or files that belong to no run."""
    if not workdir.exists():
        return
    if not workdir.is_dir():
        raise ValueError(f"--workdir={workdir} is not a directory")
    if not (workdir / CONFIG).exists():
        # A run that is killed at its very beginning leaves the lock and an incomplete config.
        beginning = (workdir / LOCK, *workdir.glob(f"{CONFIG}*{files.UNFINISHED}"))
        if not set(workdir.iterdir()) <= set(beginning):
            raise ValueError(
                f"--workdir={workdir} is not empty and has no {CONFIG}: choose a new directory"
            )
        return
    differing = differences(files.read_json(workdir / CONFIG), config, MAY_DIFFER)
    if differing:
        raise ValueError(
            f"--workdir={workdir} contains a run with another config; choose another directory "
            f"with --workdir=DIR, or delete this one to start again. The differences:\n  "
            + "\n  ".join(differing[:10])
        )


def check_dataset(workdir: Path, facts: Mapping[str, Any]) -> None:
    """Raises ValueError if the run was started with other classes, images, labels or splits.

    A split that is drawn again from changed data could put former test images into training.
    """
    if not (workdir / DATASET).exists():
        return
    stored = read_dataset(workdir)
    differing = [key for key in ("class_names", "splits") if stored[key] != facts[key]]
    if differing:
        raise ValueError(
            f"the data have changed since the run in --workdir={workdir} was started "
            f"({' and '.join(differing)} differ from its {DATASET}): restore the data, or start a "
            "new run in another directory"
        )


def read_dataset(workdir: Path) -> Mapping[str, Any]:
    """The facts of a run's data set (`data.dataset.Dataset.facts`). Raises ValueError if the file
    is missing, damaged or from another version."""
    stored = files.read_json(workdir / DATASET)
    lacking = [key for key in ("name", "class_names", "notes", "splits") if key not in stored]
    if lacking:
        raise ValueError(f"{workdir / DATASET} is damaged: it has no {', '.join(lacking)}")
    return stored


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Creates the directory and locks it, so that no other process trains in it. The first process
    of a run does this for all its processes.

    Raises:
        ValueError: another process is training in the directory.
    """
    if not mesh.is_first_process():
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another process is training in --workdir={workdir}") from None
        yield


def begin(workdir: Path, config: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
    """Writes a run's config and the facts of its data set, on the first process only."""
    if mesh.is_first_process():
        for left_over in workdir.glob(f"*{files.UNFINISHED}"):  # by a process that was killed
            left_over.unlink()
        files.write_json(workdir / CONFIG, config)
        files.write_json(workdir / DATASET, dataset)


def in_use(workdir: Path) -> bool:
    """Whether a process is training in the directory."""
    if not (workdir / LOCK).exists():
        return False
    with (workdir / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def differences(old: Any, new: Any, may_differ: Collection[str]) -> list[str]:
    """A line for each key whose values in two configs differ; a key is written "phases.0.lr"."""
    old, new = _flat(old), _flat(new)
    return [
        f"{key}: {old.get(key, '(absent)')!r} there, {new.get(key, '(absent)')!r} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in may_differ
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        entries = value.items()
    elif isinstance(value, list) and value:
        entries = enumerate(value)
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, entry in entries:
        flat.update(_flat(entry, f"{prefix}.{key}" if prefix else str(key)))
    return flat
