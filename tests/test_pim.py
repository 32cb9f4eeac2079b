"""PIM and HERBS: the losses against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import methods
from fgc_jax.methods import pim
from fgc_jax.models.heads import pyramid
from tests import slopes, test_losses
from tests.by_hand import entropy, softmax
from tests.test_pyramid import CHANNELS, GRIDS, KINDS, OPTIONS, by_hand, make_maps, shaken


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
            if left:
                totals["dropped"] += np.mean([(np.tanh(s) + 1) ** 2 for s in left])
            totals["picked"] += np.mean([entropy(s, label) for s in kept])
    return {name: total / batch["mask"].sum() for name, total in totals.items()}


def call(name, options, outputs, state=None, mixed=False):
    method = methods.build(name, options, test_losses.FACTS)
    batch = test_losses.make_batch(mixed=mixed)
    return test_losses.call(method, lambda images, rngs: outputs, batch, state=state)


@pytest.mark.parametrize("mixed", [False, True])
def test_pims_loss_is_its_formula(mixed):
    logits, out = outputs()
    factors = {"lambda_b": 0.5, "lambda_n": 5.0, "lambda_s": 0.25, "lambda_c": 2.0}
    value, report = call("pim", factors, (logits, out), mixed=mixed)
    terms = terms_by_hand(logits, out, test_losses.make_batch(mixed=mixed))
    by_name = dict(zip(("mean", "dropped", "picked", "graph"), factors.values(), strict=True))
    expected = sum(factor * terms[name] for name, factor in by_name.items())
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name, term in terms.items():
        np.testing.assert_allclose(report.scalars[f"{name}_loss"], term, rtol=1e-5)
    assert "picked_loss" not in call("pim", {}, (logits, out))[1].scalars


def refinement_by_hand(early, late, temperature, mask):
    apart = 0.0
    for pair in zip(early, late, strict=True):
        p, wanted = (softmax(np.float64(scores) / temperature) for scores in pair)
        apart = apart + (wanted * np.log(wanted / p)).mean((1, 2, 3))
    return (apart * mask).sum() / mask.sum()


@pytest.mark.parametrize("mixed", [False, True])
def test_herbs_adds_the_refinement_at_a_falling_temperature(mixed):
    logits, out = outputs()
    batch = test_losses.make_batch(mixed=mixed)
    terms = terms_by_hand(logits, out, batch)
    plain = 0.3 * terms["mean"] + 5 * terms["dropped"] + terms["graph"]
    # Ten images to see in an epoch, a halving every two epochs.
    options = {"temperature": 4.0, "halve_every": 2}
    for seen, temperature in ((0, 4), (19, 4), (20, 2), (45, 1), (2_000_000_000, 1 / 16)):
        value, report = call("herbs", options, (logits, out), {"images": jnp.int32(seen)}, mixed)
        late, early = (
            [out[f"head/{kind}/{index}"] for index in range(2)] for kind in ("scores", "early")
        )
        refined = refinement_by_hand(early, late, temperature, batch["mask"])
        np.testing.assert_allclose(report.scalars["temperature"], temperature)
        np.testing.assert_allclose(report.scalars["refinement_loss"], refined, rtol=1e-5)
        np.testing.assert_allclose(value, plain + 1.375 * refined, rtol=1e-5)
        assert int(report.state["images"]) == seen + 5


@pytest.mark.parametrize("kind", KINDS)
def test_their_gradients_are_those_of_the_formulas(kind):
    """Where the positions that are picked and the goals of the refinement stay what they were."""
    factors = {"lambda_b": 0.5, "lambda_n": 5.0, "lambda_s": 0.25, "lambda_c": 2.0}
    options = factors | ({"lambda_r": 1.5, "temperature": 2.0} if kind == "herbs" else {})
    method = methods.build(kind, options, test_losses.FACTS)
    terms = ["mean", "dropped", "picked", "graph"] + ["refinement"] * (kind == "herbs")
    live, maps = shaken(KINDS[kind](CHANNELS, 3, rngs=nnx.Rngs(0), **OPTIONS)), make_maps(batch=5)
    goals, batch = by_hand(live, kind, maps)[1], test_losses.make_batch()

    def reference(live, maps):
        logits, scores, picks, early = by_hand(live, kind, maps)
        out = {f"head/scores/{index}": x for index, x in enumerate(scores)}
        out |= {f"head/picked/{index}": x for index, x in enumerate(picks)}
        each = [*terms_by_hand(logits, out, batch, levels=3).values()]
        value = np.dot([*factors.values()], each)
        if kind == "pim":
            return value, *each
        refined = refinement_by_hand(early, goals, 2.0, batch["mask"])
        return value + 1.5 * refined, *each, refined

    names = [f"{name}_loss" for name in terms]
    slopes.assert_those_of_a_loss(reference, method, names, live, maps, batch)


@pytest.mark.parametrize("name", KINDS)
def test_each_weight_of_the_head_learns(name):
    head = shaken(KINDS[name](CHANNELS, 3, rngs=nnx.Rngs(0), **OPTIONS))
    method = methods.build(name, {}, test_losses.FACTS)
    batch = test_losses.make_batch() | {"image": make_maps(batch=5)}
    slopes.assert_in_all_weights(head, method, batch)


def test_the_later_scores_learn_nothing_from_the_refinement():
    early, late = jnp.ones((1, 1, 1, 3)), jnp.arange(3.0).reshape(1, 1, 1, 3)
    slopes = jax.grad(lambda *two: pim.refinement(*two, 2.0).sum(), argnums=(0, 1))(early, late)
    assert (slopes[0] != 0).all()
    np.testing.assert_array_equal(slopes[1], np.zeros_like(late))


def test_nothing_dropped_costs_nothing():
    np.testing.assert_array_equal(pim.dropped(jnp.ones((2, 1, 2, 3)), jnp.ones((2, 1, 2))), [0, 0])


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
        return test_losses.call(method, model, batch)[0]

    for value in (0.0, 3.0, 1e4):
        pairs = zip(CHANNELS, GRIDS, strict=True)
        found = loss(params, tuple(np.full((5, *grid, c), value, np.float32) for c, grid in pairs))
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found)), value
