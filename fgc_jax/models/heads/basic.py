"""Classifier heads: feature maps -> logits, in float32 from the first line.

A head is built as Head(channels, num_classes, rngs=rngs, **options), with the channel counts of
its feature maps, and called as head(maps, rngs=) with a tuple of maps [B, h, w, C]. It returns
(logits float32 [B, num_classes], dict of named arrays for methods, empty for most heads).
Dropout needs `rngs` (nnx.Rngs) in training. If the order of the maps matters, the head has the
class attribute `order`: see `check_order`.
"""

import math
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgc_jax.config.limits import Count, NotNegative, Rate, at_least
from fgc_jax.models import layers
from fgc_jax.models.heads import matrix_root


def one_map(head, channels):
    """The channels of a head's only map; ValueError for several."""
    if len(channels) != 1:
        raise ValueError(f"head {head!r} reads one feature map, not {len(channels)}")
    return channels[0]


FINE_TO_COARSE = "one backbone's maps from fine to coarse, such as 'stage3+features'"
GRID_AND_TOKEN = "one backbone's patches and class token, 'features+pooled'"


def check_order(head, name, streams):
    """Raises ValueError unless the maps of `streams` (table.Stream) have the order that the class
    `head`, called `name`, requires by its attribute `order`: FINE_TO_COARSE or GRID_AND_TOKEN."""
    wanted = getattr(head, "order", None)
    if wanted is None:
        return
    row, maps = streams[0].row, streams[0].feature_maps
    strides = [row.strides[each] for each in maps]
    if wanted == GRID_AND_TOKEN:
        fits = len(maps) == 2 and maps[0] == "features" and strides[1] == 0
    else:
        places = [(row.strides[each], row.depths[each]) for each in maps]
        fits = min(strides) > 0 and all(a < b for a, b in zip(places, places[1:], strict=False))
    if not fits or len(streams) > 1:
        given = " and ".join(repr("+".join(stream.feature_maps)) for stream in streams)
        raise ValueError(
            f"head {name!r} reads {wanted}, not {given}: change config.model.feature_map"
        )


def check_grids(maps):
    """Raises ValueError unless the first and the last map have the same grid."""
    first, last = maps[0].shape[1:3], maps[-1].shape[1:3]
    if first != last:
        raise ValueError(
            f"the maps of the two streams differ in size, {first} and {last} (rows, columns): use "
            "maps with the same stride"
        )


def _normal(rngs, shape, std):
    return nnx.Param(std * jax.random.normal(rngs.params(), shape))


class Gap(nnx.Module):
    """Global pooling, dropout and a linear layer.

    pool: "avg", or "avgmax" for [maximum, average] side by side. mlp: the head of fastai 1.0
    (batch norm, dropout / 2, `hidden` units, ReLU, batch norm) before dropout and linear layer.
    """

    def __init__(
        self,
        channels,
        num_classes,
        *,
        pool: Literal["avg", "avgmax"] = "avg",
        mlp: bool = False,
        hidden: Count = 512,
        dropout: Rate = 0.0,
        rngs,
    ):
        features = one_map("gap", channels)
        self.pool = pool
        features = 2 * features if pool == "avgmax" else features
        self.mlp = mlp
        if mlp:
            self.bn1 = layers.BatchNorm(features, rngs=rngs)
            self.dropout1 = nnx.Dropout(dropout / 2)
            self.fc1 = layers.Linear(features, hidden, rngs=rngs)
            self.fc1.kernel = _normal(rngs, (features, hidden), math.sqrt(2 / features))
            self.bn2 = layers.BatchNorm(hidden, rngs=rngs)
            features = hidden
        self.dropout = nnx.Dropout(dropout)
        self.fc = layers.Linear(features, num_classes, rngs=rngs)
        if mlp:
            self.fc.kernel = _normal(rngs, (features, num_classes), math.sqrt(2 / features))

    def __call__(self, maps, *, rngs=None):
        return self.classify(self.embed(maps), rngs=rngs), {}

    def embed(self, maps):
        """The pooled vector f32 [B, D], before the first parameter of the head."""
        (x,) = maps
        x = x.astype(jnp.float32)
        average = x.mean((1, 2))
        if self.pool == "avgmax":
            return jnp.concatenate([layers.spatial_max(x), average], axis=-1)
        return average

    def classify(self, x, *, rngs=None):
        """Logits from the result of `embed`."""
        if self.mlp:
            x = self.dropout1(self.bn1(x), rngs=rngs)
            x = self.bn2(jax.nn.relu(self.fc1(x)))
        return self.fc(self.dropout(x, rngs=rngs))


def signed_sqrt(x, epsilon):
    """sign(x) sqrt(|x| + epsilon), element-wise; its slope is at most 1 / (2 sqrt(epsilon))."""
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x) + epsilon)


