import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax.models import position
from tests import networks, seeded

STORED = np.load(networks.GOLDEN / "position.npz")
GRIDS = ((14, 9), (8, 6), (3, 4), (1, 1), (7, 5))
TABLE = seeded.value("pos_embed", (1, 2 + 49, 3))


@pytest.mark.parametrize("grid", GRIDS)
def test_resampling_equals_pytorchs(grid):
    found = position.resample(jnp.asarray(TABLE), (7, 7), grid, prefix=2)
    expected = STORED[f"resampled_{grid[0]}x{grid[1]}"]
    np.testing.assert_allclose(found, expected, atol=3e-6)
    np.testing.assert_array_equal(found[:, :2], TABLE[:, :2])


def test_the_stored_grid_costs_nothing():
    assert position.resample(TABLE, (7, 7), [7, 7], prefix=2) is TABLE


def test_a_stored_table_is_fitted_to_another_square_grid():
    square = position.fit_stored(TABLE, (1, 2 + 16, 3), prefix=2)
    expected = position.resample(jnp.asarray(TABLE), (7, 7), (4, 4), prefix=2)
    assert isinstance(square, np.ndarray)
    np.testing.assert_array_equal(square, expected)
    half = position.fit_stored(TABLE.astype(np.float16), (1, 2 + 16, 3), prefix=2)
    np.testing.assert_allclose(half, square, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "wanted", "prefix"),
    [
        ((1, 51, 3), (1, 18, 4), 2),  # Other channels.
        ((1, 51, 3), (1, 18, 3), 1),  # Not a square grid, stored or wanted.
        ((1, 51, 3), (1, 17, 3), 2),
        ((1, 2, 3), (1, 18, 3), 2),
        ((51, 3), (1, 18, 3), 2),
    ],
)
def test_what_cannot_be_fitted_is_left_for_the_loader_to_refuse(shape, wanted, prefix):
    table = np.zeros(shape, np.float32)
    assert position.fit_stored(table, wanted, prefix=prefix) is table


@pytest.mark.parametrize("grid", GRIDS)
def test_rotations_equal_timms(grid):
    cosine, sine = position.rotation(grid, 16, prefix=3)
    expected = STORED[f"rotary_{grid[0]}x{grid[1]}"]
    np.testing.assert_allclose(sine[3:], expected[:, :16], atol=2e-6)
    np.testing.assert_allclose(cosine[3:], expected[:, 16:], atol=2e-6)
    assert (cosine[:3] == 1).all()
    assert (sine[:3] == 0).all()


def test_products_of_rotated_vectors_depend_on_the_distance_alone():
    turn = position.rotation((4, 5), 16, prefix=1)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
    many = [jnp.broadcast_to(x, (1, 21, 1, 16)) for x in (q, k)]
    q, k = (position.rotate(x, turn)[0, :, 0] for x in many)
    products = (q @ k.T)[1:, 1:].reshape(4, 5, 4, 5)
    np.testing.assert_allclose(products[0, 1, 2, 2], products[1, 3, 3, 4], rtol=1e-4)
    assert abs(products[0, 1, 2, 2] - products[0, 1, 2, 3]) > 1e-3


def test_rotation_keeps_the_dtype():
    x = jnp.ones((2, 4, 3, 8), jnp.bfloat16)
    assert position.rotate(x, position.rotation((1, 3), 8, prefix=1)).dtype == jnp.bfloat16
