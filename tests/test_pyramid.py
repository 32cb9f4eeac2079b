"""PIM and HERBS: the heads and their losses against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import methods
from fgc_jax.methods import pim
from fgc_jax.models import pyramid
from tests import networks, slopes, test_losses

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


def linear(x, layer):
    return x @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])


def normed(x, bn):
    mean, var, scale, bias = (np.float64(v[...]) for v in (bn.mean, bn.var, bn.scale, bn.bias))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def two_layers(x, module):
    return linear(np.maximum(linear(x, module.fc1), 0), module.fc2)


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


def probabilities(scores):
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def by_hand(head, kind, maps):
    """(logits, scores, picked, early scores) of an evaluation pass in float64."""
    levels = [two_layers(np.float64(x), p) for x, p in zip(maps, head.pyramid.project, strict=True)]
    for index in (1, 0):
        levels[index] = levels[index] + on_grid(levels[index + 1], GRIDS[index])
    score = lambda x, m: linear(np.maximum(normed(linear(x, m.fc1), m.bn), 0), m.fc2)  # noqa: E731
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
            p = probabilities(s[image].reshape(h * w, -1))
            best = p.max(1)
            if kind == "herbs":
                best = p[:, s[image].reshape(h * w, -1).mean(0).argmax()]
            order = sorted(range(h * w), key=lambda i: -best[i])[:count]  # noqa: B023
            mark[image, order] = 1
            taken.append(x[image].reshape(h * w, -1)[order])
        picks.append(mark.reshape(b, h, w))
        chosen.append(np.stack(taken))
    combiner = head.graph.combiner
    x = linear(np.concatenate(chosen, 1).transpose(0, 2, 1), combiner.gather).transpose(0, 2, 1)
    query, key = (linear(x, m).mean(-1) for m in (combiner.query, combiner.key))
    edges = np.tanh(query[:, :, None] - key[:, None]) * float(combiner.alpha[...][0])
    edges = edges + np.float64(combiner.edges[...])
    x = normed((linear(x, combiner.fc1).transpose(0, 2, 1) @ edges).transpose(0, 2, 1), combiner.bn)
    logits = linear(linear(x.transpose(0, 2, 1), combiner.join)[:, :, 0], head.fc)
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


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        ((3,), {"selects": (1,)}, "a pyramid needs several feature maps"),
        ((3, 4), {}, r"selects=\(2048, 512, 128, 32\) must be .* each of the 2 feature maps"),
        ((3, 4), {"selects": (2, 0)}, r"selects=\(2, 0\)"),
    ],
)
def test_wrong_options_are_refused(channels, options, message):
    with pytest.raises(ValueError, match=message):
        pyramid.Pim(channels, 3, width=8, rngs=nnx.Rngs(0), **options)


def test_more_positions_than_there_are_are_refused():
    head = pyramid.Pim(CHANNELS, 3, width=8, selects=(7, 3, 3), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="selects: 3 positions of a map that has 2 x 1"):
        head(make_maps())


# The losses


def outputs(levels=2, seed=0):
    """(logits, named arrays) as the heads return them, of two grids."""
    rng = np.random.default_rng(seed)
    out = {}
    for index in range(levels):
        shape = (5, 3 - index, 2)
        out[f"head/scores/{index}"] = rng.normal(size=(*shape, 3)).astype(np.float32)
        out[f"head/early/{index}"] = rng.normal(size=(*shape, 3)).astype(np.float32)
        picked = np.zeros(shape, np.float32)
        picked[:, 0, :] = 1
        out[f"head/picked/{index}"] = picked
    return rng.normal(size=(5, 3)).astype(np.float32), out


def entropy(logits, goal):
    return -goal @ np.log(probabilities(np.float64(logits)))


def terms_by_hand(logits, out, batch, levels=2):
    """Means over the images that count, each term image after image and place after place."""
    totals = dict.fromkeys(("mean", "dropped", "picked", "graph"), 0.0)
    for image in np.flatnonzero(batch["mask"]):
        label = test_losses.goal_of(batch, image)
        totals["graph"] += entropy(logits[image], label)
        for index in range(levels):
            scores = np.float64(out[f"head/scores/{index}"][image])
            picked = out[f"head/picked/{index}"][image]
            totals["mean"] += entropy(scores.mean((0, 1)), label)
            left = [s for s, p in zip(scores.reshape(-1, 3), picked.flat, strict=True) if not p]
            kept = [s for s, p in zip(scores.reshape(-1, 3), picked.flat, strict=True) if p]
            totals["dropped"] += np.mean([(np.tanh(s) + 1) ** 2 for s in left])
            totals["picked"] += np.mean([entropy(s, label) for s in kept])
    return {name: total / batch["mask"].sum() for name, total in totals.items()}


def call(name, options, outputs, state=None, mixed=False):
    method = methods.build(name, options, test_losses.FACTS)
    model = lambda images, rngs: outputs  # noqa: E731
    state = method.state if state is None else state
    return method.losses[0](model, test_losses.make_batch(mixed=mixed), jax.random.key(0), state)


@pytest.mark.parametrize("mixed", [False, True])
def test_pims_loss_is_its_formula(mixed):
    logits, out = outputs()
    factors = {"lambda_b": 0.5, "lambda_n": 5.0, "lambda_s": 0.25, "lambda_c": 2.0}
    value, aux = call("pim", factors, (logits, out), mixed=mixed)
    terms = terms_by_hand(logits, out, test_losses.make_batch(mixed=mixed))
    by_name = dict(zip(("mean", "dropped", "picked", "graph"), factors.values(), strict=True))
    expected = sum(factor * terms[name] for name, factor in by_name.items())
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name, term in terms.items():
        np.testing.assert_allclose(aux[f"{name}_loss"], term, rtol=1e-5)
    assert "picked_loss" not in call("pim", {}, (logits, out))[1]


@pytest.mark.parametrize("mixed", [False, True])
def test_herbs_adds_the_refinement_at_a_falling_temperature(mixed):
    logits, out = outputs()
    batch = test_losses.make_batch(mixed=mixed)
    terms = terms_by_hand(logits, out, batch)
    plain = 0.3 * terms["mean"] + 5 * terms["dropped"] + terms["graph"]
    # Ten images to see in an epoch, a halving every two epochs.
    options = {"temperature": 4.0, "halve_every": 2}
    for seen, temperature in ((0, 4), (19, 4), (20, 2), (45, 1), (2_000_000_000, 1 / 16)):
        value, aux = call("herbs", options, (logits, out), {"images": jnp.int32(seen)}, mixed)
        apart = 0.0
        for index in range(2):
            late, early = (
                probabilities(np.float64(out[f"head/{kind}/{index}"]) / temperature)
                for kind in ("scores", "early")
            )
            apart = apart + (late * np.log(late / early)).mean((1, 2, 3))
        refined = (apart * batch["mask"]).sum() / batch["mask"].sum()
        np.testing.assert_allclose(aux["temperature"], temperature)
        np.testing.assert_allclose(aux["refinement_loss"], refined, rtol=1e-5)
        np.testing.assert_allclose(value, plain + 1.375 * refined, rtol=1e-5)
        assert int(aux["state"]["images"]) == seen + 5


@pytest.mark.parametrize("name", KINDS)
def test_each_weight_of_the_head_learns(name):
    head = shaken(KINDS[name](CHANNELS, 3, rngs=nnx.Rngs(0), **OPTIONS))
    method = methods.build(name, {}, test_losses.FACTS)
    batch = test_losses.make_batch() | {"image": make_maps(batch=5)}
    slopes.assert_in_all_weights(head, method.losses[0], batch, method.state)


def test_the_later_scores_learn_nothing_from_the_refinement():
    early, late = jnp.ones((1, 1, 1, 3)), jnp.arange(3.0).reshape(1, 1, 1, 3)
    slopes = jax.grad(lambda *two: pim.refinement(*two, 2.0).sum(), argnums=(0, 1))(early, late)
    assert (slopes[0] != 0).all()
    np.testing.assert_array_equal(slopes[1], np.zeros_like(late))


def test_nothing_dropped_costs_nothing():
    np.testing.assert_array_equal(pim.dropped(jnp.ones((2, 1, 2, 3)), jnp.ones((2, 1, 2))), [0, 0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pim", {"lambda_c": 0.0}, "lambda_c=0.0 must be above 0"),
        ("pim", {"lambda_n": -1.0}, "lambda_n=-1.0 must be at least 0"),
        ("herbs", {"lambda_r": 0.0}, "lambda_r=0.0 must be above 0"),
        ("herbs", {"halve_every": 0}, "halve_every=0 must be above 0"),
    ],
)
def test_wrong_options_of_the_methods_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        methods.build(name, options, test_losses.FACTS)


def test_constant_maps_give_finite_losses_and_gradients():
    head = pyramid.Herbs(CHANNELS, 3, rngs=nnx.Rngs(0), **OPTIONS)
    graphdef, params, stats = nnx.split(head, nnx.Param, nnx.BatchStat)
    method = methods.build("herbs", {}, test_losses.FACTS)

    @jax.jit
    @jax.value_and_grad
    def loss(params, maps):
        live = nnx.merge(graphdef, params, stats, copy=True)

        def model(maps, rngs):
            logits, named = live(maps, rngs=rngs)
            return logits, {f"head/{name}": x for name, x in named.items()}

        batch = test_losses.make_batch() | {"image": maps}
        return method.losses[0](model, batch, jax.random.key(0), method.state)[0]

    for value in (0.0, 3.0, 1e4):
        pairs = zip(CHANNELS, GRIDS, strict=True)
        found = loss(params, tuple(np.full((5, *grid, c), value, np.float32) for c, grid in pairs))
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found)), value
