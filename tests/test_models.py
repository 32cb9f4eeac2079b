import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import models, trees
from fgc_jax.config import ModelSettings, defaults, read
from fgc_jax.models.heads import basic
from tests import networks, seeded
from tests.small_networks import SMALL

pytestmark = pytest.mark.usefixtures("compiled_quickly")

OPTIONS = {
    "gap": {},
    "bilinear": {"projection": 8},
    "vgg_fc": {"hidden": 8},
    "compact_bilinear": {"dimension": 16},
    "isqrt_cov": {"dimension": 8},
    "low_rank_bilinear": {"dimension": 8, "rank": 2},
    "api_net": {"hidden": 8},
    "pmg": {"hidden": 8, "width": 8},
    "dcl": {},
}


@pytest.fixture
def small(monkeypatch):
    for name, row in SMALL.items():
        monkeypatch.setitem(models.BACKBONES, name, row)


def seeded_trees(config, num_classes):
    """(abstract model, params, stats): seeded, since a new residual branch is zero."""
    model = models.abstract(config, num_classes)

    def fill(tree):
        flat = trees.flatten(tree)
        keys = {"kernel": "weight", "scale": "weight", "var": "running_var"}
        values = {}
        for path, leaf in flat.items():
            name = path.rpartition("/")[2]
            key = path.removesuffix(name) + keys.get(name, name)
            # Fan in is the product of all axes but the first in a PyTorch shape.
            shape = leaf.shape if leaf.ndim < 2 else (leaf.shape[-1], *leaf.shape[:-1])
            value = seeded.value(key, shape)
            values[path] = jnp.asarray(np.moveaxis(value, 0, -1) if leaf.ndim > 1 else value)
        return trees.unflatten(values)

    return model, *map(fill, models.split(model))


# A head reads maps and asks for nothing else of a family: the oldest with all, the others with two.
SHAPES = [(name, head) for name in SMALL for head in ("gap", "bilinear", "vgg_fc")]
SHAPES += [(name, head) for name in ("basic", "vit") for head in list(OPTIONS)[3:]]
# A head's gradient does not depend on the family: every one once, and the general one for all.
PAIRS = [(name, "gap") for name in SMALL]
PAIRS += [("basic", "bilinear"), ("vit", "bilinear"), ("vgg", "vgg_fc")]


@pytest.mark.parametrize(("name", "head"), SHAPES)
def test_every_family_with_every_head_gives_float32_logits(small, name, head):
    config = seeded.config(name, head=head, head_options=OPTIONS[head], dtype="bfloat16")
    logits, _ = networks.shapes(config, 5, 96, 96)
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_every_parameter_has_a_gradient_and_all_is_finite(small, name, head):
    config = seeded.config(name, head=head, head_options=OPTIONS[head])
    model, params, stats = seeded_trees(config, 5)
    graphdef = models.evaluation_graphdef(model)
    size = 107 if name == "inception" else 64
    images = jnp.asarray(seeded.images(2, size, size))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        logits, out = nnx.merge(graphdef, params, stats)(images)
        return jax.nn.log_softmax(logits)[:, 0].sum(), (logits, out)

    (_, (logits, out)), gradients = loss(params)
    assert logits.shape == (2, 5)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((logits, out, gradients)))
    without = [path for path, g in trees.flatten(gradients).items() if not (g != 0).any()]
    assert not without


@pytest.mark.parametrize("name", ["basic", "resnext", "vgg_bn", "lite"])
def test_every_statistic_moves_in_training_and_none_in_evaluation(small, name):
    config = seeded.config(name, head="gap", head_options={"mlp": True, "hidden": 8})
    model, params, stats = seeded_trees(config, 5)
    train = nnx.graphdef(nnx.view(model, use_running_average=False, deterministic=True))

    @functools.partial(jax.jit, static_argnums=0)
    def new_stats(graphdef):
        live = nnx.merge(graphdef, params, stats, copy=True)
        live(jnp.asarray(seeded.images(4, 64, 64)))
        return models.split(live)[1]

    old = trees.flatten(stats)
    moved = trees.flatten(new_stats(train))
    assert old.keys() == moved.keys()
    assert not [path for path in old if (old[path] == moved[path]).any()]
    kept = trees.flatten(new_stats(models.evaluation_graphdef(model)))
    assert all((old[path] == kept[path]).all() for path in old)


class Reader(basic.Gap):
    """Averages of the first map that it reads, and the shapes of all."""

    def __init__(self, channels, num_classes, *, rngs):
        super().__init__(channels[:1], num_classes, rngs=rngs)
        self.channels = channels

    def __call__(self, maps, *, rngs=None):
        logits, _ = super().__call__(maps[:1], rngs=rngs)
        return logits, {"channels": jnp.array(self.channels), "first": maps[0]}


def test_a_head_may_read_several_maps_and_name_arrays(monkeypatch):
    monkeypatch.setitem(models.HEADS, "reader", Reader)
    config = seeded.config("resnet18", head="reader", feature_map="stage1+features")
    assert models.abstract(config, 5).head.channels == (64, 512)
    _, out = networks.shapes(config, 5, 64, 64)
    assert out["head/first"].shape == out["stage1"].shape == (2, 16, 16, 64)
    assert list(models.layer_prefixes(config))[-1] == "layer4/1"


