"""What holds of every head: float32 inside, finite numbers alone, maps that it can read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import models
from tests.test_heads import maps

pytestmark = pytest.mark.usefixtures("compiled_quickly")

ONE, TWO = ((7, 7, 4),), ((7, 7, 4), (7, 7, 6))
FINE_TO_COARSE = ((6, 4, 3), (3, 2, 5), (2, 1, 4))
PYRAMID = {"width": 8, "selects": (7, 3, 2), "tokens_per_joint": 4}
TOKENS = ((3, 3, 4), (1, 1, 4))
# Name, options, and the maps of an image [h, w, C]; those of its crop, too, for GLSim.
HEADS = (
    ("gap", {"pool": "avgmax", "mlp": True, "hidden": 6}, ONE),
    ("vgg_fc", {"hidden": 8}, ONE),
    ("bilinear", {}, ONE),
    ("bilinear", {"projection": 2}, TWO),
    ("bilinear", {"root_iterations": 5}, ONE),
    ("compact_bilinear", {"dimension": 11}, ONE),
    ("isqrt_cov", {"dimension": 5}, ONE),
    ("low_rank_bilinear", {"dimension": 5, "rank": 4}, ONE),
    ("attention_pooling", {"maps": 3}, ONE),
    ("api_net", {"hidden": 4}, ONE),
    ("pim", PYRAMID, FINE_TO_COARSE),
    ("herbs", PYRAMID, FINE_TO_COARSE),
    ("pmg", {"hidden": 4, "width": 7}, FINE_TO_COARSE),
    ("dcl", {}, ONE),
    ("cross_x", {"reduction": 3}, FINE_TO_COARSE[:2]),
    ("glsim", {"top": 2}, (*TOKENS, *TOKENS)),
)


TROUBLES = (
    jnp.zeros_like,
    jnp.ones_like,
    lambda x: 1e-20 * x,
    lambda x: 1e6 * x,
    lambda x: x.at[..., 1:].set(0.0),
)


def make(name, options, shapes):
    channels = tuple(shape[-1] for shape in shapes[: 2 if name == "glsim" else None])
    return models.HEADS[name](channels, 3, rngs=nnx.Rngs(0), **options)


def outputs(head, maps):
    """Logits and what is named beside them, in training."""
    return head(maps, rngs=nnx.Rngs(dropout=0))


def test_no_head_is_forgotten():
    assert {name for name, _, _ in HEADS} == set(models.HEADS)


@pytest.mark.parametrize(("name", "options", "shapes"), HEADS)
def test_it_computes_in_float32(name, options, shapes):
    half = tuple(maps(*shape).astype(jnp.bfloat16) for shape in shapes)
    logits, named = outputs(make(name, options, shapes), half)
    assert logits.shape == (2, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, named))} == {jnp.dtype("float32")}
    exact, _ = outputs(make(name, options, shapes), tuple(x.astype(jnp.float32) for x in half))
    np.testing.assert_array_equal(logits, exact)


@pytest.mark.parametrize(("name", "options", "shapes"), HEADS)
def test_nothing_but_finite_numbers_leaves_it(name, options, shapes):
    """Values and gradients, of maps and weights, in training."""
    graphdef, weights, rest = nnx.split(make(name, options, shapes), nnx.Param, ...)

    @jax.jit
    @jax.value_and_grad
    def total(weights_and_maps):
        weights, given = weights_and_maps
        logits, named = outputs(nnx.merge(graphdef, weights, rest, copy=True), given)
        return jax.nn.log_softmax(logits)[:, 0].sum() + sum(
            jnp.sin(x).sum() for x in named.values()
        )

    normal = tuple(maps(*shape) for shape in shapes)
    for change in TROUBLES:
        found = total((weights, jax.tree.map(change, normal)))
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize(
    ("name", "channels", "options", "message"),
    [
        ("gap", (4, 4), {}, "'gap' reads one feature map, not 2"),
        ("vgg_fc", (4, 4), {}, "'vgg_fc' reads one feature map"),
        ("bilinear", (4, 4, 4), {}, "takes one or two feature maps"),
        ("bilinear", (4, 4), {"root_iterations": 1}, "have no square root"),
        ("compact_bilinear", (4, 4, 4), {}, "takes one or two feature maps"),
        ("isqrt_cov", (4, 4), {}, "'isqrt_cov' reads one feature map"),
        ("low_rank_bilinear", (4, 4), {}, "reads one feature map"),
        ("attention_pooling", (4, 4), {}, "reads one feature map"),
        ("dcl", (6, 6), {}, "'dcl' reads one feature map, not 2"),
        ("cross_x", (6,), {}, "takes two maps .* such as 'stage3.features', not 1"),
        ("pim", (3,), {"selects": (1,)}, "a pyramid needs several feature maps"),
        ("pim", (3, 4), {}, r"selects=\(2048, 512, 128, 32\) must be .* each of the 2 feature"),
        ("glsim", (4,), {}, "feature_map='features.pooled'"),
        ("glsim", (4, 6), {}, "feature_map='features.pooled'"),
    ],
)
def test_maps_that_it_cannot_read_are_refused(name, channels, options, message):
    with pytest.raises(ValueError, match=message):
        models.HEADS[name](channels, 3, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("name", ["bilinear", "compact_bilinear"])
def test_streams_of_different_grids_are_refused(name):
    head = models.HEADS[name]((4, 4), 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(3, 4\)"):
        head((maps(3, 5, 4), maps(3, 4, 4)))
