"""1,000 training steps of pooling heads on maps that have broken others, and of the whole of CAL on
images that have: nothing but numbers.

Zero maps, constant maps, one position, bfloat16, huge and tiny values, at ten times the learning
rate of the head's recipe.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import common
from fgc_jax import models
from fgc_jax.methods import losses
from tests import small_networks, step_trainer, tiny_run

CHANNELS, CLASSES, STEPS = 6, 4, 1000
# Options of the head; its recipe's optimiser with ten times the rate.
HEADS = {
    "gap": ({}, optax.sgd(0.1, momentum=0.9)),
    "bilinear": ({}, optax.sgd(10.0, momentum=0.9)),
    "compact_bilinear": ({"dimension": 16}, optax.sgd(20.0, momentum=0.9)),
    "isqrt_cov": ({"dimension": 4}, optax.sgd(0.06, momentum=0.9)),
    "low_rank_bilinear": ({"dimension": 4, "rank": 2}, optax.adam(1e-2)),
    "attention_pooling": ({"maps": 3}, optax.sgd(0.01, momentum=0.9)),
}


def troubles():
    """f32 [kinds, 4, 3, 3, CHANNELS]."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(4, 3, 3, CHANNELS))
    one = np.zeros_like(normal)
    one[:, 1, 1] = normal[:, 1, 1]
    kinds = [normal, np.zeros_like(normal), np.ones_like(normal), one, np.abs(normal)]
    kinds += [1e4 * normal, 1e-20 * normal, normal[:, :1, :1] + 0 * normal, -np.abs(normal)]
    half_dead = normal.copy()
    half_dead[:2] = 0
    return np.stack([*kinds, half_dead]).astype(np.float32)


@pytest.mark.parametrize("name", HEADS)
def test_no_nan_leaves_the_head(name):
    options, optimizer = HEADS[name]
    head = models.HEADS[name]((CHANNELS,), CLASSES, rngs=nnx.Rngs(0), **options)
    graphdef, variables, stats = nnx.split(head, nnx.Param, ...)
    maps = jnp.asarray(troubles())
    goal = jax.nn.one_hot(jnp.arange(4) % CLASSES, CLASSES)

    def step(carry, number):
        variables, stats, moments = carry
        x = maps[number % len(maps)]
        rounded = x.astype(jnp.bfloat16).astype(jnp.float32)
        x = jnp.where(number % 3 == 0, rounded, x)

        def total(variables):
            live = nnx.merge(graphdef, variables, stats, copy=True)
            logits, named = live((x,), rngs=nnx.Rngs(dropout=0))
            moved = nnx.state(live, nnx.Not(nnx.Param))
            return losses.cross_entropy(logits, goal).mean(), (logits, named, moved)

        (loss, (*out, moved)), gradients = jax.value_and_grad(total, has_aux=True)(variables)
        updates, moments = optimizer.update(gradients, moments, variables)
        leaves = jax.tree.leaves((loss, out, gradients))
        finite = jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()
        return (optax.apply_updates(variables, updates), moved, moments), finite

    start = (variables, stats, optimizer.init(variables))
    (variables, *_), finite = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(STEPS)))(start)
    bad = np.flatnonzero(~np.asarray(finite))
    assert not len(bad), f"not finite from step {bad[0]}, map {bad[0] % len(maps)}"


def trouble_images():
    """u8 [kinds, 6, 32, 32, 3]."""
    shape = (6, 32, 32, 3)
    dot = np.zeros(shape, np.uint8)
    dot[:, 5, 5] = 255
    half = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    half[:3] = 0
    kinds = [np.zeros(shape), np.full(shape, 255), np.full(shape, 128), dot, half]
    return np.stack(kinds).astype(np.uint8)


@pytest.mark.parametrize("dtype", ("float32", pytest.param("bfloat16", marks=pytest.mark.slow)))
def test_no_nan_leaves_a_step_of_cal(dtype, monkeypatch):
    row = dataclasses.replace(small_networks.SMALL["basic"], weights=small_networks.STORED)
    monkeypatch.setitem(models.BACKBONES, "basic", row)
    recipe = tiny_run.recipe("unused")
    recipe.model.update(backbone="basic", feature_map="stage2", dtype=dtype)
    common.attention(recipe, "cal", maps=3)
    recipe.phases = (common.phase("all", batch_size=6, resize=32, crop=32, lr=0.01),)
    batches = [{**step_trainer.batch_of(), "image": images} for images in trouble_images()]
    steps = itertools.islice(itertools.cycle(batches), STEPS)
    trained = step_trainer.of(recipe).each(steps)
    for number, (_, metrics) in enumerate(trained):
        bad = [name for name, value in metrics.items() if not np.isfinite(value)]
        assert not bad, f"{bad} from step {number}, images {number % len(batches)}"
    assert number == STEPS - 1
