"""Heads that score every position of several feature maps and combine the best ones in a graph.

Papers: A Novel Plug-in Module for Fine-Grained Visual Classification (PIM, arXiv 2202.03822);
Fine-grained Visual Classification with High-temperature Refinement and Background Suppression
(HERBS, arXiv 2303.06442). Their losses are methods.pim.make and methods.pim.make_herbs.

Both read two or more maps of one backbone, from the finest to the coarsest. Differences from the
authors' code: it reads Swin's maps after each patch merging (grids of 48, 24, 12 and 12 at 384 px);
these heads read the maps that the recipe names. It learns a matrix from the positions of one grid
to those of the next, which fits one image size only; these heads interpolate linearly.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Count, Rate
from fgc_jax.models import layers
from fgc_jax.models.heads import basic

SCORES, EARLY, PICKED = "scores", "early", "picked"  # prefixes of the names of returned arrays


class TwoLayers(nnx.Module):
    """Linear, ReLU, linear: [..., C] -> [..., out]."""

    def __init__(self, features, out, *, rngs):
        self.fc1 = layers.Linear(features, features, rngs=rngs)
        self.fc2 = layers.Linear(features, out, rngs=rngs)

    def __call__(self, x):
        return self.fc2(jax.nn.relu(self.fc1(x)))


class PositionScores(nnx.Module):
    """Class scores of every position: [B, h, w, C] -> [B, h, w, K]."""

    def __init__(self, features, num_classes, *, rngs):
        self.fc1 = layers.Linear(features, features, rngs=rngs)
        self.bn = layers.BatchNorm(features, rngs=rngs)
        self.fc2 = layers.Linear(features, num_classes, rngs=rngs)

    def __call__(self, x):
        return self.fc2(jax.nn.relu(self.bn(self.fc1(x))))


class Combiner(nnx.Module):
    """S chosen vectors [B, S, C] -> one [B, C]. The `joints` nodes of a graph are weighted sums of
    the vectors; its edges are learned and, by `alpha`, depend on the image. After a convolution
    over the graph a weighted sum gives the result.
    """

    def __init__(self, features, chosen, joints, *, rngs):
        thin = max(features // 4, 1)
        self.gather = layers.Linear(chosen, joints, rngs=rngs)
        self.edges = nnx.Param((jnp.eye(joints) + 1) / 100)
        self.query = layers.Linear(features, thin, rngs=rngs)
        self.key = layers.Linear(features, thin, rngs=rngs)
        self.alpha = nnx.Param(jnp.zeros(1))
        self.fc1 = layers.Linear(features, features, rngs=rngs)
        self.bn = layers.BatchNorm(features, rngs=rngs)
        self.join = layers.Linear(joints, 1, rngs=rngs)

    def __call__(self, x):
        x = self.gather(x.swapaxes(1, 2)).swapaxes(1, 2)
        query, key = self.query(x).mean(-1), self.key(x).mean(-1)
        own = jnp.tanh(query[:, :, None] - key[:, None, :])
        edges = self.edges[...][None] + self.alpha[...].reshape(1, 1, 1) * own
        x = self.bn(jnp.einsum("bic,bij->bjc", self.fc1(x), edges))
        return self.join(x.swapaxes(1, 2))[:, :, 0]


def resized(x, grid):
    """x [B, h, w, C] resized to another grid (h, w), linearly; to a coarser grid with averages.

    On a finer grid this is PyTorch's bilinear interpolation without aligned corners.
    """
    if x.shape[1:3] == tuple(grid):
        return x
    return jax.image.resize(x, (len(x), *grid, x.shape[3]), "linear", antialias=True)


def pick(x, ranks, count):
    """(the `count` vectors of x [B, h, w, C] with the largest ranks [B, h, w], as [B, count, C],
    best first; f32 [B, h, w], 1 where a vector was picked). Of equal ranks the first is picked.

    Raises:
        ValueError: the map has fewer positions than `count`.
    """
    b, h, w, c = x.shape
    if count > h * w:
        raise ValueError(
            f"config.model.head_options.selects: {count} positions of a map that has {h} x {w}: "
            "choose fewer, or larger images"
        )
    ranks = jax.lax.stop_gradient(ranks).reshape(b, h * w)
    _, order = jax.lax.top_k(ranks, count)
    found = jnp.take_along_axis(x.reshape(b, h * w, c), order[:, :, None], axis=1)
    picked = jnp.zeros((b, h * w)).at[jnp.arange(b)[:, None], order].set(1.0)
    return found, picked.reshape(b, h, w)


def highest_probability(scores):
    """PIM's ranks [B, h, w] of scores [B, h, w, K]: the probability of each position's class."""
    return jax.nn.softmax(scores, axis=-1).max(-1)


def class_of_the_image(scores):
    """HERBS' ranks [B, h, w] of scores [B, h, w, K]: the probability of the class that has the
    highest mean score of all positions."""
    best = jnp.argmax(scores.mean((1, 2)), axis=-1)
    one = jax.nn.one_hot(best, scores.shape[-1])
    return jnp.einsum("bhwk,bk->bhw", jax.nn.softmax(scores, axis=-1), one)


class Pim(nnx.Module):
    """PIM: a feature pyramid of `width` channels, class scores of all its positions, and a graph of
    the best `selects[i]` positions of map i, which gives the logits.

    tokens_per_joint: positions for each node of the graph. Named arrays: "scores/0", ... f32
    [B, h, w, K] and "picked/0", ... f32 [B, h, w], 1 where the graph reads the position.

    The authors report the best result on test images of several combinations of the scores and
    these logits; here the logits are the prediction.
    """

    order = basic.FINE_TO_COARSE

    def __init__(
        self,
        channels,
        num_classes,
        *,
        width: Count = 1536,
        selects: tuple[Count, ...] = (2048, 512, 128, 32),
        tokens_per_joint: Count = 32,
        dropout: Rate = 0.1,
        rngs,
    ):
        self.pyramid = Pyramid(channels, width, rngs=rngs)
        self.graph = Graph(
            channels, width, num_classes, selects, highest_probability, tokens_per_joint, rngs=rngs
        )
        self.dropout = nnx.Dropout(dropout)
        self.fc = layers.Linear(width, num_classes, rngs=rngs)

    def __call__(self, maps, *, rngs=None):
        joined, named = self.graph(self.pyramid(maps))
        return self.fc(self.dropout(joined, rngs=rngs)), named


class Herbs(nnx.Module):
    """HERBS: PIM's pyramid, whose scores are "early/0", ..., and a second path from the finest to
    the coarsest map. Scores and graph are those of the second path, and positions are ranked by the
    class of the whole image. Options and the other arrays are those of Pim."""

    order = basic.FINE_TO_COARSE

    def __init__(
        self,
        channels,
        num_classes,
        *,
        width: Count = 1536,
        selects: tuple[Count, ...] = (256, 128, 64, 32),
        tokens_per_joint: Count = 64,
        dropout: Rate = 0.1,
        rngs,
    ):
        self.pyramid = Pyramid(channels, width, rngs=rngs)
        self.early = _scores(channels, width, num_classes, rngs)
        self.back = layers.Blocks(TwoLayers(width, width, rngs=rngs) for _ in channels)
        self.graph = Graph(
            channels, width, num_classes, selects, class_of_the_image, tokens_per_joint, rngs=rngs
        )
        self.dropout = nnx.Dropout(dropout)
        self.fc = layers.Linear(width, num_classes, rngs=rngs)

    def __call__(self, maps, *, rngs=None):
        levels = self.pyramid(maps)
        early = [score(x) for score, x in zip(self.early, levels, strict=True)]
        levels = [project(x) for project, x in zip(self.back, levels, strict=True)]
        for index in range(1, len(levels)):
            levels[index] += resized(levels[index - 1], levels[index].shape[1:3])
        joined, named = self.graph(levels)
        named |= {f"{EARLY}/{index}": scores for index, scores in enumerate(early)}
        return self.fc(self.dropout(joined, rngs=rngs)), named


class Pyramid(nnx.Module):
    """Maps [B, h, w, C], finest first -> the same grids with `width` channels each, to which
    the coarser ones are added; float32. Paper: Feature Pyramid Networks (arXiv 1612.03144)."""

    def __init__(self, channels, width, *, rngs):
        self.project = layers.Blocks(TwoLayers(c, width, rngs=rngs) for c in channels)

    def __call__(self, maps):
        steps = zip(self.project, maps, strict=True)
        levels = [project(x.astype(jnp.float32)) for project, x in steps]
        for index in range(len(levels) - 2, -1, -1):
            levels[index] += resized(levels[index + 1], levels[index].shape[1:3])
        return levels


class Graph(nnx.Module):
    """Levels [B, h, w, width] -> (one vector from their best positions, f32 [B, width]; "scores/i"
    and "picked/i" of each level). ranks: class scores [B, h, w, K] -> ranks [B, h, w]."""

    def __init__(self, channels, width, num_classes, selects, ranks, tokens_per_joint, *, rngs):
        if len(channels) < 2:
            raise ValueError(
                "a pyramid needs several feature maps of one backbone, from the finest to the "
                "coarsest: config.model.feature_map='stage2+stage3+features'"
            )
        if len(selects) != len(channels):
            raise ValueError(
                f"config.model.head_options.selects={selects!r} must be one number for each "
                f"of the {len(channels)} feature maps"
            )
        self.selects = tuple(selects)
        self.ranks = ranks
        self.scores = _scores(channels, width, num_classes, rngs)
        total = sum(selects)
        self.combiner = Combiner(width, total, max(total // tokens_per_joint, 1), rngs=rngs)

    def __call__(self, levels):
        chosen, named = [], {}
        for index, (x, count) in enumerate(zip(levels, self.selects, strict=True)):
            scores = self.scores[index](x)
            found, picked = pick(x, self.ranks(scores), count)
            chosen.append(found)
            named |= {f"{SCORES}/{index}": scores, f"{PICKED}/{index}": picked}
        return self.combiner(jnp.concatenate(chosen, axis=1)), named


def _scores(channels, width, num_classes, rngs):
    return layers.Blocks(PositionScores(width, num_classes, rngs=rngs) for _ in channels)
