"""A classifier: one or two backbones and a head."""

import jax.numpy as jnp
from flax import nnx

from fgc_jax.models import regions


class Classifier(nnx.Module):
    """images [B, H, W, 3], normalised for `backbone` -> (logits float32 [B, K], named maps).

    Names of the second stream's maps begin with "b/", those of the head's arrays with "head/".
    feature_maps: for each backbone the names of the maps that the head reads. rescale_b: (factor,
    shift), three numbers each, that convert pixels normalised for the first stream to those for the
    second.
    """

    def __init__(self, backbone, head, backbone_b=None, *, feature_maps, rescale_b=None):
        self.backbone = backbone
        self.head = head
        if backbone_b is not None:
            self.backbone_b = backbone_b
        self.two_streams = backbone_b is not None
        self.feature_maps = feature_maps
        self.rescale_b = rescale_b
        self.from_embeddings = False  # True: it is called with the result of `embed`

    def __call__(self, images, *, rngs=None):
        if self.from_embeddings:
            return self.head.classify(images, rngs=rngs), {}
        maps, out = self.maps(images, rngs=rngs)
        logits, named = self.head(maps, rngs=rngs)
        return logits, out | {f"head/{name}": x for name, x in named.items()}

    def maps(self, images, *, rngs=None):
        """(the maps that the head reads, first those of the first backbone; all named maps).

        A head with a method `look` also reads the maps of a crop, encoded by the same backbones:
        see `glsim.GlSim`.
        """
        read, out = self._encode(images, rngs=rngs)
        if not hasattr(self.head, "look"):
            return read, out
        boxes, named = self.head.look(read, images.shape[1:3])
        closer, _ = self._encode(regions.crop(images, boxes), rngs=rngs)
        return read + closer, out | {f"head/{name}": x for name, x in named.items()}

    def _encode(self, images, *, rngs):
        out = dict(self.backbone(images, rngs=rngs))
        read = tuple(out[name] for name in self.feature_maps[0])
        if self.two_streams:
            if self.rescale_b is not None:
                factor, shift = (jnp.array(v, images.dtype) for v in self.rescale_b)
                images = images * factor.reshape(1, 1, 1, 3) + shift.reshape(1, 1, 1, 3)
            second = self.backbone_b(images, rngs=rngs)
            out |= {f"b/{name}": x for name, x in second.items()}
            read += tuple(second[name] for name in self.feature_maps[1])
        return read, out

    def embed(self, images):
        """One vector for each image, f32 [B, D]: the pooled vector before the head's first
        parameter, or else the mean over the positions of each map that the head reads."""
        maps, _ = self.maps(images)
        if hasattr(self.head, "embed"):
            return self.head.embed(maps)
        return jnp.concatenate([x.astype(jnp.float32).mean((1, 2)) for x in maps], axis=-1)


def on_embeddings(classifier: Classifier) -> Classifier:
    """The classifier for calls with the result of `Classifier.embed` instead of images. Its head
    must have a method `classify`."""
    view = nnx.view(classifier, raise_if_not_found=False)
    view.from_embeddings = True
    return view
