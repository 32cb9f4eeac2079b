"""Square roots of batches of matrices, by products of matrices alone."""

import functools

import jax
import jax.numpy as jnp

# Below this trace a matrix counts as zero: its square root has no finite gradient there.
LEAST_TRACE = 1e-6


def matrix_sqrt(x, iterations):
    """Square roots [B, C, C] of symmetric positive semi-definite matrices x [B, C, C], nearly.

    Coupled Newton-Schulz iterations on x over its trace, whose square root is multiplied back: only
    products of matrices, so that gradients are finite where eigenvalues are equal or zero. Small
    ones come out too small: of an eigenvalue e, over the trace, at most 1.5 ** iterations * e.

    Paper: Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square
    Root Normalization (arXiv 1712.01034).
    """
    dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    trace = jnp.maximum(jnp.trace(x, axis1=1, axis2=2), LEAST_TRACE)[:, None, None]
    three = 3 * jnp.eye(x.shape[-1])[None]
    a = x / trace
    z = 0.5 * (three - a)
    y = dot(a, z)
    for _ in range(iterations - 1):
        change = 0.5 * (three - dot(z, y))
        y, z = dot(y, change), dot(change, z)
    return jnp.sqrt(trace) * y
