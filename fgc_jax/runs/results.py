"""The results of a run: results.json, written at the end of each phase and of the run."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgc_jax import console, files, mesh
from fgc_jax.runs import directory


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Metrics of the images of a split: accuracies and `ece` in percent, `loss` in nats.

    Without an image with finite scores, `loss` and `ece` are NaN, which is null in JSON.
    """

    images: int
    unreadable: int  # images left out of all numbers
    loss: float
    top1: float
    top5: float
    mean_class_accuracy: float  # over the classes that have images
    ece: float  # expected calibration error


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics, and how they were measured. In JSON all of them are in one object."""

    checkpoint: int  # its step
    split: str
    views: str
    metrics: Metrics

    def json(self) -> dict[str, Any]:
        """The object in results.json and metrics.json."""
        facts = dataclasses.asdict(self)
        metrics = facts.pop("metrics")
        return {**facts, **metrics}


@dataclasses.dataclass(frozen=True)
class Best:
    """The epoch whose state is the result of its phase."""

    step: int  # global
    epoch: int  # of the phase, from 1
    score: float | None  # greater is better; None without validation
    val: Mapping[str, float] | None  # metrics of the validation split, by name


@dataclasses.dataclass(frozen=True)
class LrByHand:
    """A learning rate that was set by hand during training."""

    epoch: int  # the first one with it
    lr: float | None  # None: that of the config again


@dataclasses.dataclass(frozen=True)
class FinishedPhase:
    """A finished phase."""

    name: str
    epochs: int
    steps: int
    best_val_top1: float | None  # percent; None without validation or for other tasks
    best: Best
    images_per_second: float  # of its train steps only
    seconds: float  # of the whole phase
    lr_by_hand: tuple[LrByHand, ...] = ()


@dataclasses.dataclass(frozen=True)
class Logits:
    """The logits that the test uses, and the validation top-1 of each kind if it chose them."""

    chosen: str
    val_top1: dict[str, float] | None


@dataclasses.dataclass(frozen=True)
class Results:
    """The content of results.json."""

    config: dict[str, Any]  # as config.json
    dataset: str
    num_classes: int
    pretrained: str | None
    params: int
    forward_gflops: float
    phases: tuple[FinishedPhase, ...]
    bad_images: tuple[str, ...]
    complete: bool
    logits: Logits | None = None
    test: Evaluation | None = None


def write(workdir: Path, found: Results) -> None:
    """Writes results.json, on the first process only."""
    if mesh.is_first_process():
        test = found.test and found.test.json()
        files.write_json(workdir / directory.RESULTS, dataclasses.asdict(found) | {"test": test})


def read(workdir: Path) -> Results | None:
    """results.json of a run; None if the run has not finished a phase yet.

    Raises:
        ValueError: the file is damaged, or from another version.
    """
    path = workdir / directory.RESULTS
    if not path.exists():
        return None
    stored = files.read_json(path)
    try:
        if test := stored["test"]:
            facts = {name: test.pop(name) for name in ("checkpoint", "split", "views")}
            stored["test"] = {**facts, "metrics": test}
        return parse(Results, stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or from another version: {error}") from None


def parse(kind: Any, stored: Any) -> Any:
    """A value of the type `kind`, for example a dataclass, from its JSON. The null of a float is
    NaN. Raises KeyError, TypeError or AttributeError if `stored` is something else."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if type(None) in parts:
        return None if stored is None else parse(parts[0], stored)
    if kind is float and stored is None:
        return math.nan
    if origin in (list, tuple):
        return origin(parse(parts[0], each) for each in stored)
    if origin in (dict, Mapping):
        return {key: parse(parts[1], each) for key, each in stored.items()}
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: parse(hints[name], each) for name, each in stored.items()})
    return stored


def finished(workdir: Path) -> Results | None:
    """The results of a finished run, else None. Raises ValueError like `read`."""
    found = read(workdir)
    return found if found and found.complete else None


def chosen_logits(workdir: Path) -> str:
    """The logits that a finished run chose on validation and used in its test; "plain" if there was
    no choice or the run is not finished."""
    found = finished(workdir)
    return found.logits.chosen if found and found.logits else "plain"


def chosen_epochs(workdir: Path, config: Mapping[str, Any]) -> list[int]:
    """For a final run of `config`: the number of epochs until the result (best or last state) of
    each phase of a finished search.

    Raises:
        ValueError: the search is not finished, has another config, or its learning rate was changed
            by hand.
    """
    found = finished(workdir)
    if found is None:
        raise ValueError(f"config.search={workdir} contains no finished run")
    if found.config["final"]:
        raise ValueError(f"config.search={workdir} is itself a final run, which selects no epochs")
    may_differ = (*directory.MAY_DIFFER, "final", "search", "seed")
    differing = directory.differences(found.config, config, may_differ)
    if differing:
        raise ValueError(
            f"config.search={workdir} is a run with another config, so its epochs do not apply to "
            "this one. The differences:\n  " + "\n  ".join(differing[:10])
        )
    by_hand = [phase.name for phase in found.phases if phase.lr_by_hand]
    if by_hand:
        raise ValueError(
            f"config.search={workdir}: the learning rate of {', '.join(by_hand)} was changed "
            "with override.json, which a final run does not repeat"
        )
    chosen = []
    for index, phase in enumerate(found.phases):
        follower = config["phases"][index + 1 : index + 2]
        last = any(each["start_from"] == "last" for each in follower)
        chosen.append(phase.epochs if last else phase.best.epoch)
    return chosen


def table(found: Results) -> str:
    """Results as a text: a row for each phase, then the test metrics and how they were measured."""
    rows = [("phase", "epochs", "best val top-1", "images/s", "seconds")]
    for phase in found.phases:
        rows.append(
            (
                phase.name,
                str(phase.epochs),
                "-" if phase.best_val_top1 is None else f"{phase.best_val_top1:.2f} %",
                f"{phase.images_per_second:.0f}",
                f"{phase.seconds:.0f}",
            )
        )
    lines = [console.table(rows), ""]
    for phase in found.phases:
        for change in phase.lr_by_hand:
            rate = "the recipe's lr again" if change.lr is None else f"lr {change.lr:g}"
            lines.append(f"by hand, phase {phase.name}: {rate} from epoch {change.epoch} on")
    if found.test:
        test, metrics = found.test, found.test.metrics
        lines.append(
            f"test: top-1 {metrics.top1:.2f} %, top-5 {metrics.top5:.2f} %, mean class accuracy "
            f"{metrics.mean_class_accuracy:.2f} %, ECE {metrics.ece:.2f} %\n"
            f"      {metrics.images:,} images, views {test.views}, checkpoint of step "
            f"{test.checkpoint}, pretrained: {found.pretrained or 'no'}"
        )
    else:
        lines.append("no test split, so no test")
    if found.logits and found.logits.val_top1:
        compared = ", ".join(f"{name} {top1:.2f} %" for name, top1 in found.logits.val_top1.items())
        lines.append(f"logits: {found.logits.chosen}, by validation top-1: {compared}")
    if found.bad_images:
        number = len(found.bad_images)
        lines.append(f"{number} unreadable images were skipped, see {directory.RESULTS}")
    return "\n".join(lines)
