"""TransFG: overlapping patches, the choice of parts, and its loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from fgc_jax import methods, models, trees
from fgc_jax.methods import transfg
from fgc_jax.models import backbone, parts, position
from fgc_jax.models.backbones import vit
from tests import networks, seeded, slopes, test_losses

FACTS = dataclasses.replace(test_losses.FACTS, shapes=({"pooled": (1, 1, 24)},))
SIZE = 20  # Grids of 4 x 4 patches of 8 pixels, every 4.
OPTIONS = {"patch_stride": 4, "part_selection": True}


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    stored = {"y": backbone.timm_facts(size=32)}
    deep = vit.vit((24, 3, 2), 8, weights=stored, parameters=0)
    monkeypatch.setitem(models.BACKBONES, "deep", deep)
    options = {"registers": 2, "embed_prefix": False, "weights": stored, "parameters": 0}
    monkeypatch.setitem(models.BACKBONES, "registers", vit.vit((24, 3, 2), 8, **options))


def test_overlapping_patches_are_those_of_an_unfold():
    config, params, stats = seeded.trees("deep", 5, backbone_options={"patch_stride": 4})
    model = models.abstract(config, 5)
    graphdef = models.evaluation_graphdef(model)
    images = seeded.images(2, SIZE, SIZE + 8)
    embed = lambda live: live.backbone.patch_embed(jnp.asarray(images))  # noqa: E731
    found, _ = models.apply(graphdef, params, stats, embed)
    proj = params["backbone"]["patch_embed"]["proj"]
    expected = np.zeros((2, 4, 6, 24))
    for row in range(4):
        for column in range(6):
            square = images[:, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8]
            flat = square.reshape(2, -1).astype(np.float64)
            expected[:, row, column] = flat @ proj["kernel"].reshape(-1, 24) + proj["bias"]
    networks.assert_near(found, expected)


def test_positions_are_resampled_to_the_overlapping_grid(monkeypatch):
    grids = []
    resample = position.resample

    def noted(table, old, new, *, prefix):
        grids.append((old, new))
        return resample(table, old, new, prefix=prefix)

    monkeypatch.setattr(position, "resample", noted)
    run = networks.forward("deep", 5, backbone_options={"patch_stride": 4})
    _, out = run(seeded.images(1, SIZE, SIZE))
    assert grids == [((4, 4), (4, 4))]
    assert out["features"].shape == (1, 4, 4, 24)
    run(seeded.images(1, 32, 40))
    assert grids[-1] == ((4, 4), (7, 9))


def test_sizes_at_which_patches_do_not_end_with_the_image_are_refused():
    run = networks.forward("deep", 5, backbone_options={"patch_stride": 4})
    with pytest.raises(ValueError, match="22 x 20 pixels.* 8 plus a multiple of patch_stride=4"):
        run(seeded.images(1, 22, 20))
    with pytest.raises(ValueError, match="4 x 20 pixels"):
        run(seeded.images(1, 4, 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_stride": 8}, "patch_stride=8 must be below the patch, 8"),
        ({"patch_stride": 0}, "patch_stride=0"),
        ({"patch_stride": True}, "patch_stride=True"),
        ({"part_selection": 1}, "part_selection=1 must be True or False"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        models.abstract(seeded.config("deep", backbone_options=options), 5)


def test_options_change_no_parameter_and_leave_the_class_token_alone():
    def shapes(**changes):
        params, _ = models.split(models.abstract(seeded.config("deep", **changes), 5))
        return {path: leaf.shape for path, leaf in trees.flatten(params).items()}

    assert shapes() == shapes(backbone_options=OPTIONS)
    with pytest.raises(ValueError, match="unknown feature map of deep 'features'"):
        models.abstract(seeded.config("deep", backbone_options=OPTIONS, feature_map="features"), 5)


def numpy_block(params, x, heads=2):
    """(tokens behind a block, its attention) in float64, after the paper's formulas."""

    def norm(v, p):
        centred = v - v.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * p["scale"] + p["bias"]

    def linear(v, p):
        return v @ np.float64(p["kernel"]) + p["bias"]

    b, t, c = x.shape
    qkv = linear(norm(x, params["norm1"]), params["attn"]["qkv"])
    q, k, v = qkv.reshape(b, t, 3, heads, c // heads).transpose(2, 0, 3, 1, 4)
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(c // heads)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    y = (weights @ v).transpose(0, 2, 1, 3).reshape(b, t, c)
    x = x + linear(y, params["attn"]["proj"])
    hidden = linear(norm(x, params["norm2"]), params["mlp"]["fc1"])
    hidden = 0.5 * hidden * (1 + special.erf(hidden / np.sqrt(2)))
    return x + linear(hidden, params["mlp"]["fc2"]), weights


@pytest.mark.parametrize(("name", "prefix"), [("deep", 1), ("registers", 3)])
def test_the_last_block_sees_the_parts_that_the_product_of_attentions_chooses(name, prefix):
    """Against all matrices multiplied, and the tokens taken one by one."""
    images = seeded.images(2, SIZE, SIZE, seed=2)
    config, params, stats = seeded.trees(name, 5, backbone_options=OPTIONS)
    if name == "registers":  # So large that a head would choose one, if it might.
        params["backbone"]["reg_token"] *= 8
    graphdef = models.evaluation_graphdef(models.abstract(config, 5))
    logits, out = models.forward(graphdef, params, stats, images)

    whole = seeded.config(name, backbone_options={"patch_stride": 4}, feature_map="features")
    graphdef = models.evaluation_graphdef(models.abstract(whole, 5))
    first = models.maps_named(graphdef, "attention/", params, stats, images)["attention/0"]

    def tokens(live):
        kept = []
        live.backbone.blocks[0].attention = lambda x: kept.append(x) or jnp.zeros(())
        live(jnp.asarray(images))
        return kept[0]

    x, _ = models.apply(graphdef, params, stats, tokens)
    blocks = params["backbone"]["blocks"]
    x = np.asarray(x, np.float64)
    product = np.eye(x.shape[1])[None, None]
    for index in ("0", "1"):
        x, weights = numpy_block(blocks[index], x)
        if index == "0":
            networks.assert_near(first, weights)
        product = weights @ product
    assert (product[:, :, 0, 1:].argmax(-1) < prefix - 1).any() == (name == "registers")
    scores = product[:, :, 0, prefix:]
    chosen = scores.argmax(-1)
    places = np.concatenate([np.zeros((2, 1), int), prefix + chosen], 1)
    taken = np.stack([tokens[at] for tokens, at in zip(x, places, strict=True)])
    x, _ = numpy_block(blocks["2"], taken)
    token = x[:, 0]
    norm, fc = params["backbone"]["norm"], params["head"]["fc"]
    token = (token - token.mean(-1, keepdims=True)) / np.sqrt(
        token.var(-1, keepdims=True) + 1e-6
    ) * norm["scale"] + norm["bias"]
    assert "features" not in out
    shown = np.asarray(out["part_attention"]).reshape(2, 16, 2).transpose(0, 2, 1)
    networks.assert_near(shown, scores)
    networks.assert_near(out["pooled"][:, 0, 0], token)
    networks.assert_near(logits, token @ fc["kernel"] + fc["bias"])


def test_two_heads_may_choose_one_token_and_its_gradient_counts_twice():
    tokens = jnp.asarray(seeded.value("tokens", (1, 4, 3)))
    scores = jnp.array([[[0.1, 0.9, 0.0], [0.2, 0.3, 0.1], [0.5, 0.1, 0.4]]])
    chosen, pull = jax.vjp(lambda x: parts.choose(x, scores), tokens)
    np.testing.assert_array_equal(chosen[0], tokens[0, np.array([0, 2, 2, 1])])
    (gradient,) = pull(jnp.ones_like(chosen))
    np.testing.assert_array_equal(gradient[0, :, 0], [1, 1, 2, 0])


def contrast_by_hand(vectors, labels, mask, margin):
    total, count = 0.0, 0
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors):
            if mask[i] and mask[j]:
                count += 1
                lengths = np.linalg.norm(one) * np.linalg.norm(other)
                cosine = one @ other / lengths if lengths else 0.0
                if i != j:
                    same = labels[i] == labels[j]
                    total += 1 - cosine if same else max(0.0, cosine - margin)
    return total / count


def test_contrast_is_the_mean_over_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.normal(0.7, 1, (6, 5))
    vectors[4] = 0
    labels, mask = np.array([0, 1, 0, 2, 2, 1]), np.array([1, 1, 1, 1, 1, 0])
    for margin in (0.4, -0.2):
        found = transfg.contrast(jnp.float32(vectors), jnp.array(labels), jnp.float32(mask), margin)
        np.testing.assert_allclose(found, contrast_by_hand(vectors, labels, mask, margin), 1e-5)
    assert contrast_by_hand(vectors, labels, mask, 0.4) > 0.1


def test_pairs_of_a_vector_with_itself_count_nothing():
    contrast = lambda x: transfg.contrast(x, jnp.array([0, 1]), jnp.ones(2), 0.4)  # noqa: E731
    value, gradient = jax.value_and_grad(contrast)(jnp.zeros((2, 3)))
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros((2, 3)))
    one = transfg.contrast(jnp.ones((1, 3)), jnp.array([0]), jnp.ones(1), 0.4)
    np.testing.assert_allclose(one, 0, atol=1e-6)
    assert transfg.contrast(jnp.ones((2, 3)), jnp.array([0, 1]), jnp.zeros(2), 0.4) == 0


