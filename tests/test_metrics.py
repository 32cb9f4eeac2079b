"""Evaluation against plain NumPy: padding, unreadable images, ties, non-finite scores."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from fgc_jax import mesh, models
from fgc_jax.data import dataset, pipeline
from fgc_jax.evaluation import metrics
from fgc_jax.models.network import Network

CLASSES = 7
TRANSFORM = pipeline.Transform(
    resize=2, mode="squash", crop=2, random_crop=False, interpolation="bilinear"
)


class Lookup(nnx.Module):
    """A network whose logits for an image are the table's row that the first pixel numbers."""

    def __init__(self, table):
        self.table = nnx.Param(jnp.asarray(table))

    def __call__(self, images, *, rngs=None):
        return self.table[...][jnp.round(images[:, 0, 0, 0]).astype(int)], {}


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Reads image i as one whose pixels are all i; those in `damaged` cannot be read."""

    damaged: tuple[int, ...] = ()

    def __call__(self, index):
        if index in self.damaged:
            raise ValueError(f"{index}.png: damaged")
        return np.full((2, 2, 3), index, np.uint8)


def evaluated(logits, labels, *, batch_size=8, damaged=()):
    """The Rows of images with these logits, through the real pipeline and evaluation step."""
    model = Lookup(logits)
    variables = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    device_mesh = mesh.make()
    (facts, *_) = models.BACKBONES["resnet18"].weights.values()
    # Pixels come through as 0..255.
    as_they_are = dataclasses.replace(facts, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    network = Network(None, model, variables, {}, {}, as_they_are)
    eval_step = metrics.compiled(network, device_mesh)
    names = [f"{i}.png" for i in range(len(labels))]
    split = dataset.Split(labels, names, Numbered(damaged))
    reader = pipeline.Reader(on_bad_image="skip")
    with pipeline.eval_batches(split, TRANSFORM, reader, batch_size=batch_size) as batches:
        return metrics.run(eval_step, variables, {}, batches, device_mesh, len(split))


def random_case(number=45, classes=CLASSES, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - 1, number).astype(np.int32)  # the last has no image
    logits = rng.normal(size=(number, classes)).astype(np.float32)
    logits[np.arange(number), labels] += 1.5
    return logits, labels


def by_the_book(logits, labels, bins=15):
    """All metrics, image by image in float64."""
    probabilities = special.softmax(np.float64(logits), axis=1)
    hits, top5, losses, per_class = [], [], [], {}
    matrix = np.zeros((logits.shape[1],) * 2, int)
    in_bins = [[] for _ in range(bins)]
    for row, label in enumerate(labels):
        order = sorted(range(logits.shape[1]), key=lambda k: (-logits[row, k], k))
        hits.append(order[0] == label)
        top5.append(label in order[:5])
        losses.append(-np.log(probabilities[row, label]))
        per_class.setdefault(int(label), []).append(hits[-1])
        matrix[label, order[0]] += 1
        confidence = probabilities[row, order[0]]
        in_bins[min(int(confidence * bins), bins - 1)].append((confidence, hits[-1]))
    gaps = [
        len(entries) * abs(np.mean([c for c, _ in entries]) - np.mean([h for _, h in entries]))
        for entries in in_bins
        if entries
    ]
    expected = {
        "loss": np.mean(losses),
        "top1": 100 * np.mean(hits),
        "top5": 100 * np.mean(top5),
        "mean_class_accuracy": 100 * np.mean([np.mean(each) for each in per_class.values()]),
        "ece": 100 * sum(gaps) / len(labels),
    }
    return expected, matrix


def assert_by_the_book(results, logits, labels, *, unreadable):
    expected, matrix = by_the_book(logits, labels)
    expected |= {"images": len(labels), "unreadable": unreadable}
    summary = dataclasses.asdict(metrics.summarise(results, logits.shape[1]))
    assert summary == pytest.approx(expected, rel=1e-5, abs=1e-5)
    np.testing.assert_array_equal(metrics.confusion_matrix(results, logits.shape[1]), matrix)


@pytest.mark.parametrize("batch_size", [1, 8, 45, 64])
def test_metrics_equal_numpy_whatever_the_padding(batch_size):
    logits, labels = random_case()
    results = evaluated(logits, labels, batch_size=batch_size)
    assert_by_the_book(results, logits, labels, unreadable=0)
    np.testing.assert_array_equal(results.index, np.arange(45))
    np.testing.assert_array_equal(results.label, labels)


def test_best_five_come_with_their_probabilities():
    logits, labels = random_case()
    results = evaluated(logits, labels)
    order = np.argsort(-logits, axis=1)[:, :5]
    np.testing.assert_array_equal(results.classes, order)
    expected = np.take_along_axis(special.softmax(logits, axis=1), order, 1)
    np.testing.assert_allclose(results.probabilities, expected, rtol=1e-5)


def test_unreadable_images_are_listed_and_in_no_metric():
    logits, labels = random_case()
    damaged = (0, 9, 44)
    results = evaluated(logits, labels, damaged=damaged)
    left = np.setdiff1d(np.arange(45), damaged)
    assert_by_the_book(results, logits[left], labels[left], unreadable=3)
    np.testing.assert_array_equal(results.unreadable, damaged)
    np.testing.assert_array_equal(results.index, left)


def test_nothing_readable_is_an_error():
    logits, labels = random_case(3)
    results = evaluated(logits, labels, damaged=(0, 1, 2))
    with pytest.raises(ValueError, match="no image of this split could be read"):
        metrics.summarise(results, CLASSES)


def all_hits(variables, stats, batch):
    number = len(batch["label"])
    return {
        "loss": jnp.zeros(number),
        "rank": jnp.zeros(number, int),
        "classes": jnp.zeros((number, 5), int),
        "probabilities": jnp.ones((number, 5)),
    }


def one_batch(index):
    number = len(index)
    return {
        "image": np.zeros((number, 2, 2, 3), np.uint8),
        "label": np.arange(number, dtype=np.int32),
        "mask": (np.array(index) >= 0).astype(np.float32),
        "index": np.array(index, np.int32),
    }


def test_rows_of_several_processes_are_put_in_order():
    batches = [one_batch([3, -1, 0, 2]), one_batch([-1, 1, -1, 4])]
    results = metrics.run(all_hits, {}, {}, batches, mesh.make(), 5)
    np.testing.assert_array_equal(results.index, np.arange(5))
    np.testing.assert_array_equal(results.label, [2, 1, 3, 0, 3])


@pytest.mark.parametrize("images", [7, 8, 9])
def test_missing_and_repeated_rows_are_noticed(images):
    batches = [one_batch([0, 1, 2, 3]), one_batch([4, 5, 6, 6])]
    with pytest.raises(RuntimeError, match=f"a split of {images} images"):
        metrics.run(all_hits, {}, {}, batches, mesh.make(), images)


@pytest.mark.parametrize("classes", [2, 3, 5, 7])
def test_equal_logits_count_as_argmax_decides(classes):
    logits = np.zeros((classes, classes), np.float32)
    labels = np.arange(classes, dtype=np.int32)
    results = evaluated(logits, labels)
    np.testing.assert_array_equal(results.rank, np.arange(classes))
    assert_by_the_book(results, logits, labels, unreadable=0)


def test_logits_that_softmax_cannot_tell_apart_keep_their_order():
    tiny = np.nextafter(np.float32(0.1), np.float32(1))
    logits = np.array([[0.1, tiny, 0.1], [300, 0, 20], [0, 20, 300]], np.float32)
    labels = np.array([1, 2, 1], np.int32)
    results = evaluated(logits, labels)
    np.testing.assert_array_equal(results.rank, [0, 1, 1])
    np.testing.assert_array_equal(results.classes, [[1, 0, 2], [0, 2, 1], [2, 1, 0]])


@pytest.mark.parametrize("classes", [3, 7])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_errors(classes, bad):
    logits, labels = random_case(20, classes)
    broken = [0, 7, 19]
    logits[broken, labels[broken]] = bad
    results = evaluated(logits, labels)
    summary = dataclasses.asdict(metrics.summarise(results, classes))
    fine = np.setdiff1d(np.arange(20), broken)
    expected, matrix = by_the_book(logits[fine], labels[fine])
    assert summary["images"] == 20
    assert summary["top1"] == pytest.approx(expected["top1"] * 17 / 20)
    assert summary["top5"] == pytest.approx(expected["top5"] * 17 / 20)
    assert summary["ece"] == pytest.approx(expected["ece"], rel=1e-5)
    assert not np.isfinite(summary["loss"])
    np.testing.assert_array_equal(metrics.confusion_matrix(results, classes), matrix)


def test_all_scores_not_finite():
    logits, labels = np.full((6, 3), np.nan, np.float32), np.arange(6, dtype=np.int32) % 3
    summary = dataclasses.asdict(metrics.summarise(evaluated(logits, labels), 3))
    assert summary["top1"] == summary["top5"] == summary["mean_class_accuracy"] == 0
    assert np.isnan(summary["loss"]) and np.isnan(summary["ece"])


@pytest.mark.parametrize(
    ("confidence", "hit", "expected"),
    [
        ([1.0, 1.0], [True, True], 0.0),
        ([1.0, 1.0], [False, False], 100.0),
        ([0.7, 0.7, 0.7, 0.7], [True, True, True, False], 5.0),
        ([0.2, 0.9], [True, True], 45.0),  # 0.5 * 0.8 + 0.5 * 0.1: two bins
        ([0.61, 0.65], [True, False], 13.0),  # one bin, of 0.6 to 0.667
        ([0.0, 1.0], [False, True], 0.0),  # both ends have a bin
    ],
)
def test_calibration_error_by_hand(confidence, hit, expected):
    found = metrics.calibration_error(np.array(confidence, np.float32), np.array(hit))
    assert found == pytest.approx(expected, abs=1e-4)


def test_most_confused_pairs():
    matrix = np.array([[9, 2, 0], [5, 1, 2], [0, 0, 4]])
    assert metrics.most_confused(matrix) == [(1, 0, 5), (0, 1, 2), (1, 2, 2)]
    assert metrics.most_confused(matrix, 1) == [(1, 0, 5)]
    assert metrics.most_confused(np.diag([3, 4])) == []
    assert matrix[0, 0] == 9  # the caller's matrix is left as it was


def test_class_without_images_has_no_accuracy():
    logits, labels = random_case()
    found = metrics.class_accuracy(evaluated(logits, labels), CLASSES)
    expected = [
        100 * np.mean(logits[labels == label].argmax(1) == label) for label in range(CLASSES - 1)
    ]
    np.testing.assert_allclose(found, [*expected, np.nan])
