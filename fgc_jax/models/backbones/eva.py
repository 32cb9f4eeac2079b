"""DINOv3's vision transformers: rotary positions, four registers, no bias of the projections.

Papers: DINOv3 (arXiv 2508.10104); RoFormer (arXiv 2104.09864). Names and numbers follow timm's
class Eva, which does not shift or stretch the coordinates in training.
"""

import functools
import math

import jax.numpy as jnp
from flax import nnx

from fgc_jax.models import attention, layers, position
from fgc_jax.models.backbone import Backbone, timm_facts
from fgc_jax.models.backbones import vit

REGISTERS = 4
EPSILON = 1e-5


class Block(nnx.Module):
    """As vit.Block, with queries and keys rotated by the places of their tokens: [B, T, C] -> the
    same.

    index: the number of blocks before this one.
    """

    def __init__(self, features, heads, *, index, rate, dtype, rngs):
        norm = functools.partial(layers.LayerNorm, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        std = 0.02 / math.sqrt(2 * (index + 1))
        self.norm1 = norm(features)
        self.attn = attention.Attention(
            features, heads, qkv_bias=False, std=std, dtype=dtype, rngs=rngs
        )
        self.gamma_1 = nnx.Param(jnp.full(features, 1e-5))
        self.norm2 = norm(features)
        self.mlp = attention.Mlp(features, 4 * features, std=std, dtype=dtype, rngs=rngs)
        self.gamma_2 = nnx.Param(jnp.full(features, 1e-5))
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, turn, *, rngs=None):
        y = self.attn(self.norm1(x), turn)
        x = x + self.drop_path(layers.scaled(y, self.gamma_1), rngs=rngs)
        y = self.mlp(self.norm2(x))
        return x + self.drop_path(layers.scaled(y, self.gamma_2), rngs=rngs)


class Placed(nnx.Module):
    """A block and the grid (h, w) of its last h w tokens."""

    def __init__(self, block, grid):
        self.block = block
        self.grid = grid

    def __call__(self, x, *, rngs=None):
        return self.block(x, self._turn(), rngs=rngs)

    def attention(self, x):
        """Float32 [B, heads, T, T]: the attention weights of the block for its input tokens."""
        return self.block.attn.weights(self.block.norm1(x), self._turn())

    def _turn(self):
        features = self.block.norm1.scale.shape[0] // self.block.attn.heads
        return position.rotation(self.grid, features, prefix=1 + REGISTERS)


class Eva(nnx.Module):
    """The maps of vit.VisionTransformer, but with "class_token" instead of "pooled". timm's default
    classifier reads the mean of "features", the authors' linear classifiers the class token."""

    def __init__(self, features, depth, heads, patch, *, setup, rngs):
        dtype = self.dtype = setup.dtype
        self.remat = setup.remat
        self.patch_embed = vit.PatchEmbed(features, patch, dtype=dtype, rngs=rngs)
        self.cls_token = vit.normal((1, 1, features), 0.02, rngs)
        self.reg_token = vit.normal((1, REGISTERS, features), 0.02, rngs)
        (rates,) = layers.drop_rates(setup.drop_path, (depth,))
        self.blocks = layers.Blocks(
            Block(features, heads, index=index, rate=rate, dtype=dtype, rngs=rngs)
            for index, rate in enumerate(rates[: vit.blocks_until(setup.last, depth)])
        )
        whole = len(self.blocks) == depth
        self.norm = (
            layers.LayerNorm(features, epsilon=EPSILON, dtype=dtype, rngs=rngs) if whole else None
        )

    def __call__(self, x, *, rngs=None):
        x = self.patch_embed(x)
        b, h, w, c = x.shape
        prefix = vit.prefix_tokens(self.cls_token, self.reg_token).astype(self.dtype)
        x = vit.join(prefix, x.reshape(b, h * w, c))
        blocks = [Placed(block, (h, w)) for block in self.blocks]
        return vit.run_blocks(
            blocks, self.norm, x, (h, w), "class_token", rngs=rngs, remat=self.remat
        )


def row(shape, patch=16, *, weights, parameters) -> Backbone:
    """A row of BACKBONES; shape: (features, depth, heads)."""
    features, depth, _ = shape
    first = next(iter(weights.values()))
    return vit.row(
        functools.partial(Eva, *shape, patch),
        depth,
        features,
        patch,
        "class_token",
        embed=("cls_token", "reg_token", "patch_embed"),
        weights=weights,
        parameters=parameters,
        gflops=vit.gflops(features, depth, patch, 1 + REGISTERS, first),
    )


_facts = functools.partial(timm_facts, size=256, crop=1.0, license="dinov3-license", classes=0)
_WEB = {"lvd1689m": _facts()}
_SATELLITE = {"sat493m": _facts(norm=((0.43, 0.411, 0.296), (0.213, 0.156, 0.143)))}

DINOV3S = {
    "vit_small_patch16_dinov3": row(vit.SMALL, weights=_WEB, parameters=21_586_944),
    "vit_base_patch16_dinov3": row(vit.BASE, weights=_WEB, parameters=85_641_216),
    "vit_large_patch16_dinov3": row(vit.LARGE, weights=_WEB | _SATELLITE, parameters=303_079_424),
}
