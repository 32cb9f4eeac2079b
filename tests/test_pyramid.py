"""PIM and HERBS: the heads against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import config
from fgc_jax.models.heads import pyramid
from tests import networks
from tests.by_hand import linear, norm, softmax

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CHANNELS, GRIDS, SELECTS = (3, 5, 4), ((6, 4), (3, 2), (2, 1)), (7, 3, 2)
OPTIONS = {"width": 8, "selects": SELECTS, "tokens_per_joint": 4}
KINDS = {"pim": pyramid.Pim, "herbs": pyramid.Herbs}


def make_maps(seed=0, batch=2):
    rng = np.random.default_rng(seed)
    pairs = zip(CHANNELS, GRIDS, strict=True)
    return tuple(rng.normal(size=(batch, h, w, c)).astype(np.float32) for c, (h, w) in pairs)


def shaken(head, seed=0):
    """The head in evaluation mode, all parameters (zeros and ones, too) and statistics random."""
    rng = np.random.default_rng(seed)
    state = nnx.state(head, (nnx.Param, nnx.BatchStat))

    def draw(leaf):
        return np.float32(rng.uniform(0.1, 0.5, leaf.shape) * rng.choice([-1, 1], leaf.shape))

    def statistic(path, leaf):
        return abs(leaf) if "var" in jax.tree_util.keystr(path) else leaf

    nnx.update(head, jax.tree.map_with_path(statistic, jax.tree.map(draw, state)))
    return nnx.view(head, use_running_average=True, deterministic=True)


def forward(head, maps):
    parts = nnx.split(head)
    return jax.jit(lambda state, maps: nnx.merge(parts[0], state)(maps))(parts[1], maps)


def two_layers(x, module):
    return linear(module.fc2, np.maximum(linear(module.fc1, x), 0))


def stretched(x, size, axis):
    """Bilinear interpolation without aligned corners, as PyTorch states it, along one axis."""
    length = x.shape[axis]
    pieces = []
    for place in range(size):
        at = max((place + 0.5) * length / size - 0.5, 0)
        low = min(int(at), length - 1)
        high = min(low + 1, length - 1)
        pieces.append((1 - at + low) * x.take(low, axis) + (at - low) * x.take(high, axis))
    return np.stack(pieces, axis)


def shrunk(x, size, axis):
    """A triangle over all that a new place covers, normalised, along one axis."""
    length = x.shape[axis]
    weights = np.zeros((size, length))
    for place in range(size):
        centre = (place + 0.5) * length / size - 0.5
        distance = np.abs(np.arange(length) - centre) * size / length
        weights[place] = np.maximum(1 - distance, 0)
        weights[place] /= weights[place].sum()
    return np.moveaxis(np.tensordot(weights, x, axes=(1, axis)), 0, axis)


def on_grid(x, grid):
    for axis, size in zip((1, 2), grid, strict=True):
        x = (stretched if size >= x.shape[axis] else shrunk)(x, size, axis)
    return x


def by_hand(head, kind, maps):
    """(logits, scores, picked, early scores) of an evaluation pass in float64."""
    levels = [two_layers(np.float64(x), p) for x, p in zip(maps, head.pyramid.project, strict=True)]
    for index in (1, 0):
        levels[index] = levels[index] + on_grid(levels[index + 1], GRIDS[index])
    score = lambda x, m: linear(m.fc2, np.maximum(norm(m.bn, linear(m.fc1, x)), 0))  # noqa: E731
    early = []
    if kind == "herbs":
        early = [score(x, m) for x, m in zip(levels, head.early, strict=True)]
        levels = [two_layers(x, m) for x, m in zip(levels, head.back, strict=True)]
        for index in (1, 2):
            levels[index] = levels[index] + on_grid(levels[index - 1], GRIDS[index])
    scores = [score(x, m) for x, m in zip(levels, head.graph.scores, strict=True)]
    picks, chosen = [], []
    for x, s, count in zip(levels, scores, SELECTS, strict=True):
        b, h, w, _ = s.shape
        mark, taken = np.zeros((b, h * w)), []
        for image in range(b):
            p = softmax(s[image].reshape(h * w, -1))
            best = p.max(1)
            if kind == "herbs":
                best = p[:, s[image].reshape(h * w, -1).mean(0).argmax()]
            order = sorted(range(h * w), key=lambda i: -best[i])[:count]  # noqa: B023
            mark[image, order] = 1
            taken.append(x[image].reshape(h * w, -1)[order])
        picks.append(mark.reshape(b, h, w))
        chosen.append(np.stack(taken))
    combiner = head.graph.combiner
    x = linear(combiner.gather, np.concatenate(chosen, 1).transpose(0, 2, 1)).transpose(0, 2, 1)
    query, key = (linear(m, x).mean(-1) for m in (combiner.query, combiner.key))
    edges = np.tanh(query[:, :, None] - key[:, None]) * float(combiner.alpha[...][0])
    edges = edges + np.float64(combiner.edges[...])
    x = (linear(combiner.fc1, x).transpose(0, 2, 1) @ edges).transpose(0, 2, 1)
    x = norm(combiner.bn, x).transpose(0, 2, 1)
    logits = linear(head.fc, linear(combiner.join, x)[:, :, 0])
    return logits, scores, picks, early


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_is_its_formula(kind):
    head = shaken(KINDS[kind](CHANNELS, 3, rngs=nnx.Rngs(0), **OPTIONS))
    assert head.graph.combiner.edges.shape == (3, 3)
    maps = make_maps()
    logits, named = forward(head, maps)
    expected, scores, picks, early = by_hand(head, kind, maps)
    assert len(named) == 6 + len(early)
    for index in range(3):
        np.testing.assert_array_equal(named[f"picked/{index}"], picks[index])
        networks.assert_near(named[f"scores/{index}"], scores[index])
        assert named[f"picked/{index}"].sum((1, 2)).tolist() == [SELECTS[index]] * 2
    for index, one in enumerate(early):
        networks.assert_near(named[f"early/{index}"], one)
    networks.assert_near(logits, expected)
    assert logits.dtype == jnp.float32


def test_the_joints_start_as_the_papers_do():
    head = pyramid.Pim(CHANNELS, 3, rngs=nnx.Rngs(0), **OPTIONS)
    expected = [[0.02, 0.01, 0.01], [0.01, 0.02, 0.01], [0.01, 0.01, 0.02]]
    np.testing.assert_allclose(head.graph.combiner.edges[...], expected, rtol=1e-6)
    np.testing.assert_array_equal(head.graph.combiner.alpha[...], [0])


def test_of_equal_ranks_the_first_positions_are_picked():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    found, picked = pyramid.pick(x, jnp.array([[[0.5, 0.7], [0.7, 0.7]]]), 2)
    np.testing.assert_array_equal(found[0], [[2, 3], [4, 5]])
    np.testing.assert_array_equal(picked[0], [[0, 1], [1, 0]])


def test_positions_rank_by_their_own_class_or_by_that_of_the_image():
    scores = np.log(np.float32([[[[0.4, 0.6], [0.3, 0.7]], [[0.3, 0.7], [0.8, 0.2]]]]))
    own = [[[0.6, 0.7], [0.7, 0.8]]]
    np.testing.assert_allclose(pyramid.highest_probability(scores), own, rtol=1e-5)
    # The second class has the larger mean of scores, the first the largest score.
    of_image = [[[0.6, 0.7], [0.7, 0.2]]]
    np.testing.assert_allclose(pyramid.class_of_the_image(scores), of_image, rtol=1e-5)


def test_a_map_gives_at_least_one_position():
    with pytest.raises(ValueError, match=r"selects=\(2, 0\) must be a tuple, each a whole number"):
        config.options(pyramid.Pim, {"selects": (2, 0)}, "config.model.head_options.")


def test_more_positions_than_there_are_are_refused():
    head = pyramid.Pim(CHANNELS, 3, width=8, selects=(7, 3, 3), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="selects: 3 positions of a map that has 2 x 1"):
        head(make_maps())
