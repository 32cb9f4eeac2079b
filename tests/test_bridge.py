"""Gradient checkpointing changes memory, and no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgc_jax.models import bridge, layers


class Block(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = layers.Conv(4, 4, 3, rngs=rngs)
        self.norm = layers.BatchNorm(4, rngs=rngs)
        self.drop_path = layers.DropPath(0.5)
        self.dropout = nnx.Dropout(0.3)

    def __call__(self, x, *, rngs=None):
        y = self.dropout(jnp.tanh(self.norm(self.conv(x))), rngs=rngs)
        return x + self.drop_path(y, rngs=rngs)


def outcome(remat, dtype=jnp.float32):
    """(loss, new statistics, gradients of parameters and input) of two blocks in training."""
    blocks = layers.Blocks([Block(), Block()])
    view = nnx.view(blocks, deterministic=False, use_running_average=False)
    graphdef, params, stats = nnx.split(view, nnx.Param, nnx.BatchStat)
    x = jax.random.normal(jax.random.key(1), (6, 5, 5, 4), dtype)

    def loss(params, x):
        def run(blocks):
            y, rngs = x, nnx.Rngs(jax.random.key(2))
            for block in blocks:
                y = bridge.run(block, y, rngs=rngs, remat=remat)
            return jnp.square(y.astype(jnp.float32)).sum()

        return bridge.apply(graphdef, params, stats, run)

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_remat_changes_no_number(dtype):
    plain, again = (jax.tree.leaves(outcome(remat, dtype)) for remat in (False, True))
    assert len(plain) == len(again)
    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    for first, second in zip(plain, again, strict=True):
        assert first.dtype == second.dtype
        first, second = (np.asarray(x, np.float32) for x in (first, second))
        np.testing.assert_allclose(first, second, rtol=tolerance, atol=tolerance)


def test_an_infinite_gradient_stays_where_it_is():
    """The part of the upstream gradient that holds the second computation back adds nothing."""
    block = nnx.view(Block(), deterministic=True, use_running_average=True)
    graphdef, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)

    def forward(x):
        run = lambda block: bridge.run(block, x, remat=True)  # noqa: E731
        return bridge.apply(graphdef, params, stats, run)[0]

    y, pull = jax.vjp(forward, jnp.ones((1, 5, 5, 4)))
    (dx,) = pull(jnp.zeros_like(y).at[0, 0, 0, 0].set(-jnp.inf))
    assert not jnp.isfinite(dx[0, 0, 0]).all()
    assert jnp.isfinite(dx[0, 2:, 2:]).all()
