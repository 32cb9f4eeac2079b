"""Square roots of batches of matrices, computed with matrix products only."""

import functools

import jax
import jax.numpy as jnp

# A matrix with a smaller trace counts as zero: the gradient of its square root is not finite.
LEAST_TRACE = 1e-6


def matrix_sqrt(x, iterations):
    """Approximate square roots [B, C, C] of symmetric positive semi-definite matrices x [B, C, C].

    Coupled Newton-Schulz iterations on x divided by its trace; the result is multiplied by the
    square root of the trace. Only matrix products are used, so gradients are finite even if
    eigenvalues are equal or zero. The roots of small eigenvalues are too small: for an eigenvalue
    e, relative to the trace, the result is at most 1.5 ** iterations * e.

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
