"""A head that uses the image and a crop around the patches most similar to the whole image.

Paper: Global-Local Similarity for Efficient Fine-Grained Image Recognition with Vision Transformers
(GLSim, arXiv 2407.12891).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Count, Rate
from fgc_jax.models import layers
from fgc_jax.models.backbones import vit
from fgc_jax.models.heads import basic

HEAD_CHANNELS = 64


class GlSim(nnx.Module):
    """The class tokens of an image and of its crop, combined by one transformer block.

    Reads the maps "features+pooled" of a vision transformer. `look` gives the boxes that the
    classifier crops. The two maps of the crop follow those of the image: head((features, pooled,
    features of the crop, pooled of the crop)). top: number of patches that the crop must contain.
    """

    order = basic.GRID_AND_TOKEN

    def __init__(self, channels, num_classes, *, top: Count = 8, dropout: Rate = 0.1, rngs):
        if len(channels) != 2 or channels[0] != channels[1]:
            raise ValueError(
                "head 'glsim' reads patches and class token of a vision transformer: "
                "config.model.feature_map='features+pooled'"
            )
        width = channels[0]
        self.top = top
        heads, form = max(width // HEAD_CHANNELS, 1), vit.Form()
        self.block = vit.Block(width, heads, form, rate=0.0, dtype=jnp.float32, rngs=rngs)
        self.norm = layers.LayerNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.fc = layers.Linear(width, num_classes, rngs=rngs)

    def look(self, maps, size):
        """From the maps (features, pooled): (boxes in images of `size`, see `patch_boxes`; a dict
        of them and "attention" f32 [B, h, w, 1], the similarities, 0 where negative)."""
        likeness = similarity(*maps)
        boxes = patch_boxes(likeness, self.top, size)
        return boxes, {"boxes": boxes, "attention": jnp.maximum(likeness, 0)[..., None]}

    def __call__(self, maps, *, rngs=None):
        _, whole, _, part = (x.astype(jnp.float32) for x in maps)
        tokens = jnp.concatenate([whole, part], axis=2)[:, 0]
        joined = self.norm(self.block(tokens))[:, 0]
        return self.fc(self.dropout(joined, rngs=rngs)), {}


def similarity(grid, token):
    """Cosines f32 [B, h, w] between each position of a grid [B, h, w, C] and a token [B, 1, 1, C];
    without a gradient, 0 for a vector of zeros."""
    grid, token = (basic.l2_normalise(x.astype(jnp.float32)) for x in (grid, token))
    return jax.lax.stop_gradient(jnp.einsum("bhwc,bc->bhw", grid, token[:, 0, 0]))


def patch_boxes(likeness, top, size):
    """The smallest boxes int32 [B, 4] = (top, bottom, left, right) in pixels of images of `size`
    (rows, columns), for `regions.crop`, that contain the `top` largest cells of likeness [B, h, w].

    The authors' code leaves out the last row and the last column of these patches; the paper
    describes the box around them.

    Raises:
        ValueError: the grid has fewer cells than `top`.
    """
    b, h, w = likeness.shape
    if top > h * w:
        raise ValueError(
            f"config.model.head_options.top={top} is more than the {h} x {w} patches of the grid"
        )
    _, order = jax.lax.top_k(likeness.reshape(b, h * w), top)
    edges = []
    for cells, count, side in ((order // w, h, size[0]), (order % w, w, size[1])):
        edges.append(cells.min(1) * side // count)
        edges.append(-(-(cells.max(1) + 1) * side // count))
    return jnp.stack(edges, axis=1).astype(jnp.int32)