def two_streams(first, second, **changes):
    return seeded.config(first, backbone_b=second, head="bilinear", **changes)


def test_two_streams_see_pixels_normalised_for_each():
    config = two_streams("tf_efficientnet_lite0", "resnet18", feature_map="stem")
    model, params, stats = seeded_trees(config, 5)
    pixels = (seeded.images(1, 32, 32) + 3) / 6
    first, second = (models.BACKBONES[n].weights for n in (config.backbone, config.backbone_b))
    normal = [
        ((pixels - np.float32(f.mean)) / np.float32(f.std)).astype(np.float32)
        for f in (next(iter(first.values())), next(iter(second.values())))
    ]
    graphdef = models.evaluation_graphdef(model)
    _, out = models.forward(graphdef, params, stats, normal[0])
    assert set(out) == {"stem", "b/stem"}
    alone = seeded.config("resnet18", feature_map="stem")
    graphdef = models.evaluation_graphdef(models.abstract(alone, 5))
    fc = {"kernel": jnp.zeros((64, 5)), "bias": jnp.zeros(5)}
    single = {"backbone": params["backbone_b"], "head": {"fc": fc}}
    maps = models.forward(graphdef, single, {"backbone": stats["backbone_b"]}, normal[1])[1]
    networks.assert_near(out["b/stem"], maps["stem"])


def test_layers_of_two_streams_are_paired_from_the_output():
    same = models.layer_prefixes(two_streams("vgg16", "vgg16"))
    assert list(same)[-1] == "features/28"
    assert same["features/28"] == ("backbone/features/28", "backbone_b/features/28")
    mixed = models.layer_prefixes(two_streams("resnet18", "resnet34"))
    assert len(mixed) == 1 + 16
    assert list(mixed)[0] == "stem"
    assert mixed["stem"] == ("backbone_b/conv1", "backbone_b/bn1")
    assert list(mixed)[-1] == "layer4/1+layer4/2"
    assert mixed["layer4/1+layer4/2"] == ("backbone/layer4/1", "backbone_b/layer4/2")


def test_a_name_of_both_streams_at_different_depths_keeps_both():
    config = two_streams("resnet18", "resnet50", head_options={"projection": 8})
    prefixes = [p for paths in models.layer_prefixes(config).values() for p in paths]
    params, _ = models.split(models.abstract(config, 2))
    uncovered = [
        path
        for path in trees.flatten(params)
        if not path.startswith("head/") and not any(trees.is_under(path, p) for p in prefixes)
    ]
    assert not uncovered


STREAMS = {"backbone_b": "vgg16", "head": "bilinear"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet51"}, "unknown backbone 'resnet51'; similar: 'resnet5"),
        ({"backbone_b": "x", "head": "bilinear"}, "unknown backbone 'x'"),
        ({"head": "transformer"}, "unknown head 'transformer'; allowed: 'gap', "),
        ({"head_options": {"drop": 0.5}}, "drop is unknown: did you mean 'dropout'.*'pool'"),
        ({"feature_map": "layer4"}, "unknown feature map of resnet18 'layer4'; allowed: 'stem'"),
        ({"feature_map": "stage1+stage9"}, "unknown feature map of resnet18 'stage9'"),
        ({"feature_map": "stage1+stage1"}, "feature_map='stage1.stage1' must be different"),
        ({"feature_map": "stage1+features"}, "'gap' reads one feature map, not 2"),
        ({"backbone_options": {"last_stride": 3}}, "backbone_options.last_stride=3 must be 1 or 2"),
        ({"backbone_options": {"patch": 8}}, "backbone_options.patch is unknown.*'last_stride'"),
        (
            {"backbone_options": {"last_stride": 1}, "feature_map": "stage3"},
            "'last_stride': 1. has no effect on .*feature_map='stage3', only on .*'features', 'st",
        ),
        ({"dtype": "float16"}, "dtype='float16' must be 'float32' or 'bfloat16'"),
        ({"weights_tag": "in22k"}, "unknown weights_tag of resnet18 'in22k'; allowed: 'a1_in1k'"),
        ({"num_classes": 1}, "at least two classes, not 1"),
        (STREAMS | {"feature_map": "stage4"}, "stride 32 in resnet18 and 8 in vgg16"),
    ],
)
def test_wrong_configs_are_refused(changes, message):
    changes = {"backbone": "resnet18", "head": "gap", **changes}
    num_classes = changes.pop("num_classes", 5)
    with pytest.raises(ValueError, match=message):
        config = read(ModelSettings, {**defaults(ModelSettings), **changes}, "config.model")
        models.abstract(config, num_classes)
        models.preprocess(config)


def test_random_weights_do_not_depend_on_which_are_asked_for(small):
    config = seeded.config("lite")
    whole = models.random_weights(config, 5, seed=3)
    some = sorted(whole)[::7]
    part = models.random_weights(config, 5, seed=3, paths=some)
    assert sorted(part) == some
    for path in some:
        np.testing.assert_allclose(part[path], whole[path], rtol=1e-6)
    kernel = "backbone/conv_stem/kernel"
    other = models.random_weights(config, 5, seed=4, paths=[kernel])[kernel]
    assert not np.array_equal(other, whole[kernel])


def test_rows_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        models.BACKBONES["resnet18"].parameters = 0
