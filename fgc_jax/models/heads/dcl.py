"""The head of destruction and construction learning (DCL).

Paper: Destruction and Construction Learning for Fine-Grained Image Recognition (CVPR 2019).
"""

import jax.numpy as jnp
from flax import nnx

from fgc_jax.models import layers
from fgc_jax.models.heads import basic


class Dcl(nnx.Module):
    """Class logits, whether an image is original, and where its tiles come from.

    The mean of the map goes through two linear layers without bias. One gives the class logits, the
    other "swap", f32 [B, 2], whose index 1 means an original image. A 1x1 convolution to one
    channel, means of 2x2 windows and tanh give "location", f32 [B, h // 2, w // 2] in -1..1. This
    follows the authors' code; the paper has a ReLU instead of tanh, and two channels.
    """

    def __init__(self, channels, num_classes, *, rngs):
        features = basic.one_map("dcl", channels)
        self.fc = layers.Linear(features, num_classes, use_bias=False, rngs=rngs)
        self.swap = layers.Linear(features, 2, use_bias=False, rngs=rngs)
        self.location = layers.Linear(features, 1, rngs=rngs)

    def __call__(self, maps, *, rngs=None):
        (x,) = maps
        x = x.astype(jnp.float32)
        mean = x.mean((1, 2))
        places = self.location(x)[..., 0]
        b, h, w = (places.shape[0], places.shape[1] // 2, places.shape[2] // 2)
        places = places[:, : 2 * h, : 2 * w].reshape(b, h, 2, w, 2).mean((2, 4))
        return self.fc(mean), {"swap": self.swap(mean), "location": jnp.tanh(places)}
