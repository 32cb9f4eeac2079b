"""Vision transformers: ViT, DeiT-III, DINOv2, and CLIP's image encoder.

Papers: An Image is Worth 16x16 Words (arXiv 2010.11929); How to train your ViT (arXiv
2106.10270); DeiT III (arXiv 2204.07118); DINOv2 (arXiv 2304.07193); Vision Transformers Need
Registers (arXiv 2309.16588); Learning Transferable Visual Models From Natural Language
Supervision (arXiv 2103.00020). Names and numbers follow timm; the rows are in vit_table.py.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.models import attention, bridge, layers, position
from fgc_jax.models.backbone import Backbone, by_tag

# Channels, blocks, heads.
TINY, SMALL, BASE, LARGE = (192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16)


class PatchEmbed(nnx.Module):
    """Squares of `patch` pixels, each mapped to C channels: [B, H, W, 3] -> [B, h, w, C].

    norm: the layer behind it, built as norm(features, dtype=, rngs=); None for none. Raises
    ValueError unless H and W are multiples of `patch`.
    """

    def __init__(self, features, patch, *, use_bias=True, norm=None, dtype, rngs):
        self.proj = layers.Conv(
            3, features, patch, stride=patch, padding=0, use_bias=use_bias, dtype=dtype, rngs=rngs
        )
        # PyTorch's own start of a convolution, which timm leaves.
        bound = (3 * patch**2) ** -0.5
        draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        self.proj.kernel = nnx.Param(draw(rngs.params(), (patch, patch, 3, features)))
        if use_bias:
            self.proj.bias = nnx.Param(draw(rngs.params(), (features,)))
        self.norm = layers.same if norm is None else norm(features, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        patch = self.proj.stride
        if x.shape[1] % patch or x.shape[2] % patch:
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} pixels: both sides must be multiples of "
                f"the patch, {patch}"
            )
        return self.norm(self.proj(x))


class LayerScale(nnx.Module):
    """A learned factor for each channel. Paper: Going deeper with Image Transformers
    (arXiv 2103.17239)."""

    def __init__(self, features, start):
        self.gamma = nnx.Param(jnp.full(features, start))

    def __call__(self, x):
        return layers.scaled(x, self.gamma)


class Block(nnx.Module):
    """Attention and MLP, each behind a layer norm and beside a shortcut: [B, T, C] -> the same.

    layer_scale: what the factors of both branches start with; None for no factors.
    """

    def __init__(self, features, heads, *, epsilon, layer_scale, rate, dtype, rngs):
        norm = functools.partial(layers.LayerNorm, epsilon=epsilon, dtype=dtype, rngs=rngs)
        scaled = layer_scale is not None
        self.norm1 = norm(features)
        self.attn = attention.Attention(features, heads, dtype=dtype, rngs=rngs)
        self.ls1 = LayerScale(features, layer_scale) if scaled else layers.same
        self.norm2 = norm(features)
        self.mlp = attention.Mlp(features, 4 * features, dtype=dtype, rngs=rngs)
        self.ls2 = LayerScale(features, layer_scale) if scaled else layers.same
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x))), rngs=rngs)
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))), rngs=rngs)

    def attention(self, x):
        """Float32 [B, heads, T, T]: the weights that the block gives its input's tokens."""
        return self.attn.weights(self.norm1(x))


