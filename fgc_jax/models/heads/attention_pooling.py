"""The head of WS-DAN and CAL: a feature map pooled under learned attention maps."""

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Count, NotNegative
from fgc_jax.models import layers
from fgc_jax.models.heads import basic

# The pooled vector has length 1; without this factor its logits would all be near 0.
SCALE = 100.0


class Attentions(nnx.Module):
    """A 1x1 convolution, batch norm and ReLU: [B, h, w, C] -> attention maps f32 [B, h, w, M]."""

    def __init__(self, channels, maps, *, rngs):
        self.conv = layers.Linear(channels, maps, use_bias=False, rngs=rngs)
        self.bn = layers.BatchNorm(maps, epsilon=1e-3, rngs=rngs)

    def __call__(self, x):
        return jax.nn.relu(self.bn(self.conv(x)))


class AttentionPooling(nnx.Module):
    """Bilinear attention pooling (BAP) and a linear layer without bias.

    Papers: See Better Before Looking Closer (WS-DAN, arXiv 1901.09891); Counterfactual Attention
    Learning (CAL, arXiv 2108.08728); the numbers follow CAL's published code. Each of `maps`
    attention maps weights the feature map. The M x C averages over the positions go through
    signed_sqrt and l2_normalise, are multiplied by 100 and classified.

    Named arrays: "attention" f32 [B, h, w, M], "embedding" f32 [B, M C] of length 1, and "effect"
    f32 [B, K]: the logits minus those with attention of 1 everywhere (CAL's test-time effect).
    """

    def __init__(
        self, channels, num_classes, *, maps: Count = 32, epsilon: NotNegative = 1e-6, rngs
    ):
        features = basic.one_map("attention_pooling", channels)
        self.epsilon = epsilon
        self.attentions = Attentions(features, maps, rngs=rngs)
        self.fc = layers.Linear(maps * features, num_classes, use_bias=False, rngs=rngs)

    def __call__(self, maps, *, rngs=None):
        (x,) = maps
        x = x.astype(jnp.float32)
        attention = self.attentions(x)
        embedding = self.pool(attention, x)
        logits = self.classify(embedding)
        effect = self.effect(embedding, jnp.ones_like(attention), x)
        return logits, {"attention": attention, "embedding": embedding, "effect": effect}

    def pool(self, attention, x):
        """f32 [B, M C], of length 1, from attention [B, h, w, M] and a feature map [B, h, w, C]."""
        b, h, w, _ = x.shape
        x = x.astype(jnp.float32)
        # GPUs would otherwise use a lower precision; effects are 100 times a small difference.
        x = jnp.einsum("bhwm,bhwc->bmc", attention, x, precision="highest") / (h * w)
        return basic.l2_normalise(basic.signed_sqrt(x.reshape(b, -1), self.epsilon))

    def classify(self, embedding):
        """Logits from the result of `pool`."""
        return self.fc(SCALE * embedding)

    def effect(self, embedding, attention, x):
        """f32 [B, K]: the logits of an embedding minus those with another attention."""
        # The classifier has no bias, so the difference can be taken before it, with less rounding.
        return self.classify(embedding - self.pool(attention, x))
