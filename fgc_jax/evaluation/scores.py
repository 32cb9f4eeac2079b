"""An evaluation on disk: a folder of numbers, tables and pictures, written completely or not at
all."""

import csv
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgc_jax import console, files, mesh
from fgc_jax.evaluation import metrics
from fgc_jax.plots import evaluation as pictures
from fgc_jax.plots import style
from fgc_jax.runs.results import Evaluation

METRICS = "metrics.json"
FILES = (
    METRICS, "per_class.csv", "confusion.csv", "confusion.png", "most_confused.csv",
    "predictions.csv", "predictions.png",
)  # fmt: skip
PICTURES = 24  # in predictions.png


def write(
    folder: Path, evaluation: Evaluation, rows: metrics.Rows, split: Any, class_names: Sequence[str]
) -> None:
    """Writes the evaluation of `split` with its `rows` to `folder`, on the first process only.

    An earlier evaluation in the folder is replaced when the new one is complete.

    Raises:
        ValueError: the folder contains other files than an evaluation.
    """
    if not mesh.is_first_process():
        return
    folder = Path(folder)
    check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed here
    new.mkdir()
    try:
        _write_files(new, evaluation, rows, split, class_names)
        _replace(folder, new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def report(evaluation: Evaluation, matrix: np.ndarray, class_names: Sequence[str]) -> str:
    """An evaluation as a text: metrics, how they were measured, and the most confused classes."""
    found = evaluation.metrics
    rows = [
        (f"{evaluation.split}, checkpoint of step {evaluation.checkpoint}", ""),
        ("top-1", f"{found.top1:.2f} %"),
        ("top-5", f"{found.top5:.2f} %"),
        ("mean class accuracy", f"{found.mean_class_accuracy:.2f} %"),
        ("loss", f"{found.loss:.4f} nats"),
        ("calibration error (ECE)", f"{found.ece:.2f} %"),
        ("images", f"{found.images:,}"),
        ("unreadable images, left out", f"{found.unreadable:,}"),
        ("views", evaluation.views),
    ]
    worst = metrics.most_confused(matrix, 5)
    if not worst:
        return f"{console.table(rows)}\n\nno classes are confused"
    pairs = [("most confused, true class", "predicted", "images", "of the class")]
    for true, predicted, count in worst:
        share = f"{100 * count / matrix[true].sum():.0f} %"
        pairs.append((class_names[true], class_names[predicted], str(count), share))
    return f"{console.table(rows)}\n\n{console.table(pairs)}"


def unreadable(rows: metrics.Rows, split: Any) -> str:
    """A text with the unreadable images of a split; METRICS contains all of them."""
    names = [f"  {split.names[position]}" for position in rows.unreadable]
    more = [f"  ... all of them in {METRICS}"] if len(names) > 20 else []
    return "\n".join([f"{len(names)} unreadable images are not counted above:", *names[:20], *more])


def check_folder(folder: Path) -> None:
    """Raises ValueError if writing an evaluation to `folder` would delete other files."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"cannot write an evaluation to {folder}: it is not a folder")
    strays = sorted({entry.name for entry in folder.iterdir()} - set(FILES))
    if strays:
        raise ValueError(
            f"cannot write an evaluation to {folder}: it contains other files "
            f"({', '.join(strays[:3])}{', ...' if len(strays) > 3 else ''}); use an empty folder"
        )


def _replace(folder: Path, new: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write_files(new: Path, evaluation, rows: metrics.Rows, split, class_names) -> None:
    matrix = metrics.confusion_matrix(rows, len(class_names))
    names = [str(split.names[position]) for position in rows.unreadable]
    files.write_json(new / METRICS, {**evaluation.json(), "unreadable_images": names})
    _table(new / "per_class.csv", _per_class(rows, matrix, class_names))
    _table(
        new / "confusion.csv",
        [
            ("true \\ predicted", *class_names),
            *((name, *row) for name, row in zip(class_names, matrix.tolist(), strict=True)),
        ],
    )
    _table(new / "most_confused.csv", _most_confused(matrix, class_names))
    _table(new / "predictions.csv", _predictions(rows, split, class_names))
    name, found = style.shortened(evaluation.split, 60), evaluation.metrics
    title = f"{name}: top-1 {found.top1:.2f} % of {found.images:,} images"
    run = f"checkpoint of step {evaluation.checkpoint}, views {evaluation.views}"
    figure = pictures.confusion(matrix, class_names, f"{title}, {len(class_names)} classes\n{run}")
    style.save(figure, new / "confusion.png")
    tiles, shown = _tiles(rows, split, class_names)
    style.save(pictures.predictions(tiles, f"{title}, {run}\n{shown}"), new / "predictions.png")


def _table(path: Path, rows: Iterable[Sequence]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _per_class(rows: metrics.Rows, matrix, class_names) -> Iterator[Sequence]:
    """A row for each class; cells without a value (no image, not predicted, no error) are empty."""
    columns = "number class images correct accuracy precision most_common_wrong_prediction"
    yield *columns.split(), "wrong_predictions"
    images = np.bincount(rows.label, minlength=len(class_names))
    for index, name in enumerate(class_names):
        correct, predicted = matrix[index, index], matrix[:, index].sum()
        errors = matrix[index].copy()
        errors[index] = 0
        worst = int(errors.argmax())
        yield (
            index,
            name,
            images[index],
            correct,
            _percent(correct, images[index]),
            _percent(correct, predicted),
            class_names[worst] if errors[worst] else "",
            errors[worst] or "",
        )


def _most_confused(matrix, class_names) -> Iterator[Sequence]:
    """All pairs of classes with errors, most errors first."""
    yield "true", "predicted", "images", "percent_of_true"
    totals = matrix.sum(1)
    for true, predicted, count in metrics.most_confused(matrix, matrix.size):
        yield class_names[true], class_names[predicted], count, _percent(count, totals[true])


def _predictions(rows: metrics.Rows, split, class_names) -> Iterator[Sequence]:
    """A row for each image, in the order of the split; unreadable images have no prediction."""
    others = range(2, rows.classes.shape[1] + 1)
    ranked = (name for place in others for name in (f"class_{place}", f"probability_{place}"))
    yield "name", "label", "predicted", "probability", "correct", "place_of_label", *ranked
    finite = rows.rank < len(class_names)
    row_of = {int(position): row for row, position in enumerate(rows.index)}
    for position in range(len(split)):
        about = (str(split.names[position]), class_names[int(split.labels[position])])
        row = row_of.get(position)
        if row is None or not finite[row]:
            yield *about, *[""] * (4 + 2 * len(others))
            continue
        best = [
            cell
            for number, probability in zip(rows.classes[row], rows.probabilities[row], strict=True)
            for cell in (class_names[int(number)], f"{probability:.6f}")
        ]
        rank = int(rows.rank[row])
        yield *about, *best[:2], int(rank == 0), rank + 1, *best[2:]


def _tiles(rows: metrics.Rows, split, class_names) -> tuple[list[dict], str]:
    """A fixed choice of images, errors first; half of them are errors if there are enough."""
    rng = np.random.default_rng(0)
    finite = rows.rank < len(class_names)
    hits, errors = np.flatnonzero(rows.rank == 0), np.flatnonzero(finite & (rows.rank > 0))
    number_errors = min(len(errors), max(PICTURES // 2, PICTURES - len(hits)))
    number_hits = min(len(hits), PICTURES - number_errors)
    chosen = [
        *np.sort(rng.choice(errors, number_errors, replace=False)),
        *np.sort(rng.choice(hits, number_hits, replace=False)),
    ]
    tiles = [
        {
            "image": split.read(int(rows.index[row])),
            "label": style.drawable(class_names[rows.label[row]], rows.label[row]),
            "predicted": style.drawable(class_names[rows.classes[row, 0]], rows.classes[row, 0]),
            "probability": float(rows.probabilities[row, 0]),
            "correct": bool(rows.rank[row] == 0),
        }
        for row in chosen
    ]
    title = f"Here: {number_errors} of {len(errors):,} errors, {number_hits} of {len(hits):,} hits"
    return tiles, title


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else ""
