"""The run directory: whose it is, what it holds, and who may write to it now."""

import contextlib
import fcntl
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from fgc_jax import files, mesh

CONFIG, DATASET, RESULTS, LOCK = "config.json", "dataset.json", "results.json", ".lock"
# Where the files lie, how they are read and who is told does not change what is computed.
MAY_DIFFER = ("data.root", "data.threads", "data.workers", "wandb")


def check(workdir: Path, config: Mapping[str, Any]) -> None:
    """Raises ValueError if the directory holds another run, or files that are no run's."""
    if not workdir.exists():
        return
    if not workdir.is_dir():
        raise ValueError(f"--workdir={workdir} is not a directory")
    if not (workdir / CONFIG).exists():
        # A run killed in its first moments leaves the lock and half a config.
        if any(not _is_beginning(entry.name) for entry in workdir.iterdir()):
            raise ValueError(
                f"--workdir={workdir} is not empty and holds no {CONFIG}: choose a new directory"
            )
        return
    differing = differences(files.read_json(workdir / CONFIG), config, MAY_DIFFER)
    if differing:
        raise ValueError(
            f"--workdir={workdir} holds the run of another config; name another directory with "
            f"--workdir=DIR, or delete this one to start anew. The differences:\n  "
            + "\n  ".join(differing[:10])
        )


def _is_beginning(name: str) -> bool:
    return name == LOCK or (name.startswith(CONFIG) and name.endswith(files.UNFINISHED))


def check_dataset(workdir: Path, facts: Mapping[str, Any]) -> None:
    """Raises ValueError if the run was begun on other classes, images, labels or splits.

    A split that is drawn from changed data would put test images of before into training.
    """
    if not (workdir / DATASET).exists():
        return
    stored = files.read_json(workdir / DATASET)
    differing = [key for key in ("class_names", "splits") if stored[key] != facts[key]]
    if differing:
        raise ValueError(
            f"the data have changed since the run in --workdir={workdir} was begun "
            f"({' and '.join(differing)} differ from its {DATASET}): restore them, or begin a new "
            "run in another directory"
        )


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Creates the directory and keeps other runs from training in it meanwhile. The first process
    of a run does that for all of them.

    Raises:
        ValueError: another process trains there now.
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
    """Notes the config and the facts of the data set that a run has, on the first process only."""
    if mesh.is_first_process():
        files.write_json(workdir / CONFIG, config)
        files.write_json(workdir / DATASET, dataset)


def in_use(workdir: Path) -> bool:
    """Whether a process trains in the directory now."""
    if not (workdir / LOCK).exists():
        return False
    with (workdir / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def differences(old: Any, new: Any, may_differ: Collection[str]) -> list[str]:
    """A line for each key, as in "phases.0.lr", whose value is another one in two configs."""
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
