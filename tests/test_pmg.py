"""PMG's head and its four losses against their formulas in NumPy."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import methods, models, trees
from fgc_jax.methods import jigsaw, pmg
from fgc_jax.models import layers
from fgc_jax.models.heads.pmg import Pmg
from fgc_jax.training import step
from tests import networks, seeded, slopes, test_losses
from tests.by_hand import array, cut, entropy, linear, norm, with_random_norms

CHANNELS = (3, 4, 6)
GRIDS = ((6, 4), (3, 2), (2, 1))
# Of a classifier with three levels.
SHAPES = {f"head/level{level}": (5,) for level in (1, 2, 3)}
FACTS = types.SimpleNamespace(shapes=({**SHAPES, "image": (64, 64, 3)},))


def make_head(**options):
    head = Pmg(CHANNELS, 5, hidden=4, width=7, rngs=nnx.Rngs(0), **options)
    return with_random_norms(head)


def random_maps(batch=2):
    rng = np.random.default_rng(1)
    return tuple(
        jnp.asarray(rng.normal(size=(batch, *grid, c)).astype(np.float32))
        for grid, c in zip(GRIDS, CHANNELS, strict=True)
    )


def classify(chain, x):
    x = norm(chain[2], linear(chain[1], norm(chain[0], x)))
    return linear(chain[4], np.where(x > 0, x, np.expm1(np.minimum(x, 0))))


def maximum(chain, x):
    """Of the two convolutions, the second one place by place."""
    x = np.maximum(norm(chain[1], np.asarray(x, np.float64) @ array(chain[0].kernel)[0, 0]), 0)
    _, h, w, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = array(chain[3].kernel)
    places = [
        np.einsum("bijc,ijcd->bd", padded[:, i : i + 3, j : j + 3], kernel)
        for i in range(h)
        for j in range(w)
    ]
    return np.maximum(norm(chain[4], np.stack(places, 1)), 0).max(1)


@pytest.mark.parametrize("test", ["concat", "sum"])
def test_the_head_is_its_formula(test):
    head, maps = make_head(test=test), random_maps()
    logits, named = jax.jit(lambda maps: head(maps))(maps)
    maxima = [maximum(block, x) for block, x in zip(head.blocks, maps, strict=True)]
    wanted = {f"level{i + 1}": classify(head.classifiers[i], x) for i, x in enumerate(maxima)}
    wanted["concat"] = classify(head.concat, np.concatenate(maxima, 1))
    wanted["sum"] = sum(wanted.values())
    assert named.keys() == wanted.keys()
    for name, value in wanted.items():
        networks.assert_near(named[name], value)
    np.testing.assert_array_equal(logits, named[test])


class ThreeStages(nnx.Module):
    """A backbone of three layers under the head, as a classifier has them."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        inputs = (3, *CHANNELS[:2])
        self.backbone = layers.Blocks(
            layers.Linear(c, d, rngs=rngs) for c, d in zip(inputs, CHANNELS, strict=True)
        )
        self.head = Pmg(CHANNELS, 5, hidden=4, width=7, rngs=rngs)

    def __call__(self, images, *, rngs=None):
        maps, x = [], images
        for stage in self.backbone:
            x = jax.nn.elu(stage(x))
            maps.append(x)
        logits, named = self.head(tuple(maps))
        return logits, {f"head/{name}": value for name, value in named.items()}


def make_batch(mask=(1, 1, 1, 1), mixed=False):
    return test_losses.of_five_classes(seeded.images(4, 8, 8), mask, mixed)


PARTS = {
    0: {"backbone/0", "head/blocks/0", "head/classifiers/0"},
    1: {"backbone/0", "backbone/1", "head/blocks/1", "head/classifiers/1"},
    2: {"backbone/0", "backbone/1", "backbone/2", "head/blocks/2", "head/classifiers/2"},
    3: {"backbone/0", "backbone/1", "backbone/2", "head/concat"}
    | {f"head/blocks/{level}" for level in range(3)},
}


@pytest.mark.parametrize("number", PARTS)
def test_a_step_touches_its_own_part_only(number):
    model = ThreeStages()
    variables, stats = models.split(model)
    graphdef = step.train_graphdef(model, trees.flatten(variables))
    method, batch = pmg.make(FACTS), make_batch()

    def objective(variables):
        call = lambda live: test_losses.call(method, live, batch, number=number)[0]  # noqa: E731
        return models.apply(graphdef, variables, stats, call)[0]

    gradient = trees.flatten(jax.jit(jax.grad(objective))(variables))
    touched = {path for path, leaf in gradient.items() if np.abs(leaf).max() > 0}
    expected = {path for path in gradient if any(trees.is_under(path, p) for p in PARTS[number])}
    # A bias in front of batch norm shifts nothing.
    loose = {path for path in expected if path.endswith("/1/bias")}
    assert expected - loose <= touched <= expected


