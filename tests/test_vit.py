import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from fgc_jax import models, trees
from fgc_jax.convert import timm
from fgc_jax.models import backbone, position
from fgc_jax.models.backbones import eva, vit
from tests import networks, seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")

REGISTERS = "vit_small_patch14_reg4_dinov2"
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


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", "64x64"),
        ("vit_tiny_patch16_224", "96x80"),
        (REGISTERS, "56x56"),
        (REGISTERS, "84x70"),
    ],
)
def test_forward_equals_timms(name, size):
    networks.check_golden(name, size)


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


def test_blocks_behind_the_last_map_are_not_built():
    for name in NAMES:
        config = seeded.config(name, feature_map="block1")
        paths = trees.flatten(models.split(models.abstract(config, 5))[0])
        parts = {path.split("/")[2] for path in paths if path.startswith("backbone/blocks")}
        assert parts == {"0"}
        assert not any(path.startswith("backbone/norm/") for path in paths)
        assert list(models.layer_prefixes(config)) == ["embed", "blocks/0"]


def test_images_that_the_patch_does_not_divide_are_refused():
    with pytest.raises(ValueError, match="32 x 36 pixels: both sides must be multiples.*patch, 8"):
        networks.forward("plain", 5)(seeded.images(1, 32, 36))


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


def test_weights_with_another_number_of_tokens_are_refused(tmp_path):
    _, params, _ = seeded.trees("registers", 7)
    state = timm.to_state_dict(params, {}, [("backbone", ""), ("head/fc", "head")])
    path = str(tmp_path / "other.safetensors")
    safetensors.save_file(state, path)
    with pytest.raises(ValueError, match=r"pos_embed \(1, 16, 24\) for backbone/pos_embed"):
        models.load("plain", path)


def test_weights_start_as_timms_do():
    spread = {
        "blocks/11/attn/qkv/kernel": 0.02,
        "blocks/11/mlp/fc2/kernel": 0.02,
        "pos_embed": 0.02,
        "cls_token": 1e-6,
        "reg_token": 1e-6,
        "patch_embed/proj/kernel": (3 * 14**2) ** -0.5 / 3**0.5,
        "patch_embed/proj/bias": (3 * 14**2) ** -0.5 / 3**0.5,
    }
    paths = {f"backbone/{path}": std for path, std in spread.items()}
    scale = "backbone/blocks/11/ls2/gamma"
    drawn = models.random_weights(seeded.config(REGISTERS), 10, seed=0, paths={*paths, scale})
    for path, std in paths.items():
        tolerance = 0.03 if drawn[path].size > 2000 else 0.15
        np.testing.assert_allclose(drawn[path].std(), std, rtol=tolerance)
    np.testing.assert_array_equal(drawn[scale], np.full(384, 1e-5, np.float32))
