"""API-Net and pairwise confusion against their formulas, pair after pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import methods, models
from fgc_jax.methods import api_net, pairwise_confusion
from fgc_jax.models.heads.api_net import ApiNet
from tests import networks, slopes, test_losses
from tests.by_hand import linear, softmax

LABELS = np.int32([0, 0, 1, 1, 2, 2, 0, 1])
MASK = np.float32([1, 1, 1, 1, 1, 0, 1, 0])


def features(rows=8, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 5)).astype(np.float32)


def by_hand(x, labels, mask):
    """Of each image (nearest of its class, nearest of another); None where there is none."""
    found = []
    for i in range(len(x)):
        best = {True: (np.inf, None), False: (np.inf, None)}
        for j in range(len(x)):
            if i == j or not mask[i] or not mask[j]:
                continue
            same = bool(labels[i] == labels[j])
            best[same] = min(best[same], (np.linalg.norm(x[i] - x[j]), j))
        found.append((best[True][1], best[False][1]))
    return found


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_the_nearest_by_brute_force(seed, masked):
    x, mask = features(seed=seed), MASK if masked else np.ones(8, np.float32)
    same, other, has_same, has_other = map(np.asarray, api_net.nearest(x, LABELS, mask))
    for i, (first, second) in enumerate(by_hand(np.float64(x), LABELS, mask)):
        assert has_same[i] == (first is not None) and has_other[i] == (second is not None)
        assert first is None or same[i] == first
        assert second is None or other[i] == second
    assert not has_same[4] if masked else has_same.all()  # Its only relative could not be read.


def head(dropout=0.0):
    return ApiNet((5,), 3, hidden=4, dropout=dropout, rngs=nnx.Rngs(0))


def compared(module, x, y):
    """Logits (through the own gates, through the other's) of one pair, each of both images."""
    mutual = linear(module.map2, linear(module.map1, np.concatenate([x, y])))
    gate_x, gate_y = (1 / (1 + np.exp(-mutual * v)) for v in (x, y))
    own = [linear(module.fc, x + x * gate_x), linear(module.fc, y + y * gate_y)]
    other = [linear(module.fc, x + x * gate_y), linear(module.fc, y + y * gate_x)]
    return own, other


def test_images_are_gated_by_themselves_and_by_each_other():
    module, first, second = head(), features(3), features(3, 1)
    own, other = np.asarray(module.compare(first, second))
    for i in range(3):
        expected = compared(module, np.float64(first[i]), np.float64(second[i]))
        networks.assert_near([own[i], own[3 + i]], expected[0])
        networks.assert_near([other[i], other[3 + i]], expected[1])


def test_at_test_the_head_classifies_the_pooled_vector():
    module, x = head(dropout=0.5), np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    logits, named = module((jnp.asarray(x, jnp.float32),))
    networks.assert_near(named["pooled"], x.mean((1, 2)))
    networks.assert_near(logits, linear(module.fc, x.mean((1, 2))))


def test_dropout_meets_the_mutual_vector_and_what_is_classified():
    """One after the other: with gates that stand half open, and with a classifier that adds up."""
    x = features(4)
    module = head(dropout=0.5)
    for leaf in (module.map2.kernel, module.map2.bias):
        leaf[...] = jnp.zeros_like(leaf[...])
    found = [module.compare(x, x + 1, rngs=nnx.Rngs(dropout=seed)) for seed in (0, 1)]
    assert not np.allclose(*found)
    seen = []
    for seed in (0, 1):
        module = head(dropout=0.5)
        module.map2 = lambda mutual: seen.append(mutual) or jnp.zeros((4, 5))
        module.compare(x, x + 1, rngs=nnx.Rngs(dropout=seed))
    assert all((np.asarray(mutual) == 0).any() for mutual in seen)


class Stand:
    """A model whose pooled vectors are given."""

    def __init__(self, head, pooled):
        self.head, self.pooled = head, pooled

    def __call__(self, images, *, rngs):
        return self.head.fc(self.pooled), {"head/pooled": self.pooled}


def call(name, options, model, labels=LABELS, mask=MASK):
    method = methods.build(name, options, test_losses.FACTS)
    batch = {"image": np.zeros((len(labels), 1)), "label": labels, "mask": mask}
    return test_losses.call(method, model, jax.tree.map(jnp.asarray, batch))


def api_net_by_hand(module, x):
    """(cross-entropies, hinges) of all pairs, at a margin of 0.02."""
    entropies, hinges = [], []
    for i, partners in enumerate(by_hand(np.float64(x), LABELS, MASK)):
        for j in partners:
            if j is None:
                continue
            own, other = compared(module, np.float64(x[i]), np.float64(x[j]))
            for k, label in enumerate((LABELS[i], LABELS[j])):
                right = softmax(own[k])[label], softmax(other[k])[label]
                entropies += [-np.log(right[0]), -np.log(right[1])]
                hinges.append(max(0, right[1] - right[0] + 0.02))
    return entropies, hinges


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_api_net_is_its_formula(weight):
    module, x = head(), 3 * features()
    options = {"margin": 0.02, "ranking_weight": weight}
    value, report = call("api_net", options, Stand(module, jnp.asarray(x)))
    entropies, hinges = api_net_by_hand(module, x)
    assert 0 < np.count_nonzero(hinges) < len(hinges)
    np.testing.assert_allclose(report.scalars["class_loss"], np.mean(entropies), rtol=1e-5)
    np.testing.assert_allclose(report.scalars["ranking_loss"], np.mean(hinges), rtol=1e-5)
    np.testing.assert_allclose(value, np.mean(entropies) + weight * np.mean(hinges), rtol=1e-5)
    networks.assert_near(report.outputs["logits"], linear(module.fc, x))


def test_api_nets_gradients_are_those_of_its_formula():
    """With respect to the pooled vectors and to every weight of the head."""
    module = head()
    graphdef, (weights, stats) = nnx.graphdef(module), models.split(module)

    def computed(tree):
        live = nnx.merge(graphdef, tree["head"], stats)
        value, report = call("api_net", {"margin": 0.02}, Stand(live, tree["pooled"]))
        return jnp.stack([value, report.scalars["class_loss"], report.scalars["ranking_loss"]])

    def reference(tree):
        each = api_net_by_hand(slopes.layers(tree["head"]), tree["pooled"])
        entropy, hinge = map(np.mean, each)
        return entropy + hinge, entropy, hinge

    slopes.assert_those_of(reference, computed, {"head": weights, "pooled": 3 * features()})


@pytest.mark.parametrize(
    "labels", [LABELS, np.zeros(8, np.int32), np.arange(8, dtype=np.int32) % 3]
)
@pytest.mark.parametrize("mask", [MASK, np.zeros(8, np.float32), np.eye(8, dtype=np.float32)[0]])
@pytest.mark.parametrize("name", ["api_net", "pairwise_confusion"])
def test_zero_features_and_missing_partners_give_finite_gradients(name, labels, mask):
    def total(x):
        return call(name, {}, Stand(head(), x), labels, mask)[0]

    value, gradient = jax.value_and_grad(total)(jnp.zeros((8, 5)))
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert value > 0 if mask.sum() > 1 else value >= 0
    if not mask.any():
        assert value == 0


def confusion_by_hand(logits, labels, mask, smoothing):
    """(cross-entropy, distances of the pairs)."""
    rows = len(labels)
    p = np.array([softmax(np.float64(row)) for row in logits])
    goal = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    entropy = np.sum(mask * -np.sum(goal * np.log(p), 1)) / mask.sum()
    distances = []
    for i in range(rows):
        j = (i + rows - rows // 2) % rows
        if mask[i] and mask[j]:
            distances.append((labels[i] != labels[j]) * np.sum((p[i] - p[j]) ** 2) / 2)
    return entropy, distances


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [8, 7])
def test_pairwise_confusion_is_its_formula(rows, smoothing):
    """Its gradients, too."""
    labels, mask = np.int32([0, 1, 2, 0, 0, 1, 1, 2])[:rows], MASK[:rows]
    options = {"confusion_weight": 7.0, "label_smoothing": smoothing}

    def computed(logits):
        model = test_losses.answering(logits)
        value, report = call("pairwise_confusion", options, model, labels, mask)
        return jnp.stack([value, report.scalars["confusion"]])

    def reference(logits):
        entropy, distances = confusion_by_hand(logits, labels, mask, smoothing)
        return entropy + 7 * np.mean(distances), np.mean(distances)

    logits = np.random.default_rng(0).normal(0, 2, (rows, 3)).astype(np.float32)
    _, distances = confusion_by_hand(logits, labels, mask, smoothing)
    assert 0 < np.count_nonzero(distances) < len(distances)
    np.testing.assert_allclose(computed(logits), reference(logits), rtol=1e-5)
    slopes.assert_those_of(reference, computed, logits)


def test_an_even_batch_counts_each_pair_once_over_its_images():
    p = np.float32([[1, 0], [0.5, 0.5], [0, 1], [0.2, 0.8]])
    found = pairwise_confusion.confusion(p, np.int32([0, 0, 1, 0]), np.ones(4, np.float32))
    np.testing.assert_allclose(found, (2 + 0) / 4)  # Images 0 and 2; 1 and 3 are of one class.
