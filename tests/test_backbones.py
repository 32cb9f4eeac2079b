"""Each row of BACKBONES says of its network what is so."""

import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.extend import core
from jax.interpreters import partial_eval

from fgc_jax import models, trees
from fgc_jax.models import backbone, conv
from fgc_jax.models.backbones import convnext_table, swin_table, vgg, vit
from tests import seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SIZE = (192, 128)


def multiply_adds(jaxpr) -> int:
    """Of its matrix products and convolutions, in inner programs too."""
    total = 0
    for equation in jaxpr.eqns:
        shapes = [variable.aval.shape for variable in equation.invars]
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            each = math.prod(shapes[0][axis] for axis in contracted)
            total += math.prod(equation.outvars[0].aval.shape) * each
        elif equation.primitive.name == "conv_general_dilated":
            total += math.prod(equation.outvars[0].aval.shape) * math.prod(shapes[1][:3])
        total += sum(map(multiply_adds, core.jaxprs_in_params(equation.params)))
    return total


def test_multiply_adds_are_counted():
    def program(x, kernel):
        with conv.plain():
            y = conv.conv2d(x, kernel, padding=1, groups=2)
        return jax.jit(lambda y: y.reshape(-1, 6) @ jnp.ones((6, 5)))(y)

    jaxpr = jax.make_jaxpr(program)(jnp.ones((1, 4, 4, 8)), jnp.ones((3, 3, 4, 6)))
    assert multiply_adds(jaxpr.jaxpr) == 16 * 9 * 4 * 6 + 16 * 6 * 5


def traced(model, height, width):
    """(program, (logits, maps)) of one image's forward pass: shapes only."""
    params, stats = models.split(model)
    graphdef = models.evaluation_graphdef(model)

    def forward(params, stats, images):
        return models.apply(graphdef, params, stats, lambda live: live(images))[0]

    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    with conv.plain():
        return jax.make_jaxpr(forward, return_shape=True)(params, stats, image)


@pytest.mark.parametrize("name", models.BACKBONES)
def test_a_row_says_what_its_network_is(name):
    row = models.BACKBONES[name]
    classes = 1000 if not row.weights else next(iter(row.weights.values())).classes
    model = models.abstract(seeded.config(name, dtype="bfloat16"), classes or 1000)
    params, stats = models.split(model)
    counted = params if classes else params["backbone"]
    assert trees.count(counted) == row.parameters
    leaves = jax.tree.leaves((params, stats))
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    assert len(jax.tree.leaves(nnx.state(model))) == len(leaves), "something else is in the state"
    last = "pooled" if "pooled" in row.channels else "features"
    assert not uncovered(params, seeded.config(name, feature_map=last))


# One of each family.
FAMILIES = (
    "resnet18d",
    "resnetv2_50x1_bit",
    "vgg11_bn",
    "inception_v3",
    "tf_efficientnet_lite0",
    "vit_tiny_patch16_224",
    "vit_small_patch16_dinov3",
    "convnextv2_atto",
    "swin_tiny_patch4_window7_224",
)
# Larger ones take long to trace; they are more of the same blocks.
TRACED = [
    name for name, row in models.BACKBONES.items() if row.parameters < 8e6 or name in FAMILIES
]


@pytest.mark.parametrize("name", TRACED)
def test_a_row_says_what_its_network_computes(name):
    row = models.BACKBONES[name]
    classes = 1000 if not row.weights else next(iter(row.weights.values())).classes
    model = models.abstract(seeded.config(name, dtype="bfloat16"), classes or 1000)
    if row.weights:
        size = next(iter(row.weights.values())).size
        program, (logits, out) = traced(model, size, size)
        # Attention maps that nobody reads cost nothing, once compiled.
        read = [leaf is logits for leaf in jax.tree.leaves((logits, out))]
        program, _ = partial_eval.dce_jaxpr(program.jaxpr, read)
        assert multiply_adds(program) / 1e9 == pytest.approx(row.gflops, rel=0.02)

    fits = {}
    if "patch14" in name:
        fits = {"height": 14 * 12, "width": 14 * 8}
    height, width = fits.get("height", SIZE[0]), fits.get("width", SIZE[1])
    _, (logits, out) = traced(model, height, width)
    assert (logits.shape, logits.dtype) == ((1, classes or 1000), jnp.float32)
    maps = {key: x for key, x in out.items() if not key.startswith(models.ATTENTION)}
    assert set(maps) == set(row.channels) == set(row.strides) == set(row.depths)
    for key, x in maps.items():
        stride = row.strides[key]
        grid = (height // stride, width // stride) if stride else (1, 1)
        if name.startswith("inception"):
            grid = x.shape[1:3]  # Smaller, since few convolutions are padded: test_inception.py.
        assert x.dtype == jnp.bfloat16
        assert x.shape == (1, *grid, row.channels[key]), key


def uncovered(params, config):
    """Problems of the ordered layers: a parameter in none or two, or a layer without any."""
    paths = trees.flatten(params)
    prefixes = [p for layer in models.layer_prefixes(config).values() for p in layer]
    hits = {path: sum(trees.is_under(path, prefix) for prefix in prefixes) for path in paths}
    wrong = [path for path, n in hits.items() if n != path.startswith("backbone/")]
    layers = models.layer_prefixes(config).items()
    empty = [
        name
        for name, under in layers
        if not any(trees.is_under(path, prefix) for path in paths for prefix in under)
    ]
    return wrong + empty


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_behind_the_last_map_are_neither_built_nor_listed(name):
    for feature_map in models.BACKBONES[name].channels:
        config = seeded.config(name, head="gap", feature_map=feature_map)
        params, _ = models.split(models.abstract(config, 2))
        assert not uncovered(params, config), feature_map


STORED = {"x": backbone.timm_facts(size=64)}
DEEP = {
    "deep_vgg": vgg.row((2, 2, 4, 4, 4), False),
    "deep_vit": vit.vit((48, 8, 2), 16, weights=STORED, parameters=0),
    "deep_convnext": convnext_table.row((4, 1, 1, 1), 32),
    "deep_swin": swin_table.row(32, (6, 1, 1, 1), 4),
}


@pytest.mark.parametrize("name", DEEP)
def test_remat_saves_memory(name, monkeypatch):
    """Of a compiled gradient for 8 images, beside arguments and results."""
    monkeypatch.setitem(models.BACKBONES, name, DEEP[name])

    def temporary_bytes(remat):
        config = seeded.config(name, head="gap", remat=remat)
        model = models.abstract(config, 5)
        graphdef = models.evaluation_graphdef(model)

        def loss(params, stats, images):
            return models.apply(graphdef, params, stats, lambda live: live(images)[0])[0].sum()

        images = jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.float32)
        program = jax.jit(jax.grad(loss)).lower(*models.split(model), images).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(True) < 0.8 * temporary_bytes(False)
