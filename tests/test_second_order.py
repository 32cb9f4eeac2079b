"""Second-order heads against their formulas in NumPy, one position after the other."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax.models.heads import basic, matrix_root, second_order
from tests import networks
from tests.by_hand import array, linear
from tests.test_heads import maps

pytestmark = pytest.mark.usefixtures("compiled_quickly")

HEADS = {
    "compact_bilinear": lambda **o: second_order.CompactBilinear(
        (4,), 3, rngs=nnx.Rngs(0), **{"dimension": 11, **o}
    ),
    "isqrt_cov": lambda **o: second_order.IsqrtCov(
        (4,), 3, rngs=nnx.Rngs(0), **{"dimension": 5, **o}
    ),
    "low_rank_bilinear": lambda **o: second_order.LowRankBilinear(
        (4,), 3, rngs=nnx.Rngs(0), **{"dimension": 5, "rank": 4, **o}
    ),
    "improved_bilinear": lambda **o: basic.Bilinear(
        (4,), 3, rngs=nnx.Rngs(0), **{"root_iterations": 5, **o}
    ),
}


def features(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def circular_convolution(x, y):
    size = len(x)
    return [sum(x[i] * y[(k - i) % size] for i in range(size)) for k in range(size)]


def count_sketch(x, channels, dimension, seed):
    places, signs = second_order.hashes(channels, dimension, seed)
    sketch = np.zeros(dimension)
    for value, place, sign in zip(x, places, signs, strict=True):
        sketch[place] += sign * value
    return sketch


@pytest.mark.parametrize("dimension", [1, 7, 16])
def test_tensor_sketch_convolves_count_sketches(dimension):
    first, second = features((2, 3, 5)), features((2, 3, 4), 1)
    found = second_order.tensor_sketch(first, second, dimension=dimension, seeds=(8, 9))
    for image in range(2):
        expected = np.zeros(dimension)
        for x, y in zip(np.float64(first[image]), np.float64(second[image]), strict=True):
            sketches = count_sketch(x, 5, dimension, 8), count_sketch(y, 4, dimension, 9)
            expected += circular_convolution(*sketches)
        networks.assert_near(found[image], expected)


def test_the_gradient_of_a_sketch_is_that_of_its_convolutions():
    first, second, pull = features((2, 3, 5)), features((2, 3, 4), 1), features((2, 7), 2)

    def total(first):
        sketch = second_order.tensor_sketch(first, second, dimension=7, seeds=(8, 9))
        return (sketch * pull).sum()

    found = jax.jit(jax.grad(total))(first)
    expected = np.zeros(first.shape)
    for image, position, channel in np.ndindex(first.shape):
        one = count_sketch(np.eye(5)[channel], 5, 7, 8)
        other = count_sketch(np.float64(second[image, position]), 4, 7, 9)
        expected[image, position, channel] = circular_convolution(one, other) @ pull[image]
    networks.assert_near(found, expected)


def test_nothing_of_a_sketch_is_scattered():
    """Sums into one place from many have no fixed order on GPUs, and runs would not repeat."""

    def total(x):
        return second_order.tensor_sketch(x, x, dimension=7, seeds=(8, 9)).sum()

    text = jax.jit(jax.value_and_grad(total)).lower(features((2, 3, 5))).as_text()
    assert "gather" in text
    assert "scatter" not in text


def test_inner_products_of_sketches_are_right_on_average():
    x, y = features((1, 1, 6)), features((1, 1, 6), 1)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    y = (y + x) / np.linalg.norm(y + x)
    found = []
    for seed in range(300):
        both = jnp.asarray(np.concatenate([x, y]))
        sketch = second_order.tensor_sketch(both, both, dimension=8, seeds=(2 * seed, 2 * seed + 1))
        found.append(float(sketch[0] @ sketch[1]))
    wanted = float(x[0, 0] @ y[0, 0]) ** 2
    error = np.std(found) / math.sqrt(len(found))
    assert error < 0.06
    assert abs(np.mean(found) - wanted) < 3 * error


def test_the_sketch_is_the_same_for_ever():
    places, signs = second_order.hashes(6, 100, 3)
    assert places.tolist() == [40, 30, 19, 42, 23, 43]
    assert signs.tolist() == [1, -1, 1, 1, 1, -1]
    assert second_order.hashes(2048, 8192, 0)[0].max() > 8000
    assert abs(second_order.hashes(2048, 8192, 0)[1].mean()) < 0.1


def test_seeds_give_other_sketches_and_are_no_weights():
    x = maps(3, 5, 4)
    first, same, other = (HEADS["compact_bilinear"](seed=seed)((x,))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)
    state = nnx.state(HEADS["compact_bilinear"]())
    assert set(nnx.to_pure_dict(state)) == {"fc"}


def test_compact_bilinear_of_one_and_of_two_maps():
    x, y = maps(3, 5, 4), maps(3, 5, 7, seed=1)
    two = second_order.CompactBilinear((4, 7), 3, dimension=6, seed=1, rngs=nnx.Rngs(0))
    for head, pair in ((HEADS["compact_bilinear"](seed=1), (x,)), (two, (x, y))):
        first, second = (np.asarray(m).reshape(2, 15, -1) for m in (pair[0], pair[-1]))
        size = head.fc.kernel.shape[0]
        sketch = np.float64(second_order.tensor_sketch(first, second, dimension=size, seeds=(2, 3)))
        sketch = np.sign(sketch) * np.sqrt(np.abs(sketch) + 1e-6)
        sketch /= np.linalg.norm(sketch, axis=1, keepdims=True)
        expected = linear(head.fc, sketch)
        networks.assert_near(head(pair)[0], expected)


def spectrum(values, seed=0):
    """A symmetric matrix [1, n, n] with these eigenvalues."""
    vectors, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))
    return (vectors * values) @ vectors.T, vectors


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_matrix_sqrt_is_that_of_the_eigenvalues(scale):
    """Trace compensation: right at any scale."""
    values = scale * np.array([1.0, 0.9, 0.5, 0.2])
    matrix, vectors = spectrum(values)
    expected = (vectors * np.sqrt(values)) @ vectors.T
    found = matrix_root.matrix_sqrt(jnp.asarray(np.float32(matrix))[None], 12)[0]
    networks.assert_near(found, expected)
    few = matrix_root.matrix_sqrt(jnp.asarray(np.float32(matrix))[None], 2)[0]
    assert np.abs(few - expected).max() > 1e-2 * math.sqrt(scale)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_iterations_are_those_of_the_paper(iterations):
    matrix, _ = spectrum(np.array([3.0, 1.0, 0.5, 0.0]))
    a = matrix / np.trace(matrix)
    y, z, eye = a, np.eye(4), np.eye(4)
    for _ in range(iterations):
        y, z = 0.5 * y @ (3 * eye - z @ y), 0.5 * (3 * eye - z @ y) @ z
    expected = np.sqrt(np.trace(matrix)) * y
    found = matrix_root.matrix_sqrt(jnp.asarray(np.float32(matrix))[None], iterations)[0]
    networks.assert_near(found, expected)


def test_covariance_is_numpys():
    x = features((2, 6, 3)) + 5
    expected = [np.cov(np.float64(rows), rowvar=False, bias=True) for rows in x]
    networks.assert_near(second_order.covariance(x), expected)


def test_isqrt_cov():
    """The square root by eigenvalues; more positions than channels, so that all are above 0."""
    head = nnx.view(HEADS["isqrt_cov"](iterations=15), use_running_average=True)
    head.bn.mean[...] = jnp.float32([0.3, -0.2, 0.1, 0, 0])
    x = features((2, 5, 6, 4))
    y = np.float64(x) @ array(head.reduction.kernel)[0, 0]
    y = np.maximum((y - array(head.bn.mean)) / np.sqrt(1 + 1e-5), 0).reshape(2, 30, 5)
    rows = []
    for image in y:
        values, vectors = np.linalg.eigh(np.cov(image, rowvar=False, bias=True))
        root = (vectors * np.sqrt(values)) @ vectors.T
        rows.append([root[i, j] for i in range(5) for j in range(i, 5)])
    expected = linear(head.fc, np.array(rows))
    networks.assert_near(head((jnp.asarray(x),))[0], expected)


def test_improved_bilinear_takes_the_root_of_the_averages():
    head = HEADS["improved_bilinear"](root_iterations=15)
    x = features((2, 3, 5, 4))
    rows = []
    for image in np.float64(x).reshape(2, 15, 4):
        values, vectors = np.linalg.eigh(image.T @ image / 15)
        root = ((vectors * np.sqrt(values)) @ vectors.T).ravel()
        rows.append(np.sign(root) * np.sqrt(np.abs(root) + 1e-5))
    rows = np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = linear(head.fc, rows)
    networks.assert_near(head((jnp.asarray(x),))[0], expected)


def test_low_rank_bilinear_scores_positions_one_by_one():
    head = HEADS["low_rank_bilinear"]()
    head.bias[...] = jnp.float32([0.1, 0.2, 0.3])
    x = features((2, 2, 3, 4))
    rooted = np.sign(x) * np.sqrt(np.abs(np.float64(x)) + 1e-5)
    y = linear(head.reduction, rooted)
    factors = array(head.factors)
    expected = np.zeros((2, 3))
    for image in range(2):
        for k in range(3):
            for position in y[image].reshape(6, 5):
                for j, sign in enumerate((1, 1, -1, -1)):
                    expected[image, k] += sign * (factors[:, j, k] @ position) ** 2 / 6
    networks.assert_near(head((jnp.asarray(x),))[0], expected + [0.1, 0.2, 0.3])


def test_low_rank_bilinear_is_a_classifier_of_the_bilinear_feature():
    """The same logits from the whole C x C averages and the matrix of each class."""
    head = HEADS["low_rank_bilinear"]()
    head.reduction.bias[...] = jnp.zeros(5)
    x = np.abs(features((1, 2, 3, 4)))
    rooted = np.sqrt(np.float64(x) + 1e-5).reshape(6, 4)
    bilinear = rooted.T @ rooted / 6
    vectors = np.einsum("cd,drk->crk", array(head.reduction.kernel), array(head.factors))
    signs = np.array([1, 1, -1, -1])
    weights = np.einsum("crk,drk,r->kcd", vectors, vectors, signs)
    networks.assert_near(head((jnp.asarray(x),))[0][0], (weights * bilinear).sum((1, 2)))


@pytest.mark.parametrize("name", HEADS)
def test_heads_learn_from_every_weight(name):
    graphdef, weights, rest = nnx.split(HEADS[name](), nnx.Param, ...)

    @jax.jit
    def total(weights):
        logits, _ = nnx.merge(graphdef, weights, rest, copy=True)((maps(7, 7, 4),))
        return jax.nn.log_softmax(logits)[:, 0].sum()

    gradients = jax.grad(total)(weights)
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradients))
