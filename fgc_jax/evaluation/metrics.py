"""Mask-exact evaluation: per-image results gathered over devices, metrics computed once."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fgc_jax import mesh
from fgc_jax.runs.results import Metrics

ECE_BINS = 15


@dataclasses.dataclass(frozen=True)
class Results:
    """One row per evaluated image, each image once, in the order of the split.

    index int [N] (position in the split), label int [N], loss f32 [N] (nats), rank int [N]
    (classes scored above the true one; K where a score is not finite), classes int [N, k] and
    probabilities f32 [N, k] (the k best, best first), unreadable int [M] (positions of images
    that could not be read).
    """

    index: np.ndarray
    label: np.ndarray
    loss: np.ndarray
    rank: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    unreadable: np.ndarray


def run(
    eval_step, variables: Any, stats: Any, batches: Iterable[dict], device_mesh, num_images: int
) -> Results:
    """Evaluates every image of a split; padding has mask 0 and is left out.

    `batches` are host batches with `image`, `label`, `mask` and `index` (index -1 for padding).
    One batch is in flight while the one before it is read back.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for rows in _lagging(eval_step, variables, stats, batches, device_mesh):
        for name, values in rows.items():
            columns.setdefault(name, []).append(values)
    rows = {name: np.concatenate(parts) for name, parts in columns.items()}
    real = rows["index"] >= 0
    if real.sum() != num_images or len(np.unique(rows["index"][real])) != num_images:
        raise RuntimeError(f"evaluated {real.sum()} rows of a split of {num_images} images")
    order = np.argsort(np.where(real, rows["index"], num_images), kind="stable")[:num_images]
    rows = {name: values[order] for name, values in rows.items()}
    read = rows.pop("mask") > 0
    unreadable = rows["index"][~read]
    return Results(**{name: values[read] for name, values in rows.items()}, unreadable=unreadable)


def _lagging(eval_step, variables, stats, batches, device_mesh) -> Iterator[dict[str, np.ndarray]]:
    pending = None
    for batch in batches:
        on_device = mesh.to_global(device_mesh, batch)
        results = eval_step(
            variables, stats, {name: on_device[name] for name in ("image", "label")}
        )
        results |= {name: on_device[name] for name in ("index", "label", "mask")}
        if pending is not None:
            yield mesh.gather(pending)
        pending = results
    if pending is not None:
        yield mesh.gather(pending)


def confusion_matrix(results: Results, num_classes: int) -> np.ndarray:
    """Counts int [K, K]: row = true class, column = predicted class.

    Images without a finite score have no prediction and are left out.
    """
    finite = results.rank < num_classes
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (results.label[finite], results.classes[finite, 0]), 1)
    return matrix


def class_accuracy(results: Results, num_classes: int) -> np.ndarray:
    """Top-1 accuracy of each class in percent, f64 [K]; NaN for a class without images."""
    counts = np.bincount(results.label, minlength=num_classes)
    hits = np.bincount(results.label, weights=results.rank == 0, minlength=num_classes)
    return 100 * np.divide(hits, counts, out=np.full(num_classes, np.nan), where=counts > 0)


def summarise(results: Results, num_classes: int) -> Metrics:
    """Metrics over all images: accuracies and calibration error in percent, loss in nats.

    `mean_class_accuracy` averages over the classes that have images. `ece` is the expected
    calibration error of the top-1 probability over 15 equal bins (Guo et al., arXiv:1706.04599).
    An image without finite scores is an error in all accuracies, makes the loss NaN and has no
    confidence that the calibration error could judge.

    Raises:
        ValueError: no image could be read.
    """
    if not len(results.label):
        raise ValueError("no image of this split could be read")
    finite = results.rank < num_classes
    return Metrics(
        images=len(results.label),
        unreadable=len(results.unreadable),
        loss=float(results.loss.mean(dtype=np.float64)),
        top1=float(100 * (results.rank == 0).mean()),
        top5=float(100 * (results.rank < min(5, num_classes)).mean()),
        mean_class_accuracy=float(np.nanmean(class_accuracy(results, num_classes))),
        ece=calibration_error(results.probabilities[finite, 0], results.rank[finite] == 0),
    )


def calibration_error(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Expected calibration error in percent: confidence f32 [N] in 0..1, hit bool [N]; NaN of
    nothing."""
    if not len(confidence):
        return float("nan")
    confidence = confidence.astype(np.float64)
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    error = 0.0
    for index in np.unique(bins):
        inside = bins == index
        error += inside.mean() * abs(confidence[inside].mean() - hit[inside].mean())
    return float(100 * error)


def most_confused(matrix: np.ndarray, most: int = 10) -> list[tuple[int, int, int]]:
    """The pairs with most errors, (true class, predicted class, count), most first."""
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, errors.shape)
    return [
        (int(row), int(column), int(errors[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if errors[row, column]
    ]
