"""Evaluation of a split: results of each image, gathered from all devices, and their metrics."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgc_jax.evaluation import inference, multiview
from fgc_jax.evaluation.views import RAW, Views
from fgc_jax.models.network import Network
from fgc_jax.runs.results import Metrics

ECE_BINS = 15
TOP_K = 5  # number of best classes that are kept for each image


@dataclasses.dataclass(frozen=True)
class Rows:
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
    eval_step, params: Any, stats: Any, batches: Iterable[dict], device_mesh, num_images: int
) -> Rows:
    """Evaluates every image of a split once. `eval_step` is the result of `compiled`; for the other
    arguments see `inference.rows`."""
    found, unreadable = inference.rows(eval_step, params, stats, batches, device_mesh, num_images)
    return Rows(**found, unreadable=unreadable)


def compiled(network: Network, device_mesh: jax.sharding.Mesh, views: Views = RAW):
    """The compiled evaluation step: (params, stats, batch) -> `scored` of each image in the given
    views. The batch contains `image` uint8 [B, H, W, 3] and `label` int32 [B]."""
    # Single images of any size are one program, so that the test uses that of validation.
    single = views.is_raw and views.logits == "plain"
    return _compiled(network, device_mesh, RAW if single else views)


@functools.lru_cache(maxsize=2)  # a test may evaluate with both kinds of logits
def _compiled(network: Network, device_mesh: jax.sharding.Mesh, views: Views):
    def work(forward, images, batch):
        return scored(multiview.scores(views, forward, images), batch["label"])

    return inference.compiled(network, device_mesh, work)


def scored(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """The results for each image, from logits f32 [B, K] and labels int32 [B].

    `loss` f32 [B] (cross-entropy in nats), `rank` int32 [B] (classes scored above the true one; 0
    is a hit), `classes` int32 and `probabilities` f32 [B, min(5, K)] (best first).
    """
    true_logit = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    # Of equal logits argmax takes the first class, so those before the true class rank above it.
    classes = jnp.arange(logits.shape[-1])[None, :]
    above = (logits > true_logit) | ((logits == true_logit) & (classes < labels[:, None]))
    # By logits, like rank: in f32, close or small probabilities become equal.
    _, order = jax.lax.top_k(logits, min(TOP_K, logits.shape[-1]))
    # Comparisons with NaN are false, which would count images with NaN logits as hits.
    rank = jnp.where(jnp.isfinite(logits).all(-1), above.sum(-1), logits.shape[-1])
    return {
        "loss": -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)[:, 0],
        "rank": rank.astype(jnp.int32),
        "classes": order.astype(jnp.int32),
        "probabilities": jnp.take_along_axis(jax.nn.softmax(logits), order, axis=-1),
    }


def confusion_matrix(rows: Rows, num_classes: int) -> np.ndarray:
    """Counts int [K, K]: row = true class, column = predicted class.

    Images without a finite score have no prediction and are left out.
    """
    finite = rows.rank < num_classes
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (rows.label[finite], rows.classes[finite, 0]), 1)
    return matrix


def class_accuracy(rows: Rows, num_classes: int) -> np.ndarray:
    """Top-1 accuracy of each class in percent, f64 [K]; NaN for a class without images."""
    counts = np.bincount(rows.label, minlength=num_classes)
    hits = np.bincount(rows.label, weights=rows.rank == 0, minlength=num_classes)
    return 100 * np.divide(hits, counts, out=np.full(num_classes, np.nan), where=counts > 0)


def summarise(rows: Rows, num_classes: int) -> Metrics:
    """Metrics over all images: accuracies and calibration error in percent, loss in nats.

    `mean_class_accuracy` averages over the classes that have images. `ece` is the expected
    calibration error of the top-1 probability over 15 equal bins (Guo et al., arXiv:1706.04599).
    An image without finite scores is an error in all accuracies, makes the loss NaN and is left out
    of the calibration error.

    Raises:
        ValueError: no image could be read.
    """
    if not len(rows.label):
        raise ValueError("no image of this split could be read")
    finite = rows.rank < num_classes
    return Metrics(
        images=len(rows.label),
        unreadable=len(rows.unreadable),
        loss=float(rows.loss.mean(dtype=np.float64)),
        top1=float(100 * (rows.rank == 0).mean()),
        top5=float(100 * (rows.rank < min(5, num_classes)).mean()),
        mean_class_accuracy=float(np.nanmean(class_accuracy(rows, num_classes))),
        ece=calibration_error(rows.probabilities[finite, 0], rows.rank[finite] == 0),
    )


def calibration_error(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Expected calibration error in percent, of confidence f32 [N] in 0..1 and hit bool [N]; NaN
    for N = 0."""
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
    """The pairs (true class, predicted class, count) with the most errors, most first."""
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, errors.shape)
    return [
        (int(row), int(column), int(errors[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if errors[row, column]
    ]
