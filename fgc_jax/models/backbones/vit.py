"""Vision transformers: ViT, DeiT-III, DINOv2, and CLIP's image encoder.

Papers: An Image is Worth 16x16 Words (arXiv 2010.11929); How to train your ViT (arXiv
2106.10270); DeiT III (arXiv 2204.07118); DINOv2 (arXiv 2304.07193); Vision Transformers Need
Registers (arXiv 2309.16588); Learning Transferable Visual Models From Natural Language
Supervision (arXiv 2103.00020). Names and numbers follow timm; the rows are in vit_table.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax.config.limits import Count
from fgc_jax.models import attention, bridge, layers, parts, position
from fgc_jax.models.backbone import Backbone, Preprocess

# Channels, blocks, heads.
TINY, SMALL, BASE, LARGE = (192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16)


@dataclasses.dataclass(frozen=True)
class Form:
    """What sets transformers of the same size apart.

    registers: number of tokens between class token and grid. embed_prefix: whether class token and
    registers have position embeddings too. layer_scale: initial value of the factors of both
    branches of a block; None for no factors. pre_norm: a layer norm before the first block, and no
    bias of the patches. epsilon: of all layer norms.
    """

    registers: int = 0
    embed_prefix: bool = True
    layer_scale: float | None = None
    pre_norm: bool = False
    epsilon: float = 1e-6

    @property
    def embedded(self) -> int:
        """The number of tokens before the grid that have position embeddings."""
        return 1 + self.registers if self.embed_prefix else 0


class PatchEmbed(nnx.Module):
    """Squares of `patch` pixels, each mapped to C channels: [B, H, W, 3] -> [B, h, w, C].

    stride: pixels from one square to the next, None for `patch`; squares overlap if it is less.
    norm: the layer after it, built as norm(features, dtype=, rngs=); None for none. Raises
    ValueError unless the squares cover the image exactly.
    """

    def __init__(self, features, patch, *, stride=None, use_bias=True, norm=None, dtype, rngs):
        self.patch = patch
        self.proj = layers.Conv(
            3,
            features,
            patch,
            stride=stride or patch,
            padding=0,
            use_bias=use_bias,
            dtype=dtype,
            rngs=rngs,
        )
        # PyTorch's own initialisation of a convolution, which timm does not change.
        bound = (3 * patch**2) ** -0.5
        draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        self.proj.kernel = nnx.Param(draw(rngs.params(), (patch, patch, 3, features)))
        if use_bias:
            self.proj.bias = nnx.Param(draw(rngs.params(), (features,)))
        self.norm = layers.same if norm is None else norm(features, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        patch, stride = self.patch, self.proj.stride
        if any(side < patch or (side - patch) % stride for side in x.shape[1:3]):
            fitting = f"multiples of the patch, {patch}"
            if stride != patch:
                fitting = f"{patch} plus a multiple of patch_stride={stride}"
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} pixels: both sides must be {fitting}"
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
    """Attention and MLP, each after a layer norm and with a shortcut: [B, T, C] -> the same."""

    def __init__(self, features, heads, form, *, rate, dtype, rngs):
        norm = functools.partial(layers.LayerNorm, epsilon=form.epsilon, dtype=dtype, rngs=rngs)
        scaled = form.layer_scale is not None
        self.norm1 = norm(features)
        self.attn = attention.Attention(features, heads, dtype=dtype, rngs=rngs)
        self.ls1 = LayerScale(features, form.layer_scale) if scaled else layers.same
        self.norm2 = norm(features)
        self.mlp = attention.Mlp(features, 4 * features, dtype=dtype, rngs=rngs)
        self.ls2 = LayerScale(features, form.layer_scale) if scaled else layers.same
        self.drop_path = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x))), rngs=rngs)
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))), rngs=rngs)

    def attention(self, x):
        """Float32 [B, heads, T, T]: the attention weights of the block for its input tokens."""
        return self.attn.weights(self.norm1(x))


class VisionTransformer(nnx.Module):
    """Maps "block1", "block2", ... [B, h, w, C] of the grid's tokens; after the last block and norm
    "features", the grid, and "pooled", the class token; "attention/0", ... [B, heads, T, T], whose
    tokens are class token, registers, grid.

    shape: (features, depth, heads). grid: side of the square grid for which `pos_embed` is stored.
    patch_stride: see PatchEmbed. part_selection: the last block gets only the class token and the
    tokens of `parts.choose`; then there is "part_attention" instead of "features".
    """

    def __init__(
        self, shape, patch, grid, form, *, patch_stride=None, part_selection=False, setup, rngs
    ):
        features, depth, heads = shape
        dtype = self.dtype = setup.dtype
        self.grid, self.remat = grid, setup.remat
        self.part_selection = part_selection
        self.embedded = form.embedded
        self.patch_embed = PatchEmbed(
            features, patch, stride=patch_stride, use_bias=not form.pre_norm, dtype=dtype, rngs=rngs
        )
        self.cls_token = normal((1, 1, features), 1e-6, rngs)
        self.reg_token = (
            normal((1, form.registers, features), 1e-6, rngs) if form.registers else None
        )
        self.pos_embed = normal((1, self.embedded + grid**2, features), 0.02, rngs)
        norm = functools.partial(layers.LayerNorm, epsilon=form.epsilon, dtype=dtype, rngs=rngs)
        self.norm_pre = norm(features) if form.pre_norm else layers.same
        (rates,) = layers.drop_rates(setup.drop_path, (depth,))
        self.blocks = layers.Blocks(
            Block(features, heads, form, rate=rate, dtype=dtype, rngs=rngs)
            for rate in rates[: blocks_until(setup.last, depth)]
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
        run = run_parts if self.part_selection else run_blocks
        return run(self.blocks, self.norm, x, (h, w), "pooled", rngs=rngs, remat=self.remat)


def normal(shape, std, rngs):
    """A parameter whose initial value is normal with the deviation `std`."""
    return nnx.Param(std * jax.random.normal(rngs.params(), shape))


def blocks_until(last, depth):
    """The number of blocks that the map `last` needs."""
    return int(last.removeprefix("block")) if last.startswith("block") else depth


def prefix_tokens(cls_token, reg_token):
    """Class token and registers (or None) concatenated, [1, 1 + registers, C]."""
    tokens = [token[...] for token in (cls_token, reg_token) if token is not None]
    return jnp.concatenate(tokens, axis=1)


def join(prefix, x):
    """Tokens [1, n, C] concatenated before those of every image, [B, T, C]."""
    return jnp.concatenate([jnp.broadcast_to(prefix, (len(x), *prefix.shape[1:])), x], axis=1)


def on_grid(x, grid):
    """The last h w tokens of x [B, T, C] as [B, h, w, C]."""
    h, w = grid
    return x[:, x.shape[1] - h * w :].reshape(len(x), h, w, -1)


def run_blocks(blocks, norm, x, grid, token, *, rngs, remat):
    """The maps of tokens x [B, T, C]: "block1", "attention/0" and so on. After the final norm (None
    if it is not built) "features" replaces the map of the last block, and the class token is added
    with the name `token`."""
    maps, tokens = _through(blocks, x, grid, rngs=rngs, remat=remat)
    if norm is None:
        return maps
    del maps[f"block{len(blocks)}"]
    x = norm(tokens[-1])
    return maps | {"features": on_grid(x, grid), token: x[:, :1, None]}


def run_parts(blocks, norm, x, grid, token, *, rngs, remat):
    """As run_blocks with the part selection of TransFG (arXiv 2103.07976) before the last block. It
    returns no "features", but "part_attention", float32 [B, h, w, heads]: each head selects the
    token with the largest value."""
    *early, last = blocks
    maps, tokens = _through(early, x, grid, rngs=rngs, remat=remat)
    scores = parts.class_attention([block.attention for block in early], tokens[:-1])
    chosen = parts.choose(tokens[-1], scores[:, :, scores.shape[2] - grid[0] * grid[1] :])
    x = norm(bridge.run(last, chosen, rngs=rngs, remat=remat))
    shown = on_grid(scores.swapaxes(1, 2), grid)
    return maps | {"part_attention": shown, token: x[:, :1, None]}


def _through(blocks, x, grid, *, rngs, remat):
    """From tokens x [B, T, C]: (maps "block1", "attention/0" and so on; the tokens before each
    block and after the last)."""
    maps, tokens = {}, [x]
    for index, block in enumerate(blocks):
        # Outside bridge.run, so that XLA does not compute it if it is not read.
        maps[f"attention/{index}"] = block.attention(x)
        x = bridge.run(block, x, rngs=rngs, remat=remat)
        maps[f"block{index + 1}"] = on_grid(x, grid)
        tokens.append(x)
    return maps, tokens


def row(build, depth, features, patch, token, *, weights, parameters, **options) -> Backbone:
    """A row of BACKBONES for a transformer of `depth` blocks with the map `token`.

    build: the class, with its arguments bound. The final norm belongs to the layer of the last
    block, as in timm's layer-wise learning rate decay.
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
        weights=weights,
        head="gap",
        head_names={"head": "fc"},
        parameters=parameters,
        **options,
    )


