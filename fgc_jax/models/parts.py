"""Selects the tokens of a vision transformer that show the parts in which classes differ.

Paper: TransFG: A Transformer Architecture for Fine-grained Recognition (arXiv 2103.07976).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp


def class_attention(
    attention: Sequence[Callable[[jax.Array], jax.Array]], tokens: Sequence[jax.Array]
) -> jax.Array:
    """Float32 [B, heads, T]: how much each token contributes to the class token, which is the
    first, over all blocks; without a gradient.

    attention: for each block a function from the tokens [B, T, C] before it to its weights
    [B, heads, T, T]. The result is the first row of the product of these matrices, the last block's
    on the left, for each head separately and without the shortcuts. Only that row is computed, from
    the last block back to the first.
    """
    row = None
    for weigh, x in zip(reversed(attention), reversed(tokens), strict=True):
        x = jax.lax.stop_gradient(x)
        if row is not None:
            # The weights of one block at a time: together they would fill the memory. The row
            # adds 0, which XLA cannot know (XLA:CPU would remove a barrier).
            x = x + jnp.minimum(row[:, :1, :1], 0).astype(x.dtype)
        weights = jax.lax.stop_gradient(weigh(x))
        row = weights[:, :, 0] if row is None else jnp.einsum("bhq,bhqk->bhk", row, weights)
    return row


def choose(tokens: jax.Array, scores: jax.Array) -> jax.Array:
    """[B, 1 + heads, C]: the class token, which is the first of tokens [B, T, C], and for each head
    the token with the largest of scores [B, heads, t], which belong to the last t tokens. Two heads
    may choose the same token."""
    grid = tokens[:, tokens.shape[1] - scores.shape[2] :]
    # Products with 0 and 1 instead of a gather, whose gradient would be summed in any order.
    picked = jax.nn.one_hot(jnp.argmax(scores, axis=-1), grid.shape[1], dtype=grid.dtype)
    exact = jax.lax.Precision.HIGHEST
    chosen = jnp.einsum("bht,btc->bhc", picked, grid, precision=exact)
    return jnp.concatenate([tokens[:, :1], chosen], axis=1)
