import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from fgc_jax import models
from fgc_jax.convert import timm
from fgc_jax.models import backbone, position
from fgc_jax.models.backbones import eva, vit
from tests import networks, seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SHAPE = (24, 2, 2)


def row(size, **options):
    return vit.vit(SHAPE, 8, weights={"y": backbone.timm_facts(size=size)}, parameters=0, **options)


ROWS = {
    "plain": row(32),
    "larger": row(64),
    "registers": row(32, registers=2, embed_prefix=False, layer_scale=0.5, pre_norm=True),
    "rotary": eva.row(SHAPE, 8, weights={"y": backbone.timm_facts()}, parameters=0),
}
NAMES = ("plain", "registers", "rotary")
PREFIX = {"plain": 1, "registers": 3, "rotary": 5}


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    for name, value in ROWS.items():
        monkeypatch.setitem(models.BACKBONES, name, value)


@pytest.mark.parametrize("name", NAMES)
def test_attention_maps_are_those_of_each_block(name):
    config, params, stats = seeded.trees(name, 5)
    graphdef = models.evaluation_graphdef(models.abstract(config, 5))
    images = jnp.asarray(seeded.images(2, 32, 48))
    maps = models.maps_named(graphdef, models.ATTENTION, params, stats, images)
    tokens = PREFIX[name] + 4 * 6
    assert list(maps) == ["attention/0", "attention/1"]
    for p in maps.values():
        assert (p.shape, p.dtype) == ((2, 2, tokens, tokens), jnp.float32)
        np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
        assert p.std() > 0.1 * p.mean(), "the same for all tokens"


@pytest.mark.parametrize(("name", "remat"), [("plain", False), ("rotary", False), ("rotary", True)])
def test_unread_attention_maps_cost_nothing(name, remat, monkeypatch):
    config = seeded.config(name, remat=remat)
    model = models.abstract(config, 5)
    graphdef, shapes = models.evaluation_graphdef(model), models.split(model)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)

    def flops():
        def loss(params, stats, images):
            return models.apply(graphdef, params, stats, lambda live: live(images)[0])[0].sum()

        program = jax.jit(jax.grad(loss)).lower(*shapes, images).compile()
        return program.cost_analysis()["flops"]

    offered = flops()
    monkeypatch.setattr(vit.Block, "attention", lambda self, x: jnp.zeros(()))
    monkeypatch.setattr(eva.Placed, "attention", lambda self, x: jnp.zeros(()))
    assert offered == flops()


def test_the_class_token_is_what_the_published_head_reads():
    _, out = networks.forward("plain", 5)(seeded.images(2, 32, 32))
    _, behind = networks.forward("plain", 5, feature_map="features")(seeded.images(2, 32, 32))
    assert out["pooled"].shape == (2, 1, 1, 24)
    assert out["features"].shape == (2, 4, 4, 24)
    np.testing.assert_allclose(out["features"], behind["features"], rtol=1e-5)


def test_dinov3s_head_reads_the_mean_and_the_class_token_is_there_too():
    name, images = "vit_small_patch16_dinov3", seeded.images(2, 32, 48)
    _, out = networks.forward(name, 5)(images)
    assert models.abstract(seeded.config(name), 5).feature_maps == (("features",),)
    assert out["features"].shape == (2, 2, 3, 384)
    assert out["class_token"].shape == (2, 1, 1, 384)
    logits, _ = networks.forward(name, 5, feature_map="class_token")(images)
    assert logits.shape == (2, 5)


def test_weights_of_another_grid_are_fitted(tmp_path):
    _, params, _ = seeded.trees("plain", 7)
    state = timm.to_state_dict(params, {}, [("backbone", ""), ("head/fc", "head")])
    path = str(tmp_path / "small.safetensors")
    safetensors.save_file(state, path)
    loaded = models.load("larger", path)
    fitted = loaded.params["backbone"]["pos_embed"]
    assert "resampled: pos_embed (1, 17, 24) to (1, 65, 24)" in loaded.report
    expected = position.resample(params["backbone"]["pos_embed"], (4, 4), (8, 8), prefix=1)
    np.testing.assert_allclose(fitted, expected, atol=1e-6)
    # The forward pass resamples in the same way, so both give the same for the larger image.
    images = seeded.images(2, 64, 64)
    mine = models.load("plain", path)(images)[0]
    np.testing.assert_allclose(loaded(images)[0], mine, atol=1e-5)