class VisionTransformer(nnx.Module):
    """Maps "block1", "block2", ... [B, h, w, C] of the grid's tokens alone; behind the last block
    and norm "features", the grid, and "pooled", the class token; "attention/0", ...
    [B, heads, T, T], whose tokens are class token, registers, grid.

    grid: side of the square grid that `pos_embed` is stored for. registers: number of tokens
    between class token and grid. embed_prefix: whether class token and registers have position
    embeddings too. pre_norm: a layer norm before the first block, and no bias of the patches.
    """

    def __init__(
        self,
        features,
        depth,
        heads,
        patch,
        grid,
        *,
        registers=0,
        embed_prefix=True,
        layer_scale=None,
        pre_norm=False,
        epsilon=1e-6,
        dtype,
        rngs,
        last="features",
        drop_path=0.0,
        remat=False,
    ):
        self.grid, self.dtype, self.remat = grid, dtype, remat
        self.embedded = 1 + registers if embed_prefix else 0
        self.patch_embed = PatchEmbed(
            features, patch, use_bias=not pre_norm, dtype=dtype, rngs=rngs
        )
        self.cls_token = normal((1, 1, features), 1e-6, rngs)
        self.reg_token = normal((1, registers, features), 1e-6, rngs) if registers else None
        self.pos_embed = normal((1, self.embedded + grid**2, features), 0.02, rngs)
        norm = functools.partial(layers.LayerNorm, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.norm_pre = norm(features) if pre_norm else layers.same
        (rates,) = layers.drop_rates(drop_path, (depth,))
        self.blocks = layers.Blocks(
            Block(
                features,
                heads,
                epsilon=epsilon,
                layer_scale=layer_scale,
                rate=rate,
                dtype=dtype,
                rngs=rngs,
            )
            for rate in rates[: blocks_until(last, depth)]
        )
        self.norm = norm(features) if len(self.blocks) == depth else None

    def __call__(self, x, *, rngs=None):
        x = self.patch_embed(x)
        b, h, w, c = x.shape
        places = position.resample(
            self.pos_embed[...], (self.grid, self.grid), (h, w), prefix=self.embedded
        )
        prefix = prefix_tokens(self.cls_token, self.reg_token)
        if self.embedded:
            prefix = prefix + places[:, : self.embedded]
        x = x.reshape(b, h * w, c) + places[:, self.embedded :].astype(self.dtype)
        x = self.norm_pre(join(prefix.astype(self.dtype), x))
        return run_blocks(self.blocks, self.norm, x, (h, w), "pooled", rngs=rngs, remat=self.remat)


def normal(shape, std, rngs):
    """A parameter that starts normal with the deviation `std`."""
    return nnx.Param(std * jax.random.normal(rngs.params(), shape))


def blocks_until(last, depth):
    """How many blocks the map `last` needs."""
    return int(last.removeprefix("block")) if last.startswith("block") else depth


def prefix_tokens(cls_token, reg_token):
    """Class token and registers (or None) side by side, [1, 1 + registers, C]."""
    tokens = [token[...] for token in (cls_token, reg_token) if token is not None]
    return jnp.concatenate(tokens, axis=1)


def join(prefix, x):
    """Tokens [1, n, C] put before every image's own [B, T, C]."""
    return jnp.concatenate([jnp.broadcast_to(prefix, (len(x), *prefix.shape[1:])), x], axis=1)


def on_grid(x, grid):
    """The last h w tokens of x [B, T, C] as [B, h, w, C]."""
    h, w = grid
    return x[:, x.shape[1] - h * w :].reshape(len(x), h, w, -1)


def run_blocks(blocks, norm, x, grid, token, *, rngs, remat):
    """The maps of tokens x [B, T, C]: "block1", "attention/0" and so on; behind the final norm
    (None where it is not built) "features" instead of the last block's, and, under the name
    `token`, the class token."""
    maps = {}
    for index, block in enumerate(blocks):
        # Outside bridge.run, so that XLA drops it where nobody reads it.
        maps[f"attention/{index}"] = block.attention(x)
        x = bridge.run(block, x, rngs=rngs, remat=remat)
        maps[f"block{index + 1}"] = on_grid(x, grid)
    if norm is None:
        return maps
    del maps[f"block{len(blocks)}"]
    x = norm(x)
    return maps | {"features": on_grid(x, grid), token: x[:, :1, None]}


def row(build, depth, features, patch, token, *, weights, parameters, **options) -> Backbone:
    """A row of BACKBONES for a transformer of `depth` blocks that has the map `token`.

    build: the class, with its arguments bound. The final norm belongs to the last block's layer,
    as timm's layer-wise learning rate decay has it.
    """
    blocks = [f"block{index}" for index in range(1, depth)]
    ordered = {f"blocks/{index}": (f"blocks/{index}",) for index in range(depth)}
    ordered[f"blocks/{depth - 1}"] += ("norm",)
    return Backbone(
        build=build,
        channels=dict.fromkeys([*blocks, "features", token], features),
        strides=dict.fromkeys([*blocks, "features"], patch) | {token: 0},
        layers={"embed": options.pop("embed")} | ordered,
        depths={name: index + 2 for index, name in enumerate(blocks)}
        | {"features": depth + 1, token: depth + 1},
        weights=by_tag(weights),
        head="gap",
        head_names={"head": "fc"},
        parameters=parameters,
        **options,
    )


def gflops(features, depth, patch, size, prefix, classes):
    """1e9 multiply-adds of the products of an image with sides of `size` pixels."""
    grid = (size // patch) ** 2
    tokens = grid + prefix
    block = 12 * tokens * features**2 + 2 * tokens**2 * features
    return 1e-9 * (3 * patch**2 * grid * features + depth * block + features * classes)


def vit(shape, patch, *, weights, parameters, **options) -> Backbone:
    """A row of a VisionTransformer; shape: (features, depth, heads).

    The stored grid is that of the first weights' size; options are the class's.
    """
    features, depth, heads = shape
    size, registers = weights[0].size, options.get("registers", 0)
    prefix = 1 + registers if options.get("embed_prefix", True) else 0
    optional = {"reg_token": registers, "norm_pre": options.get("pre_norm", False)}
    return row(
        functools.partial(
            VisionTransformer, features, depth, heads, patch, size // patch, **options
        ),
        depth,
        features,
        patch,
        "pooled",
        weights=weights,
        parameters=parameters,
        embed=("cls_token", "pos_embed", "patch_embed", *(k for k, v in optional.items() if v)),
        gflops=gflops(features, depth, patch, size, 1 + registers, weights[0].classes),
        resample={"pos_embed": functools.partial(position.fit_stored, prefix=prefix)},
    )
