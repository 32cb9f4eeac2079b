"""Warps: exact where they can be, and drawn from where they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax.data.augment import geometry

SHAPE = (20, 30)
COUNT = 512


def picture(shape=SHAPE):
    return np.random.default_rng(0).integers(0, 256, (1, *shape, 3), np.uint8)


def sample(maps, padding="zeros", size=SHAPE, image=None):
    image = picture() if image is None else image
    return np.asarray(geometry.sample(image, jnp.asarray(maps), size, padding))[0]


def draw(warp, shape=SHAPE):
    keys = jax.random.split(jax.random.key(0), COUNT)
    return np.asarray(jax.jit(lambda keys: warp.maps(keys, shape))(keys), np.float64)


def through(maps, points):
    """Where maps `[n, 3, 3]` send points [[x, y], ...]: `[n, len(points), 2]`."""
    points = np.concatenate([np.array(points, float), np.ones((len(points), 1))], axis=1)
    found = np.einsum("nij,pj->npi", maps, points)
    return found[..., :2] / found[..., 2:]


@pytest.mark.parametrize("padding", geometry.PADDINGS)
def test_the_identity_is_exact(padding):
    np.testing.assert_array_equal(sample(geometry.affine(), padding), picture()[0])


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        (geometry.affine(xx=-1.0), lambda x: x[:, ::-1]),
        (geometry.affine(xx=-1.0, yy=-1.0), lambda x: x[::-1, ::-1]),
        (geometry.affine(x=3.0, y=-2.0), lambda x: np.pad(x[:-2, 3:], ((2, 0), (0, 3), (0, 0)))),
    ],
)
def test_whole_pixels_are_exact(maps, expected):
    np.testing.assert_array_equal(sample(maps), expected(picture()[0]))


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_exact_and_counter_clockwise(quarters):
    square = picture((21, 21))
    maps = geometry.rotation_map(jnp.float32([90.0 * quarters]))
    turned = sample(maps, "border", (21, 21), square)
    np.testing.assert_allclose(turned, np.rot90(square[0], quarters), atol=0.01)


@pytest.mark.parametrize(("padding", "mode"), [("reflect", "reflect"), ("border", "edge")])
def test_paddings_are_numpys(padding, mode):
    wide = sample(geometry.affine(), padding, (70, 100))
    pad = [(25, 25), (35, 35), (0, 0)]
    np.testing.assert_allclose(wide, np.pad(picture()[0], pad, mode=mode), atol=1e-3)


def test_between_pixels_it_is_linear():
    half = sample(geometry.affine(x=0.5), "border")
    image = picture()[0].astype(np.float32)
    np.testing.assert_allclose(half[:, :-1], (image[:, :-1] + image[:, 1:]) / 2, atol=1e-3)


def test_nothing_is_not_finite():
    horizon = np.array([[[1, 0, 0], [0, 1, 0], [0.1, 0, 0]]], np.float32)
    for padding in geometry.PADDINGS:
        assert np.isfinite(sample(horizon, padding, (21, 21))).all()
        tall = sample(geometry.affine(x=0.3, y=5.0), padding, image=picture((20, 1)))
        assert np.isfinite(tall).all()


def test_composition_is_in_the_order_of_the_operations():
    turn, move = geometry.rotation_map(jnp.float32([90.0])), geometry.affine(x=-5.0)
    image = picture((21, 21))
    args = ("zeros", (21, 21))
    both = sample(geometry.compose(turn, move), *args, image)
    in_turn = sample(move, *args, sample(turn, *args, image)[None])
    np.testing.assert_allclose(both, in_turn, atol=0.01)
    assert np.abs(both - sample(geometry.compose(move, turn), *args, image)).max() > 50


def test_perspective_map_moves_the_corners():
    before = [(-15, -10), (15, -10), (15, 10), (-15, 10)]
    after = [(-12, -7), (13, -9), (10, 8), (-14, 6)]
    maps = geometry.perspective_map(list(zip(before, after, strict=True)))
    np.testing.assert_allclose(through(np.asarray(maps, float), after)[0], before, atol=1e-4)


def test_rotate_is_uniform_between_its_limits():
    maps = draw(geometry.rotate(degrees=20.0))
    degrees = np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert -20 <= degrees.min() < -19 and 19 < degrees.max() <= 20
    assert np.histogram(degrees, 4, (-20, 20))[0].min() > COUNT / 4 * 0.7
    np.testing.assert_allclose(np.linalg.det(maps), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["rotate", "shear", "translate", "symmetric_warp", "perspective"])
def test_p_is_the_share_of_images_that_change(name):
    maps = draw(getattr(geometry, name)(p=0.25))
    share = (np.abs(maps - np.eye(3)) > 0).any((1, 2)).mean()
    assert 0.18 < share < 0.32
    assert not (draw(getattr(geometry, name)(p=0.0)) - np.eye(3)).any()


def test_shear_and_translate():
    maps = draw(geometry.shear(x=0.3, y=0.1))
    for entry, most in ((maps[:, 0, 1], 0.3), (maps[:, 1, 0], 0.1)):
        assert 0.9 * most < np.abs(entry).max() <= most and entry.min() < 0 < entry.max()
    moved = through(draw(geometry.translate(x=0.2, y=0.1)), [(0, 0)])[:, 0]
    np.testing.assert_allclose(np.abs(moved).max(0), (0.2 * 30, 0.1 * 20), rtol=0.05)


def test_zoom_fills_the_frame_from_anywhere():
    maps = draw(geometry.zoom(scale=(1.0, 1.5)))
    factors = 1 / maps[:, 0, 0]
    assert 1 <= factors.min() < 1.05 and 1.45 < factors.max() <= 1.5001
    corners = through(maps, [(-15, -10), (15, 10)])
    assert (np.abs(corners) <= np.array([15.001, 10.001])).all()
    # Each edge is met: the place is not always the centre.
    np.testing.assert_allclose(np.abs(corners).reshape(-1, 2).max(0), (15, 10), atol=0.1)
    assert np.abs(corners.mean((0, 1))).max() < 0.5


def test_symmetric_warp_draws_sides_longer_or_shorter():
    maps = np.linalg.inv(draw(geometry.symmetric_warp(magnitude=0.2)))
    frame = [(-15, -10), (15, -10), (15, 10), (-15, 10)]
    corners = through(maps, frame) / np.array([15, 10])
    (tl, tr, br, bl) = corners.transpose(1, 0, 2)
    for one, other, axis in ((tl, tr, 0), (bl, br, 0), (tl, bl, 1), (tr, br, 1)):
        np.testing.assert_allclose(one[:, axis], -other[:, axis], atol=1e-4)
    lengths = np.stack([tr[:, 0], br[:, 0], br[:, 1], bl[:, 1]])
    assert 0.8 <= lengths.min() < 0.81 and 1.19 < lengths.max() <= 1.2001
    assert (np.abs(np.corrcoef(lengths) - np.eye(4)) < 0.15).all()


def test_perspective_moves_corners_inwards():
    maps = np.linalg.inv(draw(geometry.perspective(distortion=0.5, p=1.0)))
    corners = through(maps, [(-15, -10), (15, 10)]) / np.array([15, 10])
    assert np.abs(corners).max() <= 1.0001 and 0.5 <= np.abs(corners).min() < 0.52
    assert (corners[:, 0] < 0).all() and (corners[:, 1] > 0).all()


def test_crop_takes_whole_pixels_from_anywhere():
    warp = geometry.crop(size=8)
    assert warp.size == 8
    maps = draw(warp)
    corners = through(maps, [(-3.5, -3.5)])[:, 0] + np.array([14.5, 9.5])
    np.testing.assert_allclose(corners, np.round(corners), atol=1e-5)
    places = {tuple(corner) for corner in np.round(corners).astype(int)}
    assert {x for x, _ in places} == set(range(23)) and {y for _, y in places} == set(range(13))
    x, y = np.round(corners[0]).astype(int)
    expected = picture()[0, y : y + 8, x : x + 8]
    np.testing.assert_array_equal(sample(np.float32(maps[:1]), "border", (8, 8)), expected)


def test_resized_crop_keeps_to_its_scale_ratio_and_the_picture():
    scale, ratio = (0.2, 0.8), (0.5, 2.0)
    maps = draw(geometry.resized_crop(scale=scale, ratio=ratio, size=16))
    boxes = through(maps, [(-8, -8), (8, 8)]) + np.array([15, 10])
    assert (boxes >= -1e-4).all() and (boxes <= np.array([30, 20]) + 1e-4).all()
    sides = boxes[:, 1] - boxes[:, 0]
    shares, shapes = sides.prod(1) / 600, sides[:, 0] / sides[:, 1]
    assert 0.2 <= shares.min() + 1e-5 and shares.max() <= 0.8 + 1e-5
    assert 0.499 <= shapes.min() < 0.6 and 1.8 < shapes.max() <= 2.001
    assert shares.min() < 0.22 and shares.max() > 0.75


def test_resized_crop_falls_back_to_the_centre():
    maps = draw(geometry.resized_crop(scale=(1.0, 1.0), ratio=(0.9, 1.1), size=16))
    boxes = through(maps, [(-8, -8), (8, 8)]) + np.array([15, 10])
    expected = np.broadcast_to([[4, 0], [26, 20]], (COUNT, 2, 2))
    np.testing.assert_allclose(boxes, expected, atol=1e-4)


def test_the_whole_picture_resized():
    whole = draw(geometry.resized_crop(scale=(1.0, 1.0), ratio=(1.0, 1.0)), (20, 20))
    np.testing.assert_allclose(whole, np.broadcast_to(np.eye(3), whole.shape), atol=1e-5)
