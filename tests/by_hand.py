"""Layers of a head in float64, for formulas that tests compute by hand."""

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


def with_random_norms(head):
    """The head in evaluation; its statistics, scales and biases are drawn at random."""
    rng = np.random.default_rng(0)
    for _, module in nnx.iter_modules(head):
        for name in ("scale", "bias", "mean", "var"):
            if getattr(module, name, None) is not None:
                leaf = getattr(module, name)
                leaf[...] = jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32))
    return nnx.view(head, use_running_average=True)
