"""Probes: how well frozen embeddings separate the classes, without training a network."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from fgc_jax import config, mesh
from fgc_jax.evaluation import metrics
from fgc_jax.methods import losses
from fgc_jax.runs import directory
from fgc_jax.runs.results import Metrics
from fgc_jax.training import plans, restored
from fgc_jax.training.embeddings import Embedded

CHUNK = 1024  # images compared with all training images at a time
L2 = tuple(10.0 ** (1 - power / 2) for power in range(9))  # 10 to 0.001, strongest first
GRADIENT = 1e-5  # the regression is solved when no entry of the gradient is larger
ITERATIONS = 2000


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a probe. tried: [(value, validation metrics), ...]."""

    tried: list[tuple[float, Metrics]]
    chosen: float
    test: Metrics | None


@dataclasses.dataclass(frozen=True)
class Subject:
    """The probed network, with its variables on the devices; facts: where they are from."""

    plan: plans.Plan
    params: Any
    stats: Any
    phase: config.Phase
    facts: dict[str, Any]


def of_recipe(settings: config.Settings) -> Subject:
    """The network of a recipe before training."""
    plan = plans.assemble(settings, plans.load_data(settings))
    params, stats = mesh.replicate(plan.mesh, plans.initial_variables(plan)[:2])
    facts = {"pretrained": settings.model.sources}
    return Subject(plan, params, stats, settings.phases[-1], facts)


def of_run(workdir: Path, checkpoint: str, data_root: str) -> Subject:
    """A run's checkpoint and the data set that it was trained on; `data_root` is the root of
    `restored.load_split`. Raises ValueError if one of them cannot be loaded."""
    run = restored.load_run(workdir, checkpoint)
    settings = restored.with_data_root(run.plan.settings, data_root)
    found = plans.load_data(settings)
    directory.check_dataset(workdir.absolute(), found.facts())
    plan = dataclasses.replace(run.plan, settings=settings, dataset=found)
    facts = {"workdir": str(workdir), "checkpoint": run.step}
    return Subject(plan, run.params, run.stats, run.phase, facts)


def knn(
    train: Embedded,
    val: Embedded,
    test: Embedded | None,
    num_classes: int,
    ks: Sequence[int],
    temperature: float,
) -> Outcome:
    """Weighted nearest neighbours (Wu et al., arXiv:1805.01978; DINO, arXiv:2104.14294): the k
    training images of greatest cosine similarity s vote with exp(s / temperature).

    k is the best on the validation split, the smaller one of equals; the test split is evaluated
    with this k only. The probabilities are the shares of the votes.

    Raises:
        ValueError: a k below 1 or above the number of training images, a temperature not above 0.
    """
    if not ks or min(ks) < 1 or max(ks) > len(train.labels):
        raise ValueError(f"k={list(ks)} must be 1 to {len(train.labels)}, the training images")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be above 0")
    found = _votes(train, val, num_classes, ks, temperature)
    tried = [(k, _metrics(found[k], val, num_classes)) for k in sorted(ks)]
    chosen = max(tried, key=lambda entry: entry[1].top1)[0]
    if test is None:
        return Outcome(tried, chosen, None)
    votes = _votes(train, test, num_classes, [chosen], temperature)[chosen]
    return Outcome(tried, chosen, _metrics(votes, test, num_classes))


