"""Layers in float64, and tiles, for formulas that tests compute by hand."""

import jax.numpy as jnp
import numpy as np
from flax import nnx


def array(leaf):
    return np.float64(leaf[...])


def linear(layer, x):
    return x @ array(layer.kernel) + array(layer.bias)


def norm(layer, x):
    """Batch norm in evaluation."""
    x = (x - array(layer.mean)) / np.sqrt(array(layer.var) + 1e-5)
    return x * array(layer.scale) + array(layer.bias)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def entropy(logits, goal):
    return -goal @ np.log(softmax(np.float64(logits)))


def cut(images, n):
    """The n * n tiles of images [B, H, W, 3], by slices: [B, n * n, pixels, 3]."""
    size = images.shape[1] // n
    tiles = [
        images[:, i * size : (i + 1) * size, j * size : (j + 1) * size].reshape(len(images), -1, 3)
        for i in range(n)
        for j in range(n)
    ]
    return np.stack(tiles, 1)


def with_random_norms(head):
    """The head in evaluation; its statistics, scales and biases are drawn at random."""
    rng = np.random.default_rng(0)
    for _, module in nnx.iter_modules(head):
        for name in ("scale", "bias", "mean", "var"):
            if getattr(module, name, None) is not None:
                leaf = getattr(module, name)
                leaf[...] = jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32))
    return nnx.view(head, use_running_average=True)