def adapted(
    row: Backbone, *, patch_stride: Count | None = None, part_selection: bool = False
) -> Backbone:
    """The row with overlapping patches, `patch_stride` pixels from one to the next; with
    part_selection the last block gets only the class token and each head's part, see run_parts.
    """
    if patch_stride is not None:
        patch = row.strides["features"]
        if patch_stride >= patch:
            raise ValueError(
                f"config.model.backbone_options.patch_stride={patch_stride} must be below the "
                f"patch, {patch}, for patches that overlap"
            )
        strides = {name: patch_stride if old else 0 for name, old in row.strides.items()}
        build = functools.partial(row.build, patch_stride=patch_stride)
        row = dataclasses.replace(row, build=build, strides=strides)
    if part_selection:
        build = functools.partial(row.build, part_selection=True)
        row = dataclasses.replace(row, build=build, channels={"pooled": row.channels["pooled"]})
    return row


def gflops(features, depth, patch, prefix, weights: Preprocess) -> float:
    """1e9 multiply-adds of the matrix products, for an image of the weights' size and with their
    classifier. prefix: tokens before the grid."""
    grid = (weights.size // patch) ** 2
    tokens = grid + prefix
    block = 12 * tokens * features**2 + 2 * tokens**2 * features
    return 1e-9 * (3 * patch**2 * grid * features + depth * block + features * weights.classes)


def vit(shape, patch, *, weights, parameters, **options) -> Backbone:
    """A row of a VisionTransformer; shape: (features, depth, heads).

    The stored grid is that of the first weights' size; options: the fields of Form.
    """
    features, depth, _ = shape
    first, form = next(iter(weights.values())), Form(**options)
    optional = {"reg_token": form.registers, "norm_pre": form.pre_norm}
    return row(
        functools.partial(VisionTransformer, shape, patch, first.size // patch, form),
        depth,
        features,
        patch,
        "pooled",
        weights=weights,
        parameters=parameters,
        embed=("cls_token", "pos_embed", "patch_embed", *(k for k, v in optional.items() if v)),
        gflops=gflops(features, depth, patch, 1 + form.registers, first),
        resample={"pos_embed": functools.partial(position.fit_stored, prefix=form.embedded)},
        adapt=adapted,
    )
