"""WS-DAN and CAL against their formulas, on a backbone that is the images themselves."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax import methods, models
from fgc_jax.methods import attention
from fgc_jax.models.classifier import Classifier
from fgc_jax.models.heads import attention_pooling
from tests import networks, slopes, test_losses
from tests.by_hand import resized
from tests.test_attention_pooling import pooled
from tests.test_regions import box_by_hand

MAPS, SIZE, CLASSES = 4, 12, 3
WIDTH = MAPS * 3  # of an embedding
FACTS = dataclasses.replace(test_losses.FACTS, shapes=({"head/embedding": (WIDTH,)},))
FIXED = {"crop_threshold": (0.5, 0.5), "drop_threshold": (0.3, 0.3)}


class Pixels(nnx.Module):
    """A feature map of means of 3 x 3 pixels, whose channels can be mixed."""

    def __init__(self):
        self.mix = nnx.Param(jnp.eye(3))

    def __call__(self, images, *, rngs=None):
        b, h, w, c = images.shape
        means = images.reshape(b, h // 3, 3, w // 3, 3, c).mean((2, 4))
        return {"features": means @ self.mix[...]}


@functools.cache
def classifier():
    head = attention_pooling.AttentionPooling((3,), CLASSES, maps=MAPS, rngs=nnx.Rngs(0))
    return nnx.view(Classifier(Pixels(), head, feature_maps=(("features",),)))


def batch_of(rows=5, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.normal(size=(rows, SIZE, SIZE, 3)).astype(np.float32),
        "label": np.int32([1, 0, 1, 2, 1][:rows]),
        "mask": np.float32([1, 1, 1, 0, 1][:rows]),
    }


def centres(seed=3):
    return np.random.default_rng(seed).normal(size=(CLASSES, WIDTH)).astype(np.float32)


def call(method, model, batch, state=None):
    """(value, report), by default with centres at random places."""
    state = {"centres": jnp.asarray(centres())} if state is None else state
    return test_losses.call(method, model, jax.tree.map(jnp.asarray, batch), state=state)


def run(name, batch, state=None, **options):
    method = methods.build(name, FIXED | options, FACTS)
    live = nnx.view(classifier(), use_running_average=True)
    return call(method, live, batch, state)


def cross_entropy(logits, labels, mask):
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -(log_p[np.arange(len(labels)), labels] * mask).sum() / mask.sum()


class ByHand:
    """The parts of the loss in float64, given the maps that were drawn and the fake attention.

    weights: a tree of the classifier's parameters in place of its own.
    """

    def __init__(self, batch, key, weights=None):
        keys = jax.random.split(key, 7)
        self.weights = slopes.layers(models.split(classifier())[0] if weights is None else weights)
        raw, maps = self.forward(batch["image"])
        chosen = self.drawn(maps, keys[1])
        images = []
        for image, first, second in zip(batch["image"], *chosen, strict=True):
            images += [self.cropped(image, first), self.erased(image, second)]
        self.images = np.stack(images)
        changed, changed_maps = self.forward(self.images)
        labels, mask = batch["label"], batch["mask"]
        twice, both = np.repeat(labels, 2), np.repeat(mask, 2)
        self.raw = cross_entropy(raw, labels, mask)
        self.changed = cross_entropy(changed, twice, both)
        fake = [
            np.asarray(jax.random.uniform(k, m.shape, maxval=2.0))
            for k, m in ((keys[5], maps), (keys[6], changed_maps))
        ]
        of_raw = raw - self.logits(fake[0], batch["image"])
        of_changed = changed - self.logits(fake[1], self.images)
        all_labels, all_masks = np.concatenate([labels, twice]), np.concatenate([mask, both])
        self.effect = cross_entropy(np.concatenate([of_raw, of_changed]), all_labels, all_masks)
        self.embedding = pooled(maps, self.features(batch["image"]))

    def features(self, images):
        b = len(images)
        means = np.float64(images).reshape(b, SIZE // 3, 3, SIZE // 3, 3, 3).mean((2, 4))
        return means @ np.float64(self.weights.backbone.mix)

    def forward(self, images):
        layer = self.weights.head.attentions
        seen = self.features(images) @ np.float64(layer.conv.kernel) / np.sqrt(1 + 1e-3)
        maps = np.maximum(seen * np.float64(layer.bn.scale) + np.float64(layer.bn.bias), 0)
        return self.logits(maps, images), maps

    def logits(self, maps, images):
        return 100 * pooled(maps, self.features(images)) @ np.float64(self.weights.head.fc.kernel)

    def drawn(self, maps, key):
        """The maps that the shared random numbers choose: the test of `pick` judges their odds."""
        weights = jnp.float32(0.5 * np.log(maps.sum((1, 2)) + 1e-6))[None]
        drawn = jax.random.categorical(key, weights, axis=-1, shape=(2, len(maps)))
        pairs = [zip(maps, row, strict=True) for row in np.asarray(drawn)]
        return [np.stack([m[..., k] for m, k in pair]) for pair in pairs]

    def cropped(self, image, attention):
        top, bottom, left, right = box_by_hand(attention, 0.5, 0.1, (SIZE, SIZE))
        return resized(np.float64(image[top:bottom, left:right]), SIZE, SIZE)

    def erased(self, image, attention):
        keep = resized(np.float64(attention), SIZE, SIZE) < 0.3 * attention.max()
        return image * keep[..., None]


def centre_loss(embedding, batch, before, normalise=True, rate=0.05):
    """(loss, centres after), image by image and class by class."""
    targets = before / np.linalg.norm(before, axis=1, keepdims=True) if normalise else before
    values, after = [], np.float64(before)
    for c in range(CLASSES):
        own = [i for i, label in enumerate(batch["label"]) if label == c and batch["mask"][i]]
        values += [((embedding[i] - targets[c]) ** 2).sum() for i in own]
        if own:
            after[c] += rate * np.mean([embedding[i] - targets[c] for i in own], axis=0)
    return np.mean(values), after


@pytest.mark.parametrize("name", ["wsdan", "cal"])
def test_the_loss_is_its_formula(name):
    batch = batch_of()
    hand = ByHand(batch, jax.random.key(0))
    value, report = run(name, batch)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    near(report.scalars["raw_loss"], hand.raw)
    near(report.scalars["crop_loss"], hand.changed)
    centre, after = centre_loss(hand.embedding, batch, centres())
    near(report.scalars["centre_loss"], centre)
    networks.assert_near(report.state["centres"], after)
    total = hand.raw / 3 + 2 * hand.changed / 3 + centre
    if name == "cal":
        near(report.scalars["effect_loss"], hand.effect)
        total += hand.effect
    near(value, total)
    np.testing.assert_array_equal(report.state["centres"][2], centres()[2])  # masked alone


def test_weights_and_options_reach_the_loss():
    batch = batch_of()
    options = {"raw_weight": 0.5, "crop_weight": 0.25, "centre_weight": 2.0, "centre_rate": 0.5}
    value, report = run("cal", batch, normalise_centres=False, effect_weight=3.0, **options)
    said = report.scalars
    by_hand = 0.5 * said["raw_loss"] + 0.25 * said["crop_loss"] + 3 * said["effect_loss"]
    np.testing.assert_allclose(value, by_hand + 2 * said["centre_loss"], rtol=1e-6)
    embedding = ByHand(batch, jax.random.key(0)).embedding
    centre, after = centre_loss(embedding, batch, centres(), normalise=False, rate=0.5)
    np.testing.assert_allclose(said["centre_loss"], centre, rtol=1e-5)
    networks.assert_near(report.state["centres"], after)


def test_without_effect_cal_is_wsdan():
    """The same random numbers and parts, one less of them."""
    (with_effect, more), (without, less) = (run(name, batch_of()) for name in ("cal", "wsdan"))
    np.testing.assert_allclose(with_effect - more.scalars["effect_loss"], without, rtol=1e-6)
    assert set(more.scalars) - set(less.scalars) == {"effect_loss"}


def test_fake_attention_is_drawn_anew_below_2_without_touching_the_attention_layer():
    rng = np.random.default_rng(0)
    out = {
        "head/attention": jnp.zeros((50, 4, 4, MAPS)),
        "head/embedding": jnp.zeros((50, 3 * MAPS)),
        "features": jnp.float32(rng.normal(size=(50, 4, 4, 3))),
    }
    seen = []

    class Head:
        def effect(self, embedding, fake, x):
            seen.append(np.asarray(fake))

    class Model:
        head = Head()
        feature_maps = (("features",),)

    for seed in (0, 1):
        attention.effect_logits(Model(), out, jax.random.key(seed))
    assert (seen[0] >= 0).all() and (seen[0] < 2).all()
    assert abs(seen[0].mean() - 1) < 0.02 and seen[0].max() > 1.99
    assert not np.array_equal(*seen)


def test_gradients():
    """Each part moves features, attention and classifier as its formula does, where regions and
    centres are what they were; centres move nothing."""
    graphdef = models.evaluation_graphdef(classifier())
    variables, stats = models.split(classifier())
    batch = batch_of()
    method = methods.build("cal", FIXED, FACTS)
    names = ("raw_loss", "crop_loss", "effect_loss", "centre_loss")

    def parts(variables):
        ask = lambda live: call(method, live, batch)  # noqa: E731
        (value, report), _ = models.apply(graphdef, variables, stats, ask)
        return jnp.stack([value, *(report.scalars[name] for name in names)])

    def reference(variables):
        hand = ByHand(batch, jax.random.key(0), variables)
        centre, _ = centre_loss(hand.embedding, batch, centres())
        value = hand.raw / 3 + 2 * hand.changed / 3 + hand.effect + centre
        return value, hand.raw, hand.changed, hand.effect, centre

    slopes.assert_those_of(reference, parts, variables)
    hand = ByHand(batch, jax.random.key(0))
    arrays = jnp.float32(hand.embedding), batch["label"], batch["mask"]

    def distances(to):
        return attention.to_centres(*arrays, to, rate=0.05, normalise=True)[0].sum()

    assert not np.asarray(jax.grad(distances)(jnp.asarray(centres()))).any()


def test_centres_start_at_zero_and_do_not_depend_on_the_order_of_images():
    method = methods.build("wsdan", {}, FACTS)
    np.testing.assert_array_equal(method.state["centres"], np.zeros((CLASSES, WIDTH)))
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(6, WIDTH)).astype(np.float32)
    labels, mask = np.int32([2, 2, 0, 2, 0, 1]), np.float32([1, 0, 1, 1, 1, 0])
    results = []
    for order in (np.arange(6), rng.permutation(6)):
        distances, after = attention.to_centres(
            jnp.asarray(embeddings[order]),
            labels[order],
            jnp.asarray(mask[order]),
            jnp.zeros((CLASSES, WIDTH)),
            rate=0.05,
            normalise=True,
        )
        results.append(np.asarray(after))
        lengths = (embeddings[order] ** 2).sum(1)  # of a centre of zeros nothing is subtracted
        np.testing.assert_allclose(distances, lengths, rtol=1e-5)
    np.testing.assert_allclose(results[0], results[1], atol=1e-7)
    expected = [embeddings[[2, 4]].mean(0), np.zeros(WIDTH), embeddings[[0, 3]].mean(0)]
    networks.assert_near(results[0], 0.05 * np.stack(expected))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effect_weight": 0.5}, "effect_weight=0.5 has no effect: 'wsdan' has none"),
        ({"crop_weight": 0, "raw_weight": 0}, "are 0: nothing would be learnt"),
        ({"effect": True}, "effect is unknown: did you mean 'effect_weight'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        methods.build("wsdan", options, FACTS)


def test_images_that_point_nowhere_train():
    """Constant images, dead attention maps: all finite, the whole image is the crop."""
    batch = batch_of() | {"image": np.zeros((5, SIZE, SIZE, 3), np.float32)}
    value, report = run("cal", batch, {"centres": jnp.zeros((CLASSES, WIDTH))})
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(report))