class Recorder:
    """A model that keeps the images that it is asked about, and answers with fixed logits."""

    def __init__(self, rows=4):
        rng = np.random.default_rng(2)
        names = ("level1", "level2", "level3", "concat")
        self.logits = {f"head/{n}": rng.normal(size=(rows, 5)).astype(np.float32) for n in names}
        self.images = None

    def __call__(self, images, *, rngs=None):
        self.images = np.asarray(images)
        return self.logits["head/concat"], self.logits


def cross_entropy(logits, batch):
    values = [
        entropy(row, test_losses.goal_of(batch, image, 5))
        for image, (row, valid) in enumerate(zip(logits, batch["mask"], strict=True))
        if valid
    ]
    return np.mean(values)


def test_their_gradients_are_those_of_the_formulas():
    """Of the four together: each is 0 in what belongs to the others alone."""
    batch, each = make_batch((1, 0, 1, 1)), pmg.make(FACTS, concat_weight=3.0).losses
    names = [f"{name}_loss" for name in ("level1", "level2", "level3", "concat")]

    def loss(*arguments):
        values, reports = zip(*(loss(*arguments) for loss in each), strict=True)
        terms = {name: term for each in reports for name, term in each.scalars.items()}
        return sum(values), methods.Report({}, terms)

    def reference(head, maps):
        maxima = [maximum(block, x) for block, x in zip(head.blocks, maps, strict=True)]
        logits = [classify(chain, x) for chain, x in zip(head.classifiers, maxima, strict=True)]
        logits.append(classify(head.concat, np.concatenate(maxima, 1)))
        terms = [cross_entropy(x, batch) for x in logits]
        return terms[0] + terms[1] + terms[2] + 3 * terms[3], *terms

    method = methods.Method((loss,))
    slopes.assert_those_of_a_loss(reference, method, names, make_head(), random_maps(4), batch)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("mask", [(1, 1, 1, 1), (1, 0, 1, 0)])
def test_losses_see_ever_larger_tiles(mask, mixed):
    batch = make_batch(mask, mixed)
    method = pmg.make(FACTS, tiles=(4, 2, 8), concat_weight=3.0)
    assert len(method.losses) == 4
    names = ("level1", "level2", "level3", "concat")
    for number, (name, n) in enumerate(zip(names, (4, 2, 8, 1), strict=True)):
        model = Recorder()
        value, report = test_losses.call(method, model, batch, number=number, seed=7)
        logits = model.logits[f"head/{name}"]
        weight = 3 if name == "concat" else 1
        np.testing.assert_allclose(value, weight * cross_entropy(logits, batch), rtol=1e-5)
        np.testing.assert_array_equal(report.outputs["logits"], logits)
        # The tiles of some order: each is one of the image's, at that place of the same row.
        if n == 1:
            np.testing.assert_array_equal(model.images, batch["image"])
            continue
        found = cut(model.images, n)
        tiles = cut(np.asarray(batch["image"]), n)
        orders = [
            [np.abs(t - tile).max((1, 2)).argmin() for tile in f]
            for t, f in zip(tiles, found, strict=True)
        ]
        assert len({tuple(order) for order in orders}) == 1
        again = jigsaw.permute(batch["image"], np.array(orders[0]), n)
        np.testing.assert_array_equal(model.images, again)
        # And not of tiles twice as large.
        larger = [cut(images, n // 2)[0] for images in (model.images, np.asarray(batch["image"]))]
        assert any(not (tile == larger[1]).all((1, 2)).any() for tile in larger[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": ()}, "must have one number for each level of the head"),
        ({"tiles": (8, 4)}, "must have one number for each level of the head"),
        ({"tiles": (8, 4, 2, 2)}, "must have one number for each level of the head"),
    ],
)
def test_wrong_options_of_the_method(options, message):
    with pytest.raises(ValueError, match=message):
        pmg.make(FACTS, **options)


def test_a_later_phase_of_images_smaller_than_the_tiles_is_refused():
    facts = types.SimpleNamespace(shapes=(*FACTS.shapes, {**SHAPES, "image": (7, 7, 3)}))
    with pytest.raises(ValueError, match=r"phases\[1\] have only 7 pixels per side"):
        pmg.make(facts, tiles=(8, 4, 2))
    assert len(pmg.make(facts, tiles=(7, 4, 2)).losses) == 4
