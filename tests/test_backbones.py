"""Each row of BACKBONES says of its network what is so, which computes what timm's does."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core
from jax.interpreters import partial_eval

from fgc_jax import models, trees
from fgc_jax.models import backbone, conv
from fgc_jax.models.backbones import convnext_table, swin_table, vgg, vit
from tests import networks, seeded

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SIZE = (192, 128)
SWIN = "swin_tiny_patch4_window7_224"


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
    SWIN,
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


# Network, map, a size of images that fits, one that does not, and what is said of it.
REFUSED = [
    ("vit_tiny_patch16_224", "", (32, 48), (32, 36), "32 x 36 pixels: .* multiples.*patch, 16"),
    (SWIN, "", (64, 64), (64, 66), "64 x 66 .* multiples .*patch, 4"),
    ("convnextv2_atto", "", (32, 40), (40, 31), "at least 32 x 32 pixels, not 40 x 31"),
    ("convnextv2_atto", "stage2", (8, 40), (40, 7), "at least 8 x 8 pixels, not 40 x 7"),
    ("convnextv2_atto", "stem", (4, 40), (40, 3), "at least 4 x 4 pixels, not 40 x 3"),
    ("resnetaa50d", "", (64, 96), (64, 72), "multiples of 32, not 64x72"),
    ("inception_v3", "", (75, 75), (96, 74), "at least 75x75 pixels, not 96x74"),
]


@pytest.mark.parametrize(("name", "feature_map", "good", "bad", "message"), REFUSED)
def test_sizes_that_do_not_fit_are_refused(name, feature_map, good, bad, message):
    config = seeded.config(name, feature_map=feature_map)
    logits, _ = networks.shapes(config, 10, *good)
    assert logits.shape == (2, 10)
    with pytest.raises(ValueError, match=message):
        networks.shapes(config, 10, *bad)


# Network, map, the last of the parameters that it needs, and one of those behind it.
BEHIND = [
    ("resnet18", "stem", "bn1/scale", "layer1/0/conv1/kernel"),
    ("resnet18", "stage2", "layer2/1/bn2/scale", "layer3/0/conv1/kernel"),
    ("resnetv2_50", "stage1", "stages/0/blocks/2/conv3/kernel", "stages/1/blocks/0/conv1/kernel"),
    ("resnetv2_50", "stage4", "stages/3/blocks/2/conv3/kernel", "norm/scale"),
    ("inception_v3", "stem", "Conv2d_2b_3x3/conv/kernel", "Conv2d_3b_1x1/conv/kernel"),
    ("inception_v3", "stage2", "Mixed_5d/branch_pool/bn/scale", "Mixed_6a/branch3x3/bn/scale"),
    ("vit_tiny_patch16_224", "block1", "blocks/0/mlp/fc2/kernel", "blocks/1/norm1/scale"),
    ("vit_tiny_patch16_224", "block11", "blocks/10/mlp/fc2/kernel", "norm/scale"),
    ("vit_small_patch16_dinov3", "block1", "blocks/0/mlp/fc2/kernel", "blocks/1/norm1/scale"),
    ("vit_small_patch16_dinov3", "block11", "blocks/10/mlp/fc2/kernel", "norm/scale"),
    ("convnext_tiny", "stage2", "stages/1/blocks/2/gamma", "stages/2/downsample/0/scale"),
    ("convnext_tiny", "features", "stages/3/blocks/2/gamma", "head/norm/scale"),
    (SWIN, "stem", "patch_embed/norm/scale", "layers/0/blocks/0/norm1/scale"),
    (SWIN, "stage2", "layers/1/blocks/1/norm1/scale", "layers/2/blocks/0/norm1/scale"),
    (SWIN, "stage4", "layers/3/blocks/1/norm1/scale", "norm/scale"),
]


@pytest.mark.parametrize(("name", "feature_map", "last", "behind"), BEHIND)
def test_what_lies_behind_a_map_is_not_built(name, feature_map, last, behind):
    whole, part = (
        trees.flatten(models.split(models.abstract(config, 10))[0])
        for config in (seeded.config(name), seeded.config(name, feature_map=feature_map))
    )
    assert f"backbone/{last}" in part
    assert f"backbone/{behind}" in whole.keys() - part.keys()


GOLDEN = {
    "resnet18": ("64x64", "75x61"),
    "resnet34": ("75x61",),
    "resnet50": ("64x64", "75x61"),
    "resnext50_32x4d": ("75x61",),
    "resnet18d": ("64x64", "75x61"),
    "resnetaa50d": ("96x64",),
    "resnetv2_50": ("64x64", "75x61"),
    "resnetv2_50x1_bit": ("64x64", "75x61"),
    "vgg11": ("64x64", "75x61"),
    "vgg13_bn": ("64x64", "75x61"),
    "inception_v3": ("75x75", "107x91"),
    "tf_efficientnet_lite0": ("64x64", "75x61"),
    "efficientnet_b0": ("64x64", "75x61"),
    "tf_efficientnetv2_s": ("75x61",),
    "vit_tiny_patch16_224": ("64x64", "96x80"),
    "vit_small_patch14_reg4_dinov2": ("56x56", "84x70"),
    "vit_small_patch16_dinov3": ("64x64", "96x80"),
    "convnextv2_atto": ("64x64", "75x61"),
    "convnext_tiny": ("75x61",),
    SWIN: ("64x64", "96x64"),
}


@pytest.mark.parametrize(("name", "size"), [(name, x) for name in GOLDEN for x in GOLDEN[name]])
def test_forward_equals_timms(name, size):
    """With the file that scripts/make_golden.py wrote, of every eighth channel's mean."""
    stored = np.load(networks.GOLDEN / f"{name}.npz")
    # VGG's own head is too large for these tests: see test_heads.py.
    own_head = not name.startswith("vgg")
    run = networks.forward(name, 40, **({} if own_head else {"head": "gap"}))
    logits, out = run(seeded.images(2, *map(int, size.split("x"))))
    features = np.asarray(out["features"])
    assert features.shape[1:3] == tuple(stored[f"grid_{size}"])
    means = features.mean((1, 2))[:, ::8]
    assert networks.relative(means, stored[f"features_{size}"]) < 1e-4
    assert not own_head or networks.relative(logits, stored[f"logits_{size}"]) < 1e-4