def l2_normalise(x):
    """Rows of x [B, N] divided by their length; rows of zeros stay zero, with a zero gradient."""
    squares = jnp.square(x).sum(-1, keepdims=True)
    # The lower limit is on the square: the gradient of a square root at zero is not finite.
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


class Bilinear(nnx.Module):
    """Outer products of two feature maps, averaged over the positions, then a linear layer.

    Paper: Bilinear CNN Models for Fine-grained Visual Recognition (arXiv 1504.07889). One map is
    multiplied with itself; two may differ in channels but not in grid. The C1 x C2 averages go
    through signed_sqrt, l2_normalise over the whole vector, and dropout. projection: channels
    of a 1x1 convolution without bias before the product, one for each stream; 0 for none.
    root_iterations: those of `matrix_root` for the averages of one map, before signed_sqrt
    (Improved Bilinear Pooling with CNNs, arXiv 1707.06772); 0 for none. The linear layer has
    C1 * C2 * num_classes weights, initially Xavier normal.
    """

    def __init__(
        self,
        channels,
        num_classes,
        *,
        projection: Annotated[int, at_least(0)] = 0,
        root_iterations: Annotated[int, at_least(0)] = 0,
        epsilon: NotNegative = 1e-5,
        dropout: Rate = 0.0,
        rngs,
    ):
        if len(channels) not in (1, 2):
            raise ValueError(f"head 'bilinear' takes one or two feature maps, not {len(channels)}")
        if root_iterations and len(channels) == 2:
            raise ValueError(
                f"root_iterations={root_iterations} must be 0 for two maps: their products "
                "have no square root"
            )
        self.epsilon = epsilon
        self.root_iterations = root_iterations
        self.projected = projection > 0
        if self.projected:
            make = (layers.Linear(c, projection, use_bias=False, rngs=rngs) for c in channels)
            self.projections = layers.Blocks(make)
            channels = (projection,) * len(channels)
        features = channels[0] * channels[-1]
        self.dropout = nnx.Dropout(dropout)
        self.fc = layers.Linear(features, num_classes, rngs=rngs)
        std = math.sqrt(2 / (features + num_classes))
        self.fc.kernel = _normal(rngs, (features, num_classes), std)

    def __call__(self, maps, *, rngs=None):
        maps = [x.astype(jnp.float32) for x in maps]
        check_grids(maps)
        if self.projected:
            maps = [project(x) for project, x in zip(self.projections, maps, strict=True)]
        b, h, w, _ = maps[0].shape
        x = jnp.einsum("bhwc,bhwd->bcd", maps[0], maps[-1], precision="highest") / (h * w)
        if self.root_iterations:
            x = matrix_root.matrix_sqrt(x, self.root_iterations)
        x = l2_normalise(signed_sqrt(x.reshape(b, -1), self.epsilon))
        return self.fc(self.dropout(x, rngs=rngs)), {}


def _stretch(x, axis, size):
    """Resizes an axis of x [B, H, W, C] to `size` >= its length, like adaptive average pooling."""
    length = x.shape[axis]
    if length >= size:
        return x
    weights = np.zeros((size, length), np.float32)
    for index in range(size):
        start, stop = index * length // size, -(-(index + 1) * length // size)
        weights[index, start:stop] = 1 / (stop - start)
    return jnp.moveaxis(jnp.tensordot(x, weights, axes=(axis, 1)), -1, axis)


class VggFc(nnx.Module):
    """VGG's three fully connected layers in timm's convolutional form, for any input size.

    fc1 is a 7x7 convolution without padding (smaller grids are first enlarged to 7), fc2 a 1x1
    convolution. The result is averaged over the positions, so a 224-px image gives VGG's logits.
    """

    def __init__(self, channels, num_classes, *, hidden: Count = 4096, dropout: Rate = 0.0, rngs):
        features = one_map("vgg_fc", channels)
        self.fc1 = layers.Conv(features, hidden, 7, padding=0, use_bias=True, rngs=rngs)
        self.fc2 = layers.Conv(hidden, hidden, 1, use_bias=True, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.fc = layers.Linear(hidden, num_classes, rngs=rngs)
        self.fc.kernel = _normal(rngs, (hidden, num_classes), 0.01)

    def __call__(self, maps, *, rngs=None):
        (x,) = maps
        x = _stretch(_stretch(x.astype(jnp.float32), 1, 7), 2, 7)
        x = self.dropout(jax.nn.relu(self.fc1(x)), rngs=rngs)
        x = jax.nn.relu(self.fc2(x)).mean((1, 2))
        return self.fc(self.dropout(x, rngs=rngs)), {}