def test_the_loss_adds_both_terms_and_ignores_masked_images():
    """In its value and in its gradients."""
    method = methods.build("transfg", {"margin": 0.3}, FACTS)
    batch = test_losses.make_batch()
    names = ["label_loss", "contrastive_loss"]

    def computed(tree):
        model = test_losses.answering(tree["logits"], pooled=tree["tokens"][:, None, None])
        value, report = test_losses.call(method, model, batch)
        assert report.outputs.keys() == {"logits"} and [*report.scalars] == names
        return jnp.stack([value, *report.scalars.values()])

    def reference(tree):
        mask, labels, odds = batch["mask"], batch["label"], np.exp(tree["logits"])
        entropies = -np.log(odds / odds.sum(1, keepdims=True))[range(5), labels]
        entropy = (entropies * mask).sum() / mask.sum()
        contrast = contrast_by_hand(tree["tokens"], labels, mask, 0.3)
        return entropy + contrast, entropy, contrast

    rng = np.random.default_rng(0)
    tree = {"logits": rng.normal(size=(5, 3)), "tokens": rng.normal(size=(5, 24))}
    found = computed(jax.tree.map(jnp.float32, tree))
    np.testing.assert_allclose(found, reference(tree), rtol=1e-5)
    slopes.assert_those_of(reference, computed, tree)


def test_a_backbone_without_class_token_is_refused():
    facts = dataclasses.replace(FACTS, shapes=({},))
    with pytest.raises(ValueError, match="the map 'pooled'"):
        methods.build("transfg", {}, facts)
