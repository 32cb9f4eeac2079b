"""Heads that classify products of features: bilinear pooling in compact or normalised forms.

`fgc_jax.models.heads.basic` defines what a head is. Matrix products request full float32, because
GPUs would otherwise use a lower precision.
"""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgc_jax.config.limits import Count, Limit, NotNegative, Rate, at_least
from fgc_jax.models import layers
from fgc_jax.models.heads import basic, matrix_root

_EXACT = jax.lax.Precision.HIGHEST


def _positions(x):
    """[B, h, w, C] -> float32 [B, h * w, C]."""
    b, h, w, c = x.shape
    return x.astype(jnp.float32).reshape(b, h * w, c)


def hashes(channels: int, dimension: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(the place of each channel in a count sketch, int [channels] below `dimension`; its sign,
    float32 [channels]). They depend only on the arguments, through raw bits of PCG64, which NumPy
    guarantees never to change."""
    bits = np.random.PCG64(seed).random_raw(channels)
    places = ((bits >> np.uint64(1)) % np.uint64(dimension)).astype(np.int64)
    return places, (1 - 2 * (bits & np.uint64(1)).astype(np.float32)).astype(np.float32)


@functools.lru_cache(4)
def _groups(channels, dimension, seeds):
    """The places of the products of C1 and C2 channels in a Tensor Sketch; the product of channels
    i and j has the number i * C2 + j. Returns (places, int32 [C1 * C2]; members, int32
    [T, dimension], whose column p has the numbers at place p, filled up with C1 * C2)."""
    first, second = (hashes(c, dimension, s)[0] for c, s in zip(channels, seeds, strict=True))
    places = ((first[:, None] + second[None, :]) % dimension).ravel()
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    turn = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    members = np.full((turn.max() + 1, dimension), len(places), np.int32)
    members[turn, ordered] = order
    return places.astype(np.int32), members


def _add_up(products, places, members):
    """Sums [dimension, B] of the products [C1 * C2, B] of each place; see `_groups`.

    With a gather, not a scatter: every device adds in the same order, so that runs repeat exactly.
    """

    @jax.custom_vjp
    def add_up(products):
        def step(total, chosen):
            return total + products.at[chosen].get(mode="fill", fill_value=0), None

        nothing = jnp.zeros((members.shape[1], products.shape[1]))
        return jax.lax.scan(step, nothing, members)[0]

    # The gradient of a gather would be a scatter.
    add_up.defvjp(lambda x: (add_up(x), None), lambda _, gradient: (gradient[places],))
    return add_up(products)


def tensor_sketch(first, second, *, dimension, seeds):
    """Tensor Sketch of the outer products of two maps, summed over the positions.

    first, second: float32 [B, N, C1] and [B, N, C2]. seeds: those of their count sketches. Returns
    [B, dimension]: the circular convolution of the two count sketches of each position, summed.
    Inner products of it estimate those of the C1 x C2 sums of products.

    Paper: Compact Bilinear Pooling (arXiv 1511.06062). The convolution is usually computed with
    Fourier transforms at each position. Here the products are first summed over the positions, in
    one matrix product, and then added up by their places in the sketch. This needs less memory if
    there are many positions, has no rounding of a transform, and needs no images of other devices,
    which XLA would send for a transform.
    """
    channels = first.shape[-1], second.shape[-1]
    signs = (hashes(c, dimension, s)[1] for c, s in zip(channels, seeds, strict=True))
    first, second = (x * s.reshape(1, 1, -1) for x, s in zip((first, second), signs, strict=True))
    # The batch is the last axis: one place of all images is then added at once.
    products = jnp.einsum("bnc,bnd->cdb", first, second, precision=_EXACT)
    products = products.reshape(-1, len(first))
    return _add_up(products, *_groups(channels, dimension, tuple(seeds))).T


class CompactBilinear(nnx.Module):
    """Tensor Sketch of the products of one map with itself or of two maps, then a linear layer.

    Paper: Compact Bilinear Pooling (arXiv 1511.06062). The sums over the positions go through
    signed_sqrt, l2_normalise and dropout. dimension: length of the sketch, which the classifier
    reads instead of C1 * C2 products. seed: of the random places and signs of the sketch; they are
    not weights, but are drawn again whenever the head is built.
    """

    def __init__(
        self,
        channels,
        num_classes,
        *,
        dimension: Count = 8192,
        seed: Annotated[int, at_least(0)] = 0,
        epsilon: NotNegative = 1e-6,
        dropout: Rate = 0.0,
        rngs,
    ):
        if len(channels) not in (1, 2):
            raise ValueError(
                f"head 'compact_bilinear' takes one or two feature maps, not {len(channels)}"
            )
        self.dimension = dimension
        self.seeds = (2 * seed, 2 * seed + 1)
        self.epsilon = epsilon
        self.dropout = nnx.Dropout(dropout)
        self.fc = layers.Linear(dimension, num_classes, rngs=rngs)

    def __call__(self, maps, *, rngs=None):
        basic.check_grids(maps)
        first, second = _positions(maps[0]), _positions(maps[-1])
        x = tensor_sketch(first, second, dimension=self.dimension, seeds=self.seeds)
        x = basic.l2_normalise(basic.signed_sqrt(x, self.epsilon))
        return self.fc(self.dropout(x, rngs=rngs)), {}


def covariance(x):
    """Covariances [B, C, C] over the N positions of x [B, N, C], divided by N."""
    centred = x - x.mean(1, keepdims=True)
    return jnp.einsum("bnc,bnd->bcd", centred, centred, precision=_EXACT) / x.shape[1]


class IsqrtCov(nnx.Module):
    """Covariance of `dimension` channels, its matrix square root, then a linear layer (iSQRT-COV).

    Paper: Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square
    Root Normalization (arXiv 1712.01034). A 1x1 convolution, batch norm and ReLU reduce the number
    of channels. The classifier reads the upper triangle of the root, which has
    dimension * (dimension + 1) / 2 numbers. iterations: see `matrix_root`.
    """

    def __init__(
        self,
        channels,
        num_classes,
        *,
        dimension: Count = 256,
        iterations: Count = 5,
        dropout: Rate = 0.0,
        rngs,
    ):
        features = basic.one_map("isqrt_cov", channels)
        self.iterations = iterations
        self.reduction = layers.Conv(features, dimension, 1, rngs=rngs)
        self.bn = layers.BatchNorm(dimension, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.fc = layers.Linear(dimension * (dimension + 1) // 2, num_classes, rngs=rngs)

    def __call__(self, maps, *, rngs=None):
        (x,) = maps
        x = jax.nn.relu(self.bn(self.reduction(x.astype(jnp.float32))))
        root = matrix_root.matrix_sqrt(covariance(_positions(x)), self.iterations)
        rows, columns = np.triu_indices(root.shape[-1])
        return self.fc(self.dropout(root[:, rows, columns], rngs=rngs)), {}


class LowRankBilinear(nnx.Module):
    """A classifier of bilinear features with a matrix of low rank for each class; the bilinear
    feature is never computed.

    Paper: Low-rank Bilinear Pooling for Fine-Grained Classification (arXiv 1611.05109), with the
    shared factor (their co-decomposition). A linear layer reduces the features x, after signed_sqrt
    as in the authors' code, to `dimension` features y. Class k has `rank` vectors v_kj of that
    length. Its logit is the mean over the positions of sum_j +-(v_kj . y)^2, plus a bias, with plus
    for the first half of the vectors and minus for the second.
    """

    def __init__(
        self,
        channels,
        num_classes,
        *,
        dimension: Count = 100,
        rank: Annotated[int, at_least(2), Limit("even", lambda rank: rank % 2 == 0)] = 8,
        epsilon: NotNegative = 1e-5,
        rngs,
    ):
        features = basic.one_map("low_rank_bilinear", channels)
        self.epsilon = epsilon
        self.reduction = layers.Linear(features, dimension, rngs=rngs)
        shape = (dimension, rank, num_classes)
        self.factors = nnx.Param(dimension**-0.5 * jax.random.normal(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(num_classes))

    def __call__(self, maps, *, rngs=None):
        (x,) = maps
        x = self.reduction(basic.signed_sqrt(_positions(x), self.epsilon))
        # dimension x dimension for each image, so that not every class reads all positions.
        products = jnp.einsum("bnc,bnd->bcd", x, x, precision=_EXACT) / x.shape[1]
        factors = self.factors[...]
        dimension, rank, classes = factors.shape
        seen = jnp.einsum("bcd,drk->bcrk", products, factors, precision=_EXACT)
        squares = (seen * factors[None]).sum(1)
        logits = squares[:, : rank // 2].sum(1) - squares[:, rank // 2 :].sum(1)
        return logits + self.bias[...][None], {}
