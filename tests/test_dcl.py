"""DCL's head and loss against their formulas in NumPy."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax.methods import dcl
from fgc_jax.models.heads.dcl import Dcl
from tests import networks, seeded, slopes, test_losses
from tests.by_hand import cut, entropy


def facts(*sides):
    """Of phases whose location maps have these sides."""
    return types.SimpleNamespace(shapes=tuple({"head/location": (n, n)} for n in sides))


def by_hand(head, x):
    """(logits, swap, location), place by place."""
    x = np.asarray(x, np.float64)
    kernel = np.asarray(head.location.kernel[...], np.float64)
    bias = float(head.location.bias[...][0])
    places = np.zeros((len(x), x.shape[1] // 2, x.shape[2] // 2))
    for image, i, j in np.ndindex(places.shape):
        window = x[image, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(4, -1)
        places[image, i, j] = np.tanh((window @ kernel + bias).mean())
    mean = x.mean((1, 2))
    return *(mean @ np.asarray(fc.kernel[...]) for fc in (head.fc, head.swap)), places


@pytest.mark.parametrize("grid", [(4, 6), (5, 3)])
def test_the_head_is_its_formula(grid):
    head = Dcl((6,), 5, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(3, *grid, 6)).astype(np.float32)
    logits, named = head((jnp.asarray(x),))
    found = (logits, named["swap"], named["location"])
    for got, wanted in zip(found, by_hand(head, x), strict=True):
        networks.assert_near(got, wanted)
    assert head.fc.bias is None
    assert head.swap.bias is None


class Recorder:
    """A model that keeps the images that it sees and answers at random."""

    def __init__(self, images, tiles):
        rng = np.random.default_rng(3)

        def normal(*shape):
            return rng.normal(size=shape).astype(np.float32)

        self.logits = normal(2 * images, 5)
        places = np.tanh(normal(2 * images, tiles, tiles))
        self.out = {"head/swap": normal(2 * images, 2), "head/location": places}

    def __call__(self, images, *, rngs=None):
        self.images = np.asarray(images)
        return self.logits, self.out


def make_batch(mask, mixed=False):
    return test_losses.of_five_classes(seeded.images(3, 12, 12), mask, mixed)


def tile_indices(whole, confused, tiles):
    """Which tile of `whole` lies at each place of `confused`, by comparing pixels."""
    whole, confused = (cut(image[None], tiles)[0] for image in (whole, confused))
    return [
        next(i for i, tile in enumerate(whole) if np.array_equal(tile, place)) for place in confused
    ]


TERMS = ("class_loss", "swap_loss", "location_loss")


def make_method():
    return dcl.make(facts(3), tiles=3, reach=1, swap_weight=0.7, location_weight=2.0)


def orders(images):
    """Which tile lies at each place of a row's image, the rows being whole and confused in turn."""
    found = [tile_indices(*images[row : row + 2], 3) for row in range(0, len(images), 2)]
    assert any(order != list(range(9)) for order in found)
    return [each for order in found for each in (list(range(9)), order)]


def loss_by_hand(batch, order, logits, swap, location):
    """(value, *TERMS): means over the rows that count."""
    each = []
    for row in range(2 * len(batch["mask"])):
        image, destroyed = divmod(row, 2)
        if not batch["mask"][image]:
            continue
        wanted = (np.array(order[row]).reshape(3, 3) - 4) / 9
        goal = test_losses.goal_of(batch, image, 5)
        kind = np.eye(2)[1 - destroyed]
        gap = np.abs(location[row] - wanted).mean()
        each.append((entropy(logits[row], goal), entropy(swap[row], kind), gap))
    means = np.mean(each, axis=0)
    return means @ [1, 0.7, 2], *means


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("mask", [(1, 1, 1), (0, 1, 1)])
def test_the_loss_is_its_formula(mask, mixed):
    batch = make_batch(mask, mixed)
    model = Recorder(3, 3)
    value, report = test_losses.call(make_method(), model, batch, seed=5)
    np.testing.assert_array_equal(model.images[::2], batch["image"])
    expected = loss_by_hand(batch, orders(model.images), model.logits, *model.out.values())
    found = [value, *(report.scalars[name] for name in TERMS)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(report.outputs["logits"], model.logits[::2])


def test_its_gradients_are_those_of_the_formula():
    model, batch = Recorder(3, 3), make_batch((0, 1, 1))
    test_losses.call(make_method(), model, batch)
    order = orders(model.images)

    def reference(head, maps):
        return loss_by_hand(batch, order, *by_hand(head, *maps))

    maps = np.random.default_rng(0).normal(size=(6, 6, 6, 4)).astype(np.float32)
    head = Dcl((4,), 5, rngs=nnx.Rngs(0))
    slopes.assert_those_of_a_loss(reference, make_method(), TERMS, head, (maps,), batch)


def test_each_weight_of_the_head_learns():
    """Of a network whose map is the image."""
    head, method = Dcl((3,), 5, rngs=nnx.Rngs(0)), dcl.make(facts(6), tiles=6)
    slopes.assert_in_all_weights(head, method, make_batch((1, 1, 1)))


def test_nothing_is_lost_where_all_images_are_masked():
    method = dcl.make(facts(3), tiles=3)
    value, _ = test_losses.call(method, Recorder(3, 3), make_batch((0, 0, 0)))
    assert float(value) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reach": 7}, "reach=7 must be below tiles=7"),
        ({"tiles": 5}, r"phases\[0\] .* of 7x7, .* another crop or tiles=7$"),
    ],
)
def test_wrong_options_of_the_method(options, message):
    with pytest.raises(ValueError, match=message):
        dcl.make(facts(7), **options)


def test_a_later_phase_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"tiles=3: .*phases\[1\] .* of 2x2, .* or tiles=2$"):
        dcl.make(facts(3, 2), tiles=3)
    with pytest.raises(ValueError, match=r"phases\[2\] .* of 1x1, .* choose another crop$"):
        dcl.make(facts(3, 3, 1), tiles=3)
