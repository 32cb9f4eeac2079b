"""The head of API-Net: a linear classifier that is trained with pairs of images."""

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Count, Rate
from fgc_jax.models import layers
from fgc_jax.models.heads import basic


class ApiNet(nnx.Module):
    """Average pooling and a linear layer; for training also gates computed from pairs of images.

    Paper: Learning Attentive Pairwise Interaction for Fine-Grained Classification
    (arXiv 2002.10191). The pooled vector is named "pooled" [B, C]. `hidden` and `dropout` are for
    training with pairs, see `compare` and `fgc_jax.methods.api_net`. Dropout applies to the mutual
    vectors and to the gated vectors of pairs, never to the pooled vector of the classifier.
    """

    def __init__(self, channels, num_classes, *, hidden: Count = 512, dropout: Rate = 0.5, rngs):
        features = basic.one_map("api_net", channels)
        self.map1 = layers.Linear(2 * features, hidden, rngs=rngs)
        self.map2 = layers.Linear(hidden, features, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.fc = layers.Linear(features, num_classes, rngs=rngs)

    def __call__(self, maps, *, rngs=None):
        pooled = self.embed(maps)
        return self.fc(pooled), {"pooled": pooled}

    def embed(self, maps):
        """The pooled vector f32 [B, C]."""
        (x,) = maps
        return x.astype(jnp.float32).mean((1, 2))

    def compare(self, first, second, *, rngs=None):
        """Logits f32 [2, 2P, K] of P pairs of pooled vectors, first and second [P, C].

        [0]: through each image's own gate; [1]: through the gate of the other image. The first P
        rows are the first images.
        """
        mutual = self.dropout(self.map1(jnp.concatenate([first, second], axis=-1)), rngs=rngs)
        mutual = self.map2(mutual)
        gates = jax.nn.sigmoid(mutual * first), jax.nn.sigmoid(mutual * second)
        both = jnp.concatenate([first, second])
        own = both * (1 + jnp.concatenate(gates))
        other = both * (1 + jnp.concatenate(gates[::-1]))
        return self.fc(self.dropout(jnp.stack([own, other]), rngs=rngs))
