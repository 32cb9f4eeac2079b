"""From NNX modules to pure functions: the only place where a module is rebuilt from its state."""

import jax
import jax.numpy as jnp
from flax import nnx


def apply(graphdef, params, stats, function, *args):
    """Calls `function(model, *args)` with the live module; returns (its result, new batch-norm
    statistics).

    A pure function, and the only bridge between parameter trees and NNX modules.
    """
    # copy=True: NNX updates statistics only if the module's state was created in this trace.
    model = nnx.merge(graphdef, params, stats, copy=True)
    result = function(model, *args)
    return result, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def infer(graphdef, params, stats, images):
    """(logits, named maps) of images [B, H, W, 3] that are normalised; see `Classifier`."""
    return apply(graphdef, params, stats, lambda model: model(images))[0]


def run(block, x, *, rngs=None, remat=False):
    """block(x, rngs=rngs), an array. With `remat` the backward pass computes the block again
    instead of storing its activations (gradient checkpointing: less memory, more time).

    Paper: Training Deep Nets with Sublinear Memory Cost (arXiv 1604.06174).
    """
    # One key for each block, so that both computations draw the same numbers.
    key = None if rngs is None else rngs.dropout()
    if not remat:
        return block(x, rngs=None if key is None else nnx.Rngs(key))
    graphdef, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)

    def call(params, x, stats, key):
        rngs = None if key is None else nnx.Rngs(key)
        return apply(graphdef, params, stats, lambda live: live(x, rngs=rngs))

    y, stats = _computed_again(call)(params, x, stats, key)
    nnx.update(block, stats)
    return y


def _computed_again(function):
    """function(params, x, stats, key) -> (y, new stats), storing only its arguments for the
    backward pass.

    jax.checkpoint separates the two computations by a barrier. XLA:CPU removes it before it merges
    equal computations, so activations are stored after all. Here the computations differ: the x of
    the second one depends on the upstream gradient, without using its value. The same is done with
    its vectors (scales and biases), because their broadcast copies would be shared and stored.
    """

    def forward(*arguments):
        return function(*arguments), arguments

    def backward(arguments, gradients):
        params, x, stats, key = arguments
        g, _ = gradients
        # One number for each image, so that devices with parts of the batch need no communication.
        first = g[(slice(None), *(slice(0, 1),) * (g.ndim - 1))].reshape(-1)
        nothing = jnp.minimum(jnp.abs(first), 0)
        x = x + nothing.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)
        if jax.device_count() == 1:

            def wait(v):
                return v + nothing[0].astype(v.dtype) if v.ndim == 1 else v

            params = jax.tree.map(wait, params)
        _, transpose = jax.vjp(lambda *two: function(*two, stats, key)[0], params, x)
        return *transpose(g), None, None

    wrapped = jax.custom_vjp(function)
    wrapped.defvjp(forward, backward)
    return wrapped
