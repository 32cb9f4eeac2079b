"""Scores over several views, against one image at a time in NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from fgc_jax.config.views import ViewSpec
from fgc_jax.evaluation import multiview, views
from tests import by_hand, seeded

GRID, CLASSES, MAPS = 8, 5, 4
RNG = np.random.default_rng(0)
LOOKS = RNG.normal(size=(3, MAPS))
WEIGHTS = RNG.normal(size=(2, GRID * GRID * 3, CLASSES)) / 4


def network(images, xp, plain=False):
    """A network without symmetry: logits and effect logits of the cells of a grid, and maps."""
    b, size = images.shape[:2]
    cell = size // GRID
    cells = images[:, : GRID * cell, : GRID * cell]
    cells = cells.reshape(b, GRID, cell, GRID, cell, 3).mean((2, 4))
    maps = xp.maximum(cells @ LOOKS.astype(images.dtype), 0) ** 4  # narrow: crops differ
    flat = xp.tanh(cells.reshape(b, -1))
    logits, effect = (flat @ weights.astype(images.dtype) for weights in WEIGHTS)
    named = {} if plain else {"head/attention": maps, "head/effect": effect}
    return logits, {"features": cells - 0.5, "pooled": cells[:, :1, :1]} | named


def crop_by_hand(image, attention, threshold, padding):
    """What CAL cuts out of one image: the box of the positions that reach the threshold."""
    size = len(image)
    inside = by_hand.resized(attention, size, size) >= threshold * attention.max() - 1e-12
    spans = []
    for axis in (1, 0):
        places = np.flatnonzero(inside.any(axis))
        low = max(int(places[0] - padding * size), 0)
        spans.append((low, min(int(places[-1] + padding * size), size)))
    (y0, y1), (x0, x1) = spans
    return by_hand.resized(image[y0:y1, x0:x1], size, size)


def reference(image, spec, *, crop, average="logits", effect=False, plain=False):
    """Logits f64 [K] of one image, view by view."""
    total = 0.0
    for view, weight in ViewSpec.parse(spec).weights:
        room = len(image) - crop
        places = view.numbers if view.kind == "place" else (0.5, 0.5)
        top, left = (round(room * share) for share in places)
        seen = image[top : top + crop, left : left + crop]
        if view.mirrored:
            seen = seen[:, ::-1]
        if view.kind == "crop":
            _, out = network(seen[None], np, plain)
            attention = out["head/attention"][0].mean(-1) if not plain else None
            if plain:
                attention = np.abs(out["features"][0]).mean(-1)
                attention = attention - attention.min()
            seen = crop_by_hand(seen, attention, *view.numbers)
        if view.kind == "scale":
            seen = antialiased(seen, round(view.numbers[0] * crop / 8) * 8)
        logits, out = network(seen[None], np, plain)
        logits = (out["head/effect"] if effect else logits)[0]
        total = total + weight * (logits if average == "logits" else special.softmax(logits))
    return total if average == "logits" else np.log(total)


def antialiased(image, size):
    """Triangles as wide as a pixel of the coarser grid, half-pixel centres, cut at the edges."""
    old = len(image)
    scale = old / size
    rows = np.zeros((size, old))
    for y in range(size):
        for v in range(old):
            rows[y, v] = max(0.0, 1 - abs((y + 0.5) * scale - v - 0.5) / max(scale, 1.0))
    rows /= rows.sum(1, keepdims=True)
    return np.einsum("yv,xu,vuc->yxc", rows, rows, image)


def pictures(size, number=3):
    return np.float64(seeded.images(number, size, size, seed=3)) / 2


def scored(images, spec, *, crop, plain=False, **choices):
    made = views.make(
        ViewSpec.parse(spec),
        crop=crop,
        resize=images.shape[1],
        stride=8,
        feature_map="pooled",
        **choices,
    )
    forward = functools.partial(network, xp=jnp, plain=plain)
    return jax.jit(lambda images: multiview.scores(made, forward, images))(jnp.float32(images))


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("crop3_flip", {}),
        ("2*raw + crop(0.1, 0.05) + 0.5*mirror(raw)", {"average": "probabilities"}),
        ("mirror(crop(0.5, 0))", {"logits": "effect"}),  # of a raw view that has no weight itself
        ("crop(0.5, 0)", {"average": "probabilities"}),
        ("crop(0.4, 0.2) + crop(0.4, 0.05) + 3*mirror(crop(0.6, 0.2))", {}),
        ("crop3", {"plain": True}),
        ("ten_crop", {"side": 40}),
        ("ten_crop + crop3", {"side": 41, "average": "probabilities", "logits": "effect"}),
        ("multi_scale + mirror(scale(0.5))", {"average": "probabilities"}),
        ("flip", {}),
        ("place(1, 0)", {"side": 40}),
    ],
)  # fmt: skip
def test_scores_are_those_of_single_views(spec, options):
    options = dict(options)
    images = pictures(options.pop("side", 32))
    found = scored(images, spec, crop=32, **options)
    by_hand = {"effect": options.pop("logits", "") == "effect", **options}
    expected = [reference(image, spec, crop=32, **by_hand) for image in images]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_means_of_logits_and_of_probabilities():
    """Two views with known answers: the mean of probabilities can choose another class."""
    answers = jnp.array([[6.0, 5.0, 0.0], [0.0, 2.0, 2.1]])

    def forward(images):
        return answers[jnp.where(images[:, 0, 0, 0] > 0, 0, 1)], {}

    image = jnp.stack([jnp.ones((4, 4)), -jnp.ones((4, 4))], 1).reshape(1, 4, 2, 4)
    image = jnp.moveaxis(image, 2, 3).reshape(1, 4, 8, 1)[:, :4, 2:6]
    image = jnp.broadcast_to(image, (1, 4, 4, 3))
    assert image[0, 0, 0, 0] != image[0, 0, -1, 0]
    a, b = np.float64(answers) if image[0, 0, 0, 0] > 0 else np.float64(answers)[::-1]
    sizes = {"crop": 4, "resize": 4, "stride": 1}
    logits = multiview.scores(
        views.make(ViewSpec.parse("3*raw + mirror(raw)"), **sizes), forward, image
    )
    np.testing.assert_allclose(logits[0], (3 * a + b) / 4, rtol=1e-6)
    made = views.make(ViewSpec.parse("3*raw + mirror(raw)"), average="probabilities", **sizes)
    found = jax.nn.softmax(multiview.scores(made, forward, image))
    expected = (3 * special.softmax(a) + special.softmax(b)) / 4
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_a_mirrored_crop_is_cut_by_the_mirrored_image_s_own_attention():
    """The network attends to the left whatever it sees, so mirrored maps would cut elsewhere."""
    left = jnp.zeros((1, 4, 4, 1)).at[:, :, 0].set(1.0)

    def forward(images):
        return images.mean((1, 3)), {
            "head/attention": jnp.broadcast_to(left, (len(images), 4, 4, 1))
        }

    image = jnp.arange(16.0).reshape(1, 1, 16, 1) * jnp.ones((1, 16, 1, 3))
    found = multiview.scores(
        views.make(ViewSpec.parse("mirror(crop(0.4, 0))"), crop=16, resize=16, stride=1),
        forward,
        image,
    )
    assert found.min() > 12  # the mirrored image's left is the right of the image


def test_raw_is_the_network_alone():
    """The same program as without views, down to the last instruction."""
    forward = functools.partial(network, xp=jnp)
    images = np.float32(pictures(32))
    made = views.make(ViewSpec.parse("raw"), crop=32, resize=36, stride=8)
    alone = jax.make_jaxpr(lambda images: forward(images)[0])(images)
    assert str(
        jax.make_jaxpr(lambda images: multiview.scores(made, forward, images))(images)
    ) == str(alone)


def test_the_network_is_compiled_once_for_each_size():
    calls = []

    def forward(images):
        calls.append(images.shape)
        return network(images, jnp)

    spec = ViewSpec.parse("crop3_flip + multi_scale")
    text = jax.jit(
        lambda images: multiview.scores(
            views.make(spec, crop=32, resize=32, stride=8), forward, images
        )
    ).lower(np.float32(pictures(32))).as_text()  # fmt: skip
    assert text.count("stablehlo.tanh") == 3 and len(set(calls)) == 3


def test_images_without_attention_or_with_nan_stay_what_they_are():
    """Empty and broken maps cut nothing off, and one image's NaN is not its neighbour's."""
    images = np.float32(pictures(32))
    images[1] = 0.0
    images[2, 5, 5] = math.nan
    found = scored(images, "crop3_flip", crop=32)
    assert np.isfinite(found[:2]).all() and np.isnan(found[2]).any()
    np.testing.assert_allclose(found[1], reference(images[1], "raw", crop=32), atol=1e-5)
    alone = scored(images[:1], "crop3_flip", crop=32)
    np.testing.assert_allclose(found[:1], alone, atol=1e-5)


def test_where_attention_comes_from():
    """Attention maps before features, features of a grid before a single vector."""
    grids = {
        name: RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
        for name in ("head/attention", "part_attention", "features", "stage2")
    }
    out = {**grids, "pooled": np.ones((2, 1, 1, 5), np.float32)}
    strength = {name: np.abs(grid).mean(-1) for name, grid in grids.items()}
    for gone, name, expected in (
        ("none", "stage2", grids["head/attention"].mean(-1)),
        ("head/attention", "stage2", grids["part_attention"].mean(-1)),
        ("part_attention", "stage2", strength["stage2"]),
        ("stage2", "pooled", strength["features"]),
    ):
        out.pop(gone, None)
        if "attention" not in " ".join(out):
            expected = expected - expected.min((1, 2), keepdims=True)
        np.testing.assert_allclose(multiview.attention(out, name), expected, rtol=1e-5, atol=1e-6)


def test_attention_needs_positions():
    with pytest.raises(ValueError, match="more than one position"):
        multiview.attention({"features": jnp.ones((1, 1, 1, 3))}, "features")