# The standard deviation of new weights; [x]: all of them are x.
PATCH14, PATCH4 = (3 * 14**2) ** -0.5 / 3**0.5, 48**-0.5 / 3**0.5
LATE = 0.02 / math.sqrt(2 * 12)
STARTS = {
    "resnet50": {
        "layer4/1/conv2/kernel": (2 / (9 * 512)) ** 0.5,
        "layer4/1/bn3/scale": [0],
        "layer4/1/bn2/scale": [1],
        "layer4/0/downsample/1/scale": [1],
    },
    # The fan of all output channels.
    "resnext50_32x4d": {"layer4/1/conv2/kernel": (2 / (9 * 1024)) ** 0.5},
    "inception_v3": {"Mixed_6b/branch7x7_2/conv/kernel": 0.1},
    "vit_small_patch14_reg4_dinov2": {
        "blocks/11/attn/qkv/kernel": 0.02,
        "blocks/11/mlp/fc2/kernel": 0.02,
        "pos_embed": 0.02,
        "cls_token": 1e-6,
        "reg_token": 1e-6,
        "patch_embed/proj/kernel": PATCH14,
        "patch_embed/proj/bias": PATCH14,
        "blocks/11/ls2/gamma": [1e-5],
    },
    "vit_small_patch16_dinov3": {
        "blocks/11/attn/qkv/kernel": 0.02,
        "blocks/11/attn/proj/kernel": LATE,
        "blocks/11/mlp/fc1/kernel": 0.02,
        "blocks/11/mlp/fc2/kernel": LATE,
        "cls_token": 0.02,
        "reg_token": 0.02,
        "blocks/11/gamma_2": [1e-5],
    },
    "convnext_tiny": {
        "stages/3/blocks/1/conv_dw/kernel": 0.02,
        "stages/3/blocks/1/mlp/fc1/kernel": 0.02,
        "stages/3/downsample/1/kernel": 0.02,
        "stages/3/blocks/1/gamma": [1e-6],
    },
    "convnextv2_atto": {
        "stages/3/blocks/1/mlp/grn/scale": [0],
        "stages/3/blocks/1/mlp/grn/bias": [0],
    },
    SWIN: {
        "layers/3/blocks/1/attn/qkv/kernel": 0.02,
        "layers/3/downsample/reduction/kernel": 0.02,
        "layers/3/blocks/1/attn/relative_position_bias_table": 0.02,
        "patch_embed/proj/kernel": PATCH4,
        "patch_embed/proj/bias": PATCH4,
    },
}


@pytest.mark.parametrize("name", STARTS)
def test_weights_start_as_timms_do(name):
    starts = {f"backbone/{path}": value for path, value in STARTS[name].items()}
    drawn = models.random_weights(seeded.config(name), 10, seed=0, paths=set(starts))
    for path, start in starts.items():
        size = drawn[path].size
        if isinstance(start, list):
            assert (drawn[path] == np.float32(start)).all(), path
            continue
        tolerance = 0.01 if size > 100_000 else 0.03 if size > 2000 else 0.15
        np.testing.assert_allclose(drawn[path].std(), start, rtol=tolerance, err_msg=path)


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
