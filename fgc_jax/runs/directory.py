"""The run directory: whose it is, what it holds, and who may write to it now."""

import contextlib
import fcntl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fgc_jax import console, files

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
    differing = _differences(files.read_json(workdir / CONFIG), config, MAY_DIFFER)
    if differing:
        raise ValueError(
            f"--workdir={workdir} holds the run of another config; choose another directory, or "
            f"delete it to start anew. The differences:\n  " + "\n  ".join(differing[:10])
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
    """Creates the directory and keeps other processes from training in it meanwhile.

    Raises:
        ValueError: another process trains there now.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another process is training in --workdir={workdir}") from None
        yield


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


def finished_results(workdir: Path) -> dict[str, Any] | None:
    """results.json of a run that has nothing left to do, else None."""
    path = workdir / RESULTS
    results = files.read_json(path) if path.exists() else None
    return results if results and results["complete"] else None


def chosen_logits(workdir: Path) -> str:
    """Which logits a finished run scored its test by, as its validation had it: "plain" where there
    was no choice, or is no finished run."""
    results = finished_results(workdir) or {}
    return (results.get("logits") or {"chosen": "plain"})["chosen"]


def chosen_epochs(workdir: Path, config: Mapping[str, Any]) -> list[int]:
    """How many epochs led each phase of a finished search to what it gave, its best or its last
    state, for a final run of the same `config`.

    Raises:
        ValueError: the search is not finished, was one with another config, or one whose learning
            rate was changed by hand.
    """
    results = finished_results(workdir)
    if results is None:
        raise ValueError(f"config.search={workdir} holds no finished run")
    if results["config"]["final"]:
        raise ValueError(f"config.search={workdir} is a final run itself, which chose nothing")
    differing = _differences(results["config"], config, (*MAY_DIFFER, "final", "search", "seed"))
    if differing:
        raise ValueError(
            f"config.search={workdir} is a run of another config, which chose no epochs for this "
            "one. The differences:\n  " + "\n  ".join(differing[:10])
        )
    by_hand = [phase["name"] for phase in results["phases"] if phase.get("lr_by_hand")]
    if by_hand:
        raise ValueError(
            f"config.search={workdir}: the learning rate of {', '.join(by_hand)} was changed by "
            "hand, which a final run does not repeat"
        )
    chosen = []
    for index, phase in enumerate(results["phases"]):
        follower = config["phases"][index + 1 : index + 2]
        last = any(each["start_from"] == "last" for each in follower)
        chosen.append(phase["epochs"] if last else phase["best"]["epoch"])
    return chosen


def _differences(old, new, may_differ) -> list[str]:
    old, new = _flat(old), _flat(new)
    return [
        f"{key}: {old.get(key, '(absent)')!r} there, {new.get(key, '(absent)')!r} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in may_differ
    ]


def results_table(results: Mapping[str, Any]) -> str:
    """results.json for people: a row per phase, then the test line with what stands behind it."""
    rows = [("phase", "epochs", "best val top-1", "images/s", "seconds")]
    for phase in results["phases"]:
        rows.append(
            (
                phase["name"],
                str(phase["epochs"]),
                "-" if phase["best_val_top1"] is None else f"{phase['best_val_top1']:.2f} %",
                f"{phase['images_per_second']:.0f}",
                f"{phase['seconds']:.0f}",
            )
        )
    lines = [console.table(rows), ""]
    for phase in results["phases"]:
        for change in phase.get("lr_by_hand", ()):
            rate = "the recipe's lr again" if change["lr"] is None else f"lr {change['lr']:g}"
            lines.append(f"by hand, phase {phase['name']}: {rate} from epoch {change['epoch']} on")
    test = results["test"]
    if test:
        lines.append(
            f"test: top-1 {test['top1']:.2f} %, top-5 {test['top5']:.2f} %, mean class accuracy "
            f"{test['mean_class_accuracy']:.2f} %, ECE {test['ece']:.2f} %\n"
            f"      {test['images']:,} images, views {test['views']}, checkpoint of step "
            f"{test['checkpoint']}, pretrained: {results['pretrained'] or 'no'}"
        )
    else:
        lines.append("no test split: nothing was tested")
    compared = (results.get("logits") or {}).get("val_top1")
    if compared:
        found = ", ".join(f"{name} {top1:.2f} %" for name, top1 in compared.items())
        lines.append(f"logits: {results['logits']['chosen']}, by validation top-1: {found}")
    if results["bad_images"]:
        lines.append(f"{len(results['bad_images'])} unreadable images were skipped, see {RESULTS}")
    return "\n".join(lines)


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
