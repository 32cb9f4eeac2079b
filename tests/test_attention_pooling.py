import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgc_jax import models
from fgc_jax.models.heads import attention_pooling
from tests import networks, seeded, slopes

MAPS, CHANNELS, CLASSES = 3, 5, 4


def head(maps=MAPS):
    made = attention_pooling.AttentionPooling((CHANNELS,), CLASSES, maps=maps, rngs=nnx.Rngs(0))
    return nnx.view(made, use_running_average=True)


def features(seed=0, size=(4, 6)):
    return np.random.default_rng(seed).normal(size=(2, *size, CHANNELS)).astype(np.float32)


def pooled(attention, x, epsilon=1e-6):
    """Position by position, map by map, channel by channel."""
    b, h, w, m = attention.shape
    result = np.zeros((b, m, x.shape[-1]))
    for row in range(h):
        for column in range(w):
            for k in range(m):
                result[:, k] += attention[:, row, column, k, None] * x[:, row, column]
    result = (result / (h * w)).reshape(b, -1)
    result = np.sign(result) * np.sqrt(np.abs(result) + epsilon)
    return result / np.maximum(np.sqrt((result**2).sum(1, keepdims=True)), 1e-12)


MEAN, VARIANCE = [0.1, -0.2, 0.3], [0.5, 1.0, 2.0]


def head_with_statistics():
    made = head()
    made.attentions.bn.mean[...] = jnp.float32(MEAN)
    made.attentions.bn.var[...] = jnp.float32(VARIANCE)
    return made


def by_hand(weights, x):
    """(logits, attention, embedding, effect) in float64."""
    x, bn = np.float64(x), weights.attentions.bn
    seen = (x @ np.float64(weights.attentions.conv.kernel[...]) - MEAN) / np.sqrt(
        np.float64(VARIANCE) + 1e-3
    )
    attention = np.maximum(seen * np.float64(bn.scale[...]) + np.float64(bn.bias[...]), 0)
    embedding = pooled(attention, x)
    kernel = np.float64(weights.fc.kernel[...])
    effect = 100 * (embedding - pooled(np.ones_like(attention), x)) @ kernel
    return 100 * embedding @ kernel, attention, embedding, effect


def test_logits_and_what_is_named():
    made, x = head_with_statistics(), features()
    found, named = made((jnp.asarray(x),))
    logits, attention, embedding, effect = by_hand(made, x)
    assert 0.2 < (attention > 0).mean() < 0.8
    networks.assert_near(named["attention"], attention)
    networks.assert_near(named["embedding"], embedding)
    np.testing.assert_allclose(np.linalg.norm(named["embedding"], axis=1), 1, rtol=1e-5)
    networks.assert_near(found, logits)
    networks.assert_near(named["effect"], effect)


def test_its_gradients_are_those_of_the_formula():
    made = head_with_statistics()
    graphdef, (weights, stats) = nnx.graphdef(made), models.split(made)

    def computed(tree):
        (logits, named), _ = models.apply(
            graphdef, tree["weights"], stats, lambda live: live((tree["x"],))
        )
        each = (logits, *(named[name] for name in ("attention", "embedding", "effect")))
        return jnp.concatenate([v.ravel() for v in each])

    def reference(tree):
        each = by_hand(slopes.layers(tree["weights"]), tree["x"])
        return np.concatenate([v.ravel() for v in each])

    slopes.assert_those_of(reference, computed, {"weights": weights, "x": features()})


def test_the_scale_is_100():
    made = head()
    np.testing.assert_allclose(
        made.classify(jnp.eye(MAPS * CHANNELS)), 100 * made.fc.kernel[...], rtol=1e-6
    )


def test_under_a_backbone():
    config = seeded.config(
        "resnet18", head="attention_pooling", backbone_options={"last_stride": 1}
    )
    _, out = networks.shapes(config, 5, 64, 96)
    assert out["head/attention"].shape == (2, 4, 6, 32)
    assert out["head/embedding"].shape == (2, 32 * 512)
    assert out["head/effect"].shape == (2, 5)
