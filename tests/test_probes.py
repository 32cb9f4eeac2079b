"""Probes: against their formulas, and an honest order of looking at the splits."""

import json

import numpy as np
import pytest
from scipy import special

from fgc_jax.cli import probe
from fgc_jax.training import probes
from fgc_jax.training.embeddings import Embedded

CLASSES = 4


def embedded(count, seed, spread=1.5):
    """Gaussian classes that overlap; unequal scales of the coordinates."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    centres = np.random.default_rng(9).normal(size=(CLASSES, 6))
    vectors = (centres[labels] + rng.normal(size=(count, 6)) * spread) * (1, 2, 5, 1, 1, 0.1) + 3
    index = np.arange(count, dtype=np.int32)
    return Embedded(vectors.astype(np.float32), labels, index, np.zeros(0, np.int32))


@pytest.fixture
def splits():
    return embedded(90, 0), embedded(60, 1), embedded(50, 2)


def gradient(weights, inputs, labels, l2):
    """Of mean cross-entropy + l2 / 2 |W|^2, in float64; the last row is the bias."""
    ones = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1).astype(np.float64)
    error = special.softmax(ones @ weights, axis=1) - np.eye(CLASSES)[labels]
    return ones.T @ error / len(labels) + l2 * np.append(weights[:-1], [[0] * CLASSES], axis=0)


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_the_regression_is_solved(splits, l2):
    train = splits[0]
    inputs = (train.vectors - train.vectors.mean(0)) / train.vectors.std(0)
    weights = probes.logistic_regression(inputs, train.labels, CLASSES, l2)
    start = np.abs(gradient(np.zeros_like(weights), inputs, train.labels, l2)).max()
    assert start > 0.1
    assert np.abs(gradient(weights, inputs, train.labels, l2)).max() < 1.5e-5
    other = np.random.default_rng(5).normal(size=weights.shape)
    again = probes.logistic_regression(inputs, train.labels, CLASSES, l2, start=other)
    difference = weights - again
    difference[-1] -= difference[-1].mean()  # a constant added to all biases changes nothing
    assert np.abs(difference).max() < 0.02 * np.abs(weights).max()


def test_linear_probe_by_the_formula(splits):
    train, val, test = splits
    outcome = probes.linear(train, val, test, CLASSES)
    assert [l2 for l2, _ in outcome.tried] == sorted(probes.L2, reverse=True)
    tops = [metrics.top1 for _, metrics in outcome.tried]
    assert outcome.chosen == outcome.tried[int(np.argmax(tops))][0]
    mean, deviation = train.vectors.mean(0), train.vectors.std(0)
    inputs = (train.vectors - mean) / deviation
    # Plain gradient descent, far enough, is another way to the same optimum.
    weights = np.zeros((7, CLASSES))
    for _ in range(4000):
        weights -= 0.5 * gradient(weights, inputs, train.labels, outcome.chosen)
    logits = (test.vectors - mean) / deviation @ weights[:-1] + weights[-1]
    hits = logits.argmax(1) == test.labels
    assert outcome.test.top1 == pytest.approx(100 * hits.mean(), abs=2.1)
    loss = -special.log_softmax(logits, axis=1)[np.arange(50), test.labels].mean()
    assert outcome.test.loss == pytest.approx(loss, rel=0.02)
    assert outcome.test.images == 50 and outcome.test.top1 > 50


def test_a_coordinate_that_never_changes_does_no_harm(splits):
    train, val, test = (
        Embedded(np.pad(each.vectors, ((0, 0), (0, 1))), each.labels, each.index, each.unreadable)
        for each in splits
    )
    assert probes.linear(train, val, test, CLASSES, [0.1]).test.top1 > 50


@pytest.mark.parametrize("chunk", [7, 1024])
def test_votes_by_the_formula(splits, chunk, monkeypatch):
    monkeypatch.setattr(probes, "CHUNK", chunk)
    train, val, test = splits
    ks, temperature = [1, 5, 20], 0.07
    outcome = probes.knn(train, val, test, CLASSES, ks, temperature)

    def top1(queries, k):
        hits = 0
        for vector, label in zip(queries.vectors.astype(np.float64), queries.labels, strict=True):
            norms = np.linalg.norm(train.vectors, axis=1) * np.linalg.norm(vector)
            similar = train.vectors @ vector / norms
            votes = np.zeros(CLASSES)
            for index in np.argsort(-similar)[:k]:
                votes[train.labels[index]] += np.exp(similar[index] / temperature)
            hits += votes.argmax() == label
        return 100 * hits / len(queries.labels)

    expected = [top1(val, k) for k in ks]
    assert [metrics.top1 for _, metrics in outcome.tried] == pytest.approx(expected)
    assert outcome.chosen == ks[int(np.argmax(expected))]
    assert outcome.test.top1 == pytest.approx(top1(test, outcome.chosen))
    assert 0 < outcome.test.ece < 100


def test_neighbours_that_cannot_be(splits):
    for ks, temperature in (([0], 0.07), ([91], 0.07), ([], 0.07), ([5], 0.0)):
        with pytest.raises(ValueError, match="must"):
            probes.knn(*splits, CLASSES, ks, temperature)


@pytest.mark.parametrize("method", ["knn", "linear"])
def test_the_test_split_is_looked_at_once_and_last(splits, method, monkeypatch):
    looks, real = [], probes._metrics

    def metrics(logits, each, num_classes):
        looks.append(len(each.labels))
        return real(logits, each, num_classes)

    monkeypatch.setattr(probes, "_metrics", metrics)
    if method == "knn":
        probes.knn(*splits, CLASSES, [5, 10], 0.07)
    else:
        probes.linear(*splits, CLASSES, [1.0, 0.1])
    assert looks == [60, 60, 50]
    assert probes.linear(*splits[:2], None, CLASSES, [1.0]).test is None


def test_a_run_as_a_user_probes_it(tiny, tmp_path, capsys):
    output = tmp_path / "probe.json"
    flags = [f"--workdir={tiny / 'run'}", f"--cache={tmp_path / 'cache'}"]
    assert probe.main([*flags, f"--output={output}"]) == 0
    found = json.loads(output.read_text())
    assert (found["checkpoint"], found["test"]["images"], found["method"]) == (7, 15, "linear")
    out = capsys.readouterr().out
    assert f"test: top-1 {found['test']['top1']:.2f} %" in out and "15 images, views raw" in out
    assert probe.main([*flags, "--method=knn", "--k=1,3"]) == 0
    assert "train, val, test from" in capsys.readouterr().out
    assert probe.main([*flags, "--method=knn", "--k=99"]) == 1
    assert "must be 1 to 18" in capsys.readouterr().err
