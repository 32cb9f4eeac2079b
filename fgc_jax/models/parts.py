"""Which of a vision transformer's tokens show the parts that tell classes apart.

Paper: TransFG: A Transformer Architecture for Fine-grained Recognition (arXiv 2103.07976).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp


def class_attention(
    attention: Sequence[Callable[[jax.Array], jax.Array]], tokens: Sequence[jax.Array]
) -> jax.Array:
    """Float32 [B, heads, T]: how much the class token, the first, has taken from each token over
    all blocks; without a gradient.

    attention: of each block, tokens [B, T, C] before it -> its weights [B, heads, T, T]. The
    result is the first row of their product, the last block's on the left, each head by itself and
    without the shortcuts. Only that row is computed, from the last block back to the first.
    """
    row = None
    for weigh, x in zip(reversed(attention), reversed(tokens), strict=True):
        x = jax.lax.stop_gradient(x)
        if row is not None:
            # One block's weights after the other: together they would fill the memory. What the
            # row adds is 0, which XLA cannot know (it removes a barrier on CPU).
            x = x + jnp.minimum(row[:, :1, :1], 0).astype(x.dtype)
        weights = jax.lax.stop_gradient(weigh(x))
        row = weights[:, :, 0] if row is None else jnp.einsum("bhq,bhqk->bhk", row, weights)
    return row


def choose(tokens: jax.Array, scores: jax.Array) -> jax.Array:
    """[B, 1 + heads, C]: of tokens [B, T, C] the first, the class token, and for each head the one
    with the largest of scores [B, heads, t], which belong to the last t tokens. Two heads may
    choose the same one."""
    grid = tokens[:, tokens.shape[1] - scores.shape[2] :]
    # Products with 0 and 1 in place of a gather, whose gradient would be summed in any order.
    picked = jax.nn.one_hot(jnp.argmax(scores, axis=-1), grid.shape[1], dtype=grid.dtype)
    exact = jax.lax.Precision.HIGHEST
    chosen = jnp.einsum("bht,btc->bhc", picked, grid, precision=exact)
    return jnp.concatenate([tokens[:, :1], chosen], axis=1)
