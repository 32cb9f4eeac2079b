"""One or two backbones under one head."""

import jax.numpy as jnp
from flax import nnx


class Classifier(nnx.Module):
    """images [B, H, W, 3], normalised for `backbone` -> (logits float32 [B, K], named maps).

    The maps of the second stream are prefixed "b/". rescale_b: (factor, shift), three numbers
    each, that turn pixels normalised for the first stream into pixels normalised for the second.
    """

    def __init__(self, backbone, head, backbone_b=None, *, feature_map="features", rescale_b=None):
        self.backbone = backbone
        self.head = head
        if backbone_b is not None:
            self.backbone_b = backbone_b
        self.two_streams = backbone_b is not None
        self.feature_map = feature_map
        self.rescale_b = rescale_b

    def __call__(self, images, *, rngs=None):
        out = dict(self.backbone(images, rngs=rngs))
        streams = (out[self.feature_map],)
        if self.two_streams:
            if self.rescale_b is not None:
                factor, shift = (jnp.array(v, images.dtype) for v in self.rescale_b)
                images = images * factor.reshape(1, 1, 1, 3) + shift.reshape(1, 1, 1, 3)
            maps = self.backbone_b(images, rngs=rngs)
            out |= {f"b/{name}": x for name, x in maps.items()}
            streams += (maps[self.feature_map],)
        return self.head(streams, rngs=rngs), out
