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


def resized(image, rows, columns):
    """Bilinear with aligned corners, pixel by pixel."""
    h, w = image.shape[:2]
    result = np.zeros((rows, columns, *image.shape[2:]))
    for i in range(rows):
        for j in range(columns):
            y, x = i * (h - 1) / max(rows - 1, 1), j * (w - 1) / max(columns - 1, 1)
            top, left = min(int(y), h - 1), min(int(x), w - 1)
            below, right = min(top + 1, h - 1), min(left + 1, w - 1)
            fy, fx = y - top, x - left
            upper = (1 - fx) * image[top, left] + fx * image[top, right]
            lower = (1 - fx) * image[below, left] + fx * image[below, right]
            result[i, j] = (1 - fy) * upper + fy * lower
    return result
