import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax import models
from fgc_jax.convert import timm
from fgc_jax.models.backbones import swin
from tests import seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")

NAME = "swin_tiny_patch4_window7_224"


def test_a_bias_belongs_to_the_distance_of_two_places():
    window = (3, 4)
    table = np.arange(5 * 7 * 2, dtype=np.float32).reshape(35, 2)
    found = np.asarray(swin.position_bias(table, window))
    for a in range(12):
        for b in range(12):
            rows, columns = a // 4 - b // 4, a % 4 - b % 4
            assert (found[:, a, b] == table[(rows + 2) * 7 + columns + 3]).all()


def test_windows_are_cut_and_joined():
    x = jnp.arange(2 * 6 * 8 * 3.0).reshape(2, 6, 8, 3)
    windows = swin.partition(x, (3, 4))
    assert windows.shape == (2, 4, 12, 3)
    np.testing.assert_array_equal(windows[1, 2].reshape(3, 4, 3), x[1, 3:, :4])
    np.testing.assert_array_equal(swin.join(windows, (3, 4), (6, 8)), x)


def test_places_that_only_the_shift_made_neighbours_do_not_attend():
    mask = swin.shift_mask((4, 6), (2, 3), (1, 1))
    assert mask.shape == (4, 6, 6)
    assert not mask[0].any()
    # The last window's four corners come from the four corners of the image.
    corners = np.arange(6).reshape(2, 3)
    parts = np.array([[0, 0, 1], [2, 2, 3]]).ravel()
    for a in corners.ravel():
        assert (mask[3, a] == np.where(parts == parts[a], 0, -100)).all()
    # An axis that is no longer than the window is not shifted.
    assert not swin.shift_mask((2, 6), (2, 3), (0, 1))[0].any()


def test_a_table_fits_its_own_window_unchanged_and_keeps_a_constant():
    table = seeded.value("table", (169, 3))
    assert swin.resize_table(table, (7, 7), (7, 7)) is table
    even = np.full((169, 3), 0.5, np.float32)
    for target in ((12, 12), (4, 7), (1, 2)):
        found = swin.resize_table(even, (7, 7), target)
        assert found.shape == (math.prod(2 * n - 1 for n in target), 3)
        np.testing.assert_allclose(found, 0.5, rtol=1e-6)


def test_stored_weights_of_other_windows_are_fitted():
    fit = models.BACKBONES[NAME].resample["relative_position_bias_table"]
    table = seeded.value("table", (23 * 23, 3))
    found = fit(table, (169, 3))
    assert found.shape == (169, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found[84], table[264])  # The distance of zero.


def forward(height, width):
    config, params, stats = seeded.trees(NAME, 10)
    graphdef = models.evaluation_graphdef(models.abstract(config, 10))
    images = seeded.images(2, height, width)
    maps = models.maps_named(graphdef, models.ATTENTION, params, stats, images)
    return {name.removeprefix(models.ATTENTION): x for name, x in maps.items()}


def test_attention_maps_are_distributions_of_each_window():
    maps = forward(64, 96)
    assert list(maps) == ["0.0", "0.1", "1.0", "1.1", *(f"2.{i}" for i in range(6)), "3.0", "3.1"]
    for name, windows, heads, places in (
        ("0.0", 3 * 4, 3, 49),
        ("0.1", 3 * 4, 3, 49),
        ("1.1", 2 * 2, 6, 49),
        ("2.5", 1, 12, 4 * 6),
        ("3.0", 1, 24, 2 * 3),
    ):
        assert maps[name].shape == (2, windows, heads, places, places)
        assert maps[name].dtype == jnp.float32
        np.testing.assert_allclose(maps[name].sum(-1), 1, rtol=1e-5)
    shifted = np.asarray(maps["0.1"])[:, -1]
    assert shifted[:, :, 0, -1].max() < 1e-20 < shifted[:, :, 0, 0].min()


def test_a_table_that_is_resampled_has_a_gradient():
    table = seeded.value("table", (169, 3))
    resized = lambda x: (swin.resize_table(x, (7, 7), (4, 4)) ** 2).sum()  # noqa: E731
    gradient = jax.grad(resized)(jnp.asarray(table))
    assert jnp.isfinite(gradient).all() and (gradient[84] != 0).all()


def test_microsofts_own_files_are_understood():
    names = {
        "patch_embed.proj.weight": "patch_embed.proj.weight",
        "layers.0.blocks.1.attn.relative_position_bias_table": (
            "layers.0.blocks.1.attn.relative_position_bias_table"
        ),
        "layers.0.downsample.reduction.weight": "layers.1.downsample.reduction.weight",
        "layers.1.downsample.norm.bias": "layers.2.downsample.norm.bias",
        "layers.3.blocks.0.norm1.weight": "layers.3.blocks.0.norm1.weight",
        "norm.weight": "norm.weight",
        "head.weight": "head.fc.weight",
        "head.bias": "head.fc.bias",
    }
    unused = ("attn.relative_position_index", "attn_mask")
    theirs = {name: name for name in names} | {f"layers.0.blocks.1.{name}": 0 for name in unused}
    expected = {timms: name for name, timms in names.items()}
    assert timm.normalise(theirs) == expected
    assert timm.normalise(expected) == expected
