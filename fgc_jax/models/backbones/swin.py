"""Swin Transformer, V1: attention within windows; every second block shifts them by half a window.

Paper: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows (arXiv 2103.14030).
Names and numbers follow timm.

Images may have any size that is a multiple of the patch. Grids are padded to whole windows. If an
axis is not longer than the window, the window gets the length of the axis, nothing is shifted,
and the table of relative positions is resampled to that window. timm does the same for a network
created for that image size.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgc_jax.models import attention, bridge, layers
from fgc_jax.models.backbones import vit

PATCH = 4
STRIDES = {"stem": 4, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}

_norm = functools.partial(layers.LayerNorm, epsilon=1e-5)


# Relative positions: a table is [(2 h - 1) (2 w - 1), heads] for windows of h x w.


def _knots(source, target):
    """The places of `source` entries on an axis of `target` entries, both centred on 0.

    The steps grow by a constant factor, chosen so that the outermost entries of both are equal.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        factor = (low + high) / 2
        reach = (1 - factor ** (source // 2)) / (1 - factor)
        low, high = (low, factor) if reach > target // 2 else (factor, high)
    half = np.cumsum([factor**step for step in range(source // 2)])
    return np.concatenate([-half[::-1], [0], half])


@functools.cache
def _axis_weights(source, target):
    """[target, source] float32: linear between the knots, constant after the last."""
    places = np.arange(target) - target // 2
    knots = _knots(source, target)
    columns = [np.interp(places, knots, unit) for unit in np.eye(source)]
    return np.stack(columns, axis=1).astype(np.float32)


def resize_table(table, window, target):
    """The table [P, heads] of windows (h, w) for windows of another size `target`.

    As in timm, which follows the published code of BEiT (arXiv 2106.08254), but with bilinear
    weights.
    """
    if window == target:
        return table
    (h, w), (rows, columns) = (
        [2 * n - 1 for n in window],
        [_axis_weights(2 * n - 1, 2 * m - 1) for n, m in zip(window, target, strict=True)],
    )
    grid = jnp.einsum("ay,bx,yxc->abc", rows, columns, table.reshape(h, w, -1))
    return grid.reshape(-1, grid.shape[2])


def fit_table(table, shape):
    """A stored table of square windows for a model with square windows of another size.

    Returned unchanged if that is not possible (no such window, other heads); the caller then raises
    the error.
    """
    sides = [(math.isqrt(count) + 1) // 2 for count in (len(table), shape[0])]
    counts = [(2 * side - 1) ** 2 for side in sides]
    if table.ndim != 2 or counts != [len(table), shape[0]] or table.shape[1] != shape[1]:
        return table
    return np.asarray(resize_table(table, *((side, side) for side in sides)))


def _differences(x, axis):
    """Replaces an axis of 2 n - 1 by axes [n, n]: entry (i, j) is the old entry i - j + n - 1.

    Copies shifted by one from row to row instead of a gather: the gradient sums in a fixed order.
    """
    n = (x.shape[axis] + 1) // 2
    x = jnp.flip(jnp.moveaxis(x, axis, -1), -1)
    rest = x.shape[:-1]
    x = jnp.pad(x, (*((0, 0),) * len(rest), (0, 1)))
    rows = jnp.broadcast_to(x[..., None, :], (*rest, n, 2 * n)).reshape(*rest, -1)
    rows = rows[..., : n * (2 * n - 1)].reshape(*rest, n, 2 * n - 1)[..., n - 1 :]
    return jnp.moveaxis(rows, (-2, -1), (axis, axis + 1))


def position_bias(table, window):
    """[heads, h w, h w] for a table of the same window (h, w)."""
    h, w = window
    x = table.T.reshape(-1, 2 * h - 1, 2 * w - 1)
    x = _differences(_differences(x, 1), 3)  # [heads, h, h, w, w]
    return x.transpose(0, 1, 3, 2, 4).reshape(-1, h * w, h * w)


# Windows of a grid [B, H, W, C], padded to whole windows.


def shift_mask(grid, window, shift):
    """float32 [windows, h w, h w]: -100 between places that are together only by the shift."""

    def parts(length, side, by):
        places = np.arange(length)
        return (
            np.add(places >= length - side, places >= length - by, dtype=int) if by else places * 0
        )

    rows, columns = map(parts, grid, window, shift)
    regions = 3 * rows[:, None] + columns
    regions = np.asarray(partition(regions[None, :, :, None], window))[0, :, :, 0]
    return np.where(regions[:, :, None] == regions[:, None], 0, -100).astype(np.float32)


def partition(x, window):
    """[B, H, W, C] -> [B, windows, h w, C]; H and W are multiples of (h, w)."""
    b, height, width, c = x.shape
    h, w = window
    x = x.reshape(b, height // h, h, width // w, w, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, h * w, c)


def join(x, window, grid):
    """The inverse of `partition`, for grid = (H, W)."""
    h, w = window
    (height, width), c = grid, x.shape[-1]
    x = x.reshape(-1, height // h, width // w, h, w, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, width, c)


class WindowAttention(nnx.Module):
    """Self-attention of [B, windows, h w, C] within each window, with a bias for each pair."""

    def __init__(self, features, heads, window, *, dtype, rngs):
        table = 0.02 * jax.random.normal(rngs.params(), ((2 * window - 1) ** 2, heads))
        self.relative_position_bias_table = nnx.Param(table)
        linear = functools.partial(attention.linear, dtype=dtype, rngs=rngs)
        self.qkv, self.proj = linear(features, 3 * features), linear(features, features)
        self.heads = heads
        self.window = (window, window)

    def _bias(self, window, mask):
        table = self.relative_position_bias_table[...]
        bias = position_bias(resize_table(table, self.window, window), window)
        return bias if mask is None else bias[None] + jnp.asarray(mask)[:, None]

    def __call__(self, x, window, mask):
        q, k, v = attention.split_heads(self.qkv(x), self.heads)
        x = attention.attend(q, k, v, self._bias(window, mask))
        return self.proj(attention.merge_heads(x))

    def weights(self, x, window, mask):
        """float32 [B, windows, heads, h w, h w]."""
        q, k, _ = attention.split_heads(self.qkv(x), self.heads)
        return attention.attention_weights(q, k, self._bias(window, mask))


class Block(nnx.Module):
    """Window attention and MLP, each after a layer norm: [B, H, W, C] -> the same shape."""

    def __init__(self, features, heads, window, *, shifted, rate, dtype, rngs):
        self.norm1 = _norm(features, dtype=dtype, rngs=rngs)
        self.attn = WindowAttention(features, heads, window, dtype=dtype, rngs=rngs)
        self.drop_path1 = layers.DropPath(rate)
        self.norm2 = _norm(features, dtype=dtype, rngs=rngs)
        self.mlp = attention.Mlp(features, 4 * features, dtype=dtype, rngs=rngs)
        self.drop_path2 = layers.DropPath(rate)
        self.shifted = shifted

    def _plan(self, grid):
        """(window, shift, padded grid, mask or None) for a grid (H, W)."""
        sides = tuple(zip(grid, self.attn.window, strict=True))
        window = tuple(min(pair) for pair in sides)
        shift = tuple(w // 2 if self.shifted and n > w else 0 for n, w in sides)
        padded = tuple(-(-n // w) * w for n, w in zip(grid, window, strict=True))
        return window, shift, padded, shift_mask(padded, window, shift) if any(shift) else None

    def _windows(self, x):
        grid = x.shape[1:3]
        window, shift, padded, mask = self._plan(grid)
        x = self.norm1(x)
        if any(shift):
            x = jnp.roll(x, [-by for by in shift], (1, 2))
        if padded != grid:
            ends = [(0, long - n) for long, n in zip(padded, grid, strict=True)]
            x = jnp.pad(x, ((0, 0), *ends, (0, 0)))
        return partition(x, window), window, mask

    def __call__(self, x, *, rngs=None):
        grid = x.shape[1:3]
        window, shift, padded, _ = self._plan(grid)
        y = join(self.attn(*self._windows(x)), window, padded)[:, : grid[0], : grid[1]]
        if any(shift):
            y = jnp.roll(y, shift, (1, 2))
        x = x + self.drop_path1(y, rngs=rngs)
        return x + self.drop_path2(self.mlp(self.norm2(x)), rngs=rngs)

    def attention(self, x):
        """float32 [B, windows, heads, h w, h w]; for shifted windows if the block shifts them."""
        return self.attn.weights(*self._windows(x))


class PatchMerging(nnx.Module):
    """2x2 neighbours concatenated, layer norm, linear: [B, H, W, C] -> [B, H / 2, W / 2, 2 C]."""

    def __init__(self, features, *, dtype, rngs):
        self.norm = _norm(4 * features, dtype=dtype, rngs=rngs)
        self.reduction = attention.linear(
            4 * features, 2 * features, use_bias=False, dtype=dtype, rngs=rngs
        )

    def __call__(self, x):
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(x.reshape(b, h // 2, w // 2, 4 * c)))


class Stage(nnx.Module):
    """`downsample` (not in the first stage) and `blocks`."""

    def __init__(self, features, heads, window, rates, *, first, dtype, rngs):
        self.downsample = None if first else PatchMerging(features // 2, dtype=dtype, rngs=rngs)
        self.blocks = layers.Blocks(
            Block(features, heads, window, shifted=i % 2 == 1, rate=rate, dtype=dtype, rngs=rngs)
            for i, rate in enumerate(rates)
        )


class Swin(nnx.Module):
    """Maps "stem", "stage1" ... "stage4", "features" (after the last norm), and the attention
    maps "attention/STAGE.BLOCK", float32 [B, windows, heads, h w, h w].

    Raises ValueError for sides that are not multiples of the patch, 4.
    """

    def __init__(self, width, depths, window, *, setup, rngs):
        dtype, last, names = setup.dtype, setup.last, list(STRIDES)
        rates = layers.drop_rates(setup.drop_path, depths)
        count = names.index(last) if last in names else len(depths)
        self.remat = setup.remat
        self.patch_embed = vit.PatchEmbed(width, PATCH, norm=_norm, dtype=dtype, rngs=rngs)
        self.layers = layers.Blocks(
            Stage(
                width * 2**i,
                width * 2**i // 32,
                window,
                rates[i],
                first=i == 0,
                dtype=dtype,
                rngs=rngs,
            )
            for i in range(count)
        )
        features = width * 2 ** (len(depths) - 1)
        self.norm = None if last in names else _norm(features, dtype=dtype, rngs=rngs)

    def __call__(self, x, *, rngs=None):
        maps = {}
        x = maps["stem"] = self.patch_embed(x)
        for number, stage in enumerate(self.layers):
            if stage.downsample is not None:
                x = stage.downsample(x)
            for index, block in enumerate(stage.blocks):
                maps[f"attention/{number}.{index}"] = block.attention(x)
                x = bridge.run(block, x, rngs=rngs, remat=self.remat)
            maps[f"stage{number + 1}"] = x
        if self.norm is not None:
            maps["features"] = self.norm(x)
        return maps
