"""Swin at sizes where timm's windows shrink, and with weights of other windows."""

import functools

import jax
import numpy as np
import pytest
import timm
import torch

from fgc_jax import models
from fgc_jax.convert import timm as convert
from fgc_jax.models import pretrained
from fgc_jax.models.backbones import swin
from scripts import make_golden
from tests import networks, seeded
from tests.parity import oracles

TINY = "swin_tiny_patch4_window7_224"
BASE = "swin_base_patch4_window7_224"
LARGER = "swin_base_patch4_window12_384"
LIMIT = 5e-4


@pytest.mark.parametrize("size", [(160, 160), (256, 192), (32, 32), (64, 320), (384, 384)])
def test_any_size_gives_timms_logits(size):
    state = oracles.seeded_timm(TINY).state_dict()
    model, params, stats = oracles.trees_of(TINY, convert.normalise(oracles.as_numpy(state)))
    images = seeded.images(2, *size)
    expected = oracles.run_torch(make_golden.swin(TINY, state, *size), images)
    found = models.forward(models.evaluation_graphdef(model), params, stats, images)[0]
    difference = networks.relative(found, expected)
    print(f"\n| {TINY} | {size} {difference:.1e} |", end=" ")
    assert difference <= LIMIT


def test_attention_maps_equal_timms():
    """At a size that pads windows, shifts them, and shrinks those of the last stage."""
    state = oracles.seeded_timm(TINY).state_dict()
    theirs = make_golden.swin(TINY, state, 160, 128)
    seen = []
    for stage in theirs.layers:
        for block in stage.blocks:
            block.attn.fused_attn = False  # Fused, the weights exist nowhere.
            block.attn.attn_drop.register_forward_hook(lambda *call: seen.append(call[2].numpy()))
    images = seeded.images(2, 160, 128)
    oracles.run_torch(theirs, images)
    model, params, stats = oracles.trees_of(TINY, convert.normalise(oracles.as_numpy(state)))
    graphdef = models.evaluation_graphdef(model)
    maps = models.maps_named(graphdef, models.ATTENTION, params, stats, images)
    assert len(maps) == len(seen) == 12
    for (name, found), expected in zip(maps.items(), seen, strict=True):
        assert found.shape[:2] == (2, len(expected) // 2), name
        assert networks.relative(found.reshape(expected.shape), expected) <= LIMIT, name


@pytest.mark.parametrize(("ours", "stored", "size"), [(LARGER, BASE, 384), (BASE, LARGER, 224)])
def test_weights_of_another_window_are_fitted_as_timm_does(ours, stored, size):
    state = oracles.seeded_timm(stored).state_dict()
    row = models.BACKBONES[ours]
    model = models.abstract(seeded.config(ours), 1000)
    pairs = pretrained.original_names(row)
    params, stats = models.split(model)
    given, told = pretrained.resample(row, params, oracles.as_numpy(state), pairs)
    assert "relative_position_bias_table" in told
    params, stats = convert.fill(params, stats, given, pairs)
    images = seeded.images(1, size, size)
    expected = oracles.run_torch(make_golden.swin(ours, state, size, size), images)
    found = models.forward(models.evaluation_graphdef(model), params, stats, images)[0]
    difference = networks.relative(found, expected)
    print(f"\n| {stored} in {ours} | {size} {difference:.1e} |", end=" ")
    assert difference <= LIMIT


@pytest.mark.filterwarnings("ignore:.*:UserWarning:timm")
@pytest.mark.parametrize("target", [(1, 1), (2, 7), (5, 5), (6, 7), (8, 8), (12, 12), (24, 16)])
def test_tables_are_resampled_as_timm_does(target):
    table = seeded.value("table", (169, 3))
    shape = ((2 * target[0] - 1) * (2 * target[1] - 1), 3)
    expected = timm.layers.resize_rel_pos_bias_table(torch.tensor(table), target, shape)
    found = np.asarray(swin.resize_table(table, (7, 7), target))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gradients_pass_through_resampled_tables_and_masks():
    """At a size where the last stage's windows are smaller, of what is stored for the larger."""
    native = oracles.seeded_timm(TINY)
    state = convert.normalise(oracles.as_numpy(native.state_dict()))
    model, params, stats = oracles.trees_of(TINY, state)
    images = seeded.images(2, 160, 128)
    theirs = make_golden.swin(TINY, native.state_dict(), 160, 128)
    theirs(make_golden.to_torch(images)).square().mean().backward()
    graphdef = models.evaluation_graphdef(model)

    def loss(params):
        (logits, _), _ = models.apply(graphdef, params, stats, lambda live: live(images))
        return (logits**2).mean()

    gradients = jax.jit(jax.grad(loss))(jax.tree.map(np.asarray, params))
    names = pretrained.original_names(models.BACKBONES[TINY])
    mine = convert.to_state_dict(gradients, {}, names)
    for key, parameter in theirs.named_parameters():
        expected = parameter.grad.numpy()
        if key.startswith("layers.3") and key.endswith("table"):
            # The gradient of the resampled table, passed back through the resampling.
            window = theirs.get_submodule(key.rpartition(".")[0]).window_size
            assert window == (5, 4)
            fit = functools.partial(swin.resize_table, window=(7, 7), target=window)
            (expected,) = map(np.asarray, jax.vjp(fit, state[key])[1](expected))
        difference = np.abs(mine[key] - expected).max() / np.abs(expected).max()
        assert difference <= 1e-3, (key, difference)