def _votes(train, queries, num_classes, ks, temperature) -> dict[int, np.ndarray]:
    """k -> log of each class's share of the votes, f32 [N, K]."""
    keys, most = _unit(train.vectors), max(ks)
    shares = {k: np.zeros((len(queries.labels), num_classes), np.float64) for k in ks}
    for start in range(0, len(queries.labels), CHUNK):
        rows = slice(start, start + CHUNK)
        similar = _unit(queries.vectors[rows])
        similar = np.asarray(jnp.matmul(similar, keys.T, precision="highest"))
        near = np.argpartition(-similar, most - 1, axis=1)[:, :most]
        near = np.take_along_axis(
            near, np.argsort(-np.take_along_axis(similar, near, 1), axis=1, kind="stable"), 1
        )
        # Relative to the nearest: the same shares, and no overflow at low temperatures.
        values = np.take_along_axis(similar, near, 1).astype(np.float64)
        weights = np.exp((values - values[:, :1]) / temperature)
        places = np.arange(len(near))[:, None]
        for k in ks:
            np.add.at(shares[k][rows], (places, train.labels[near[:, :k]]), weights[:, :k])
    floor = np.finfo(np.float32).tiny
    return {
        k: np.log(np.maximum(found / found.sum(1, keepdims=True), floor)).astype(np.float32)
        for k, found in shares.items()
    }


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def linear(
    train: Embedded,
    val: Embedded,
    test: Embedded | None,
    num_classes: int,
    l2s: Sequence[float] = L2,
) -> Outcome:
    """Multinomial logistic regression on standardised embeddings, solved to its optimum.

    The l2 penalty is the best of `l2s` (strongest first) on the validation split, the stronger one
    of equals; the test split is evaluated with this penalty only.
    """
    mean, deviation = train.vectors.mean(0), train.vectors.std(0)
    scale = 1 / np.where(deviation > 1e-6 * deviation.max(), deviation, np.inf)

    def scaled(embedded):
        return (embedded.vectors - mean) * scale

    inputs, weights = scaled(train), None
    tried, best = [], None
    for l2 in l2s:
        weights = logistic_regression(inputs, train.labels, num_classes, l2, start=weights)
        found = _metrics(_logits(weights, scaled(val)), val, num_classes)
        tried.append((l2, found))
        if best is None or found.top1 > best[1].top1:
            best = l2, found, weights
    if test is None:
        return Outcome(tried, best[0], None)
    return Outcome(tried, best[0], _metrics(_logits(best[2], scaled(test)), test, num_classes))


def logistic_regression(
    inputs: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    l2: float,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Minimises mean cross-entropy + l2 / 2 * sum(W ** 2) by full-batch L-BFGS.

    inputs f32 [N, D], labels int [N] -> weights f64 [D + 1, K]; the last row is the bias, which
    is not penalised. The objective is convex, so `start` changes only the time.
    """
    shape = inputs.shape[1] + 1, num_classes
    start = np.zeros(shape) if start is None else start
    options = {"maxiter": ITERATIONS, "gtol": GRADIENT, "ftol": 0.0}
    # In f32 rounding errors stop the line search long before the optimum.
    with jax.enable_x64(True):
        inputs, labels = jnp.asarray(inputs, jnp.float64), jnp.asarray(labels, jnp.int32)

        def objective(flat):
            value, gradient = _loss(jnp.asarray(flat).reshape(shape), inputs, labels, l2)
            return float(value), np.asarray(gradient).ravel()

        found = scipy.optimize.minimize(
            objective, np.ravel(start).astype(np.float64), jac=True, method="L-BFGS-B",
            options=options,
        )  # fmt: skip
    return found.x.reshape(shape)


@jax.jit
@jax.value_and_grad
def _loss(weights, inputs, labels, l2):
    logits = inputs @ weights[:-1] + weights[-1][None]
    targets = losses.targets({"label": labels}, weights.shape[1])
    penalty = l2 / 2 * jnp.square(weights[:-1]).sum()
    return losses.cross_entropy(logits, targets).mean() + penalty


def _logits(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    return (inputs @ weights[:-1] + weights[-1]).astype(np.float32)


def _metrics(logits: np.ndarray, embedded: Embedded, num_classes: int) -> Metrics:
    """`metrics.summarise` of logits f32 [N, K]."""
    rows = jax.device_get(jax.jit(metrics.scored)(logits, embedded.labels))
    found = metrics.Rows(
        index=embedded.index, label=embedded.labels, unreadable=embedded.unreadable, **rows
    )
    return metrics.summarise(found, num_classes)
