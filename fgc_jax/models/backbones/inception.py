"""Inception-v3, and its variant for the Fréchet inception distance (FID).

Papers: Rethinking the Inception Architecture for Computer Vision (arXiv 1512.00567); GANs Trained
by a Two Time-Scale Update Rule (arXiv 1706.08500) for the distance. Names and numbers follow timm;
the auxiliary classifier of published files is not built.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgc_jax.models import bridge, conv, layers
from fgc_jax.models.backbone import HALF, STRIDES, Backbone, timm_facts

LEAST = 75  # Pixels per side with which the last grid has one position.

# Branches of a block, by timm's names: (width, kernel size) from the block's input to its output.
ROW, COLUMN = (1, 7), (7, 1)
FORK = ((1, 3), (3, 1))  # Two convolutions of the same input, side by side.
A = {
    "branch1x1": [(64, 1)],
    "branch5x5": [(48, 1), (64, 5)],
    "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
}
B = {"branch3x3": [(384, 3)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3)]}
D = {
    "branch3x3": [(192, 1), (320, 3)],
    "branch7x7x3": [(192, 1), (192, ROW), (192, COLUMN), (192, 3)],
}
E = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), (384, FORK)],
    "branch3x3dbl": [(448, 1), (384, 3), (384, FORK)],
}


def middle(width):
    """The branches of a block on the middle grid (C in torchvision and timm)."""
    long = [(width, 1), (width, COLUMN), (width, ROW), (width, COLUMN), (192, ROW)]
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(width, 1), (width, ROW), (192, COLUMN)],
        "branch7x7dbl": long,
    }


def stages(mean="mean", last="mean"):
    """Stage -> block -> (branches, pooling, width after it); see Mixed.

    mean: the average pooling; last: the pooling of the last block.
    """
    return {
        "stage2": {
            "Mixed_5b": (A, mean, 32),
            "Mixed_5c": (A, mean, 64),
            "Mixed_5d": (A, mean, 64),
        },
        "stage3": {
            "Mixed_6a": (B, "halve", 0),
            "Mixed_6b": (middle(128), mean, 192),
            "Mixed_6c": (middle(160), mean, 192),
            "Mixed_6d": (middle(160), mean, 192),
            "Mixed_6e": (middle(192), mean, 192),
        },
        "stage4": {
            "Mixed_7a": (D, "halve", 0),
            "Mixed_7b": (E, mean, 192),
            "Mixed_7c": (E, last, 192),
        },
    }


# Name, width, kernel size, stride, padding; a 3x3 max pooling of stride 2 follows each list.
STEM = {
    "stem": [
        ("Conv2d_1a_3x3", 32, 3, 2, 0),
        ("Conv2d_2a_3x3", 32, 3, 1, 0),
        ("Conv2d_2b_3x3", 64, 3, 1, 1),
    ],
    "stage1": [("Conv2d_3b_1x1", 80, 1, 1, 0), ("Conv2d_4a_3x3", 192, 3, 1, 0)],
}


def _neighbours(x):
    """The sum of each 3x3 window of x [B, H, W, C], with zeros around it."""
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x[:, :h] + x[:, 1 : h + 1] + x[:, 2:]
    return x[:, :, :w] + x[:, :, 1 : w + 1] + x[:, :, 2:]


_neighbours_on_cpu = jax.custom_vjp(_neighbours)
# The sum is its own transpose. Automatic differentiation adds up padded arrays instead, which takes
# several times as long with XLA:CPU.
_neighbours_on_cpu.defvjp(
    lambda x: (_neighbours_on_cpu(x), None), lambda _, g: (_neighbours_on_cpu(g),)
)


def _mean(x, inside):
    """The mean of each 3x3 window of x [B, H, W, C]: over nine values with zeros around x, or only
    over the values inside x."""
    count = 9
    if inside:
        rows, columns = (3 - (np.arange(n) == 0) - (np.arange(n) == n - 1) for n in x.shape[1:3])
        count = (rows[:, None] * columns)[None, :, :, None]
    total = (_neighbours if conv.is_plain() else _neighbours_on_cpu)(x.astype(jnp.float32))
    return (total / np.float32(count)).astype(x.dtype)


class ConvNorm(nnx.Module):
    """Convolution and batch norm; Mixed uses the parts, and a call adds the ReLU."""

    def __init__(self, in_features, width, kernel_size, stride=1, padding=None, *, dtype, rngs):
        self.conv = layers.Conv(
            in_features, width, kernel_size, stride=stride, padding=padding, dtype=dtype, rngs=rngs
        )
        # A deviation of 0.1 everywhere instead of the fan of the layer, as in the original.
        shape = self.conv.kernel.shape
        self.conv.kernel = nnx.Param(0.1 * jax.random.normal(rngs.params(), shape))
        self.bn = layers.BatchNorm(width, epsilon=1e-3, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return jax.nn.relu(self.bn(self.conv(x)))


def _features(in_features, branches, width):
    """Channels of a block's output."""
    last = [steps[-1] for steps in branches.values()]
    return sum(n * (1 + (size is FORK)) for n, size in last) + (width or in_features)


class Mixed(nnx.Module):
    """Branches side by side: [B, H, W, C] -> [B, H, W, the sum of their last widths].

    pooling: "mean", "mean_inside" (at the border only over the values inside x) or "max", of 3x3
    windows, before a 1x1 convolution to `width` channels. Or "halve": a max pooling without
    convolution and the last convolution of each branch halve the grid.
    """

    def __init__(self, in_features, branches, pooling, width, *, dtype, rngs):
        make = functools.partial(ConvNorm, dtype=dtype, rngs=rngs)
        self.pooling = pooling
        self.chains = ()  # for each branch and step, the names of its one or two convolutions
        for branch, steps in branches.items():
            features, chain = in_features, ()
            for index, (out_features, kernel_size) in enumerate(steps, start=1):
                name = branch if len(steps) == 1 else f"{branch}_{index}"
                halved = (2, 0) if pooling == "halve" and index == len(steps) else ()
                step = {name: kernel_size}
                if kernel_size is FORK:
                    step = {f"{name}a": FORK[0], f"{name}b": FORK[1]}
                for key, size in step.items():
                    setattr(self, key, make(features, out_features, size, *halved))
                features = out_features * len(step)
                chain += (tuple(step),)
            self.chains += (chain,)
        if width:
            self.branch_pool = make(in_features, width, 1)

    def __call__(self, x, *, rngs=None):
        outputs = []
        for chain in self.chains:
            y = x
            for names in chain:
                parts = [getattr(self, name)(y) for name in names]
                y = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
            outputs.append(y)
        return jnp.concatenate([*outputs, self._pooled(x)], axis=-1)

    def _pooled(self, x):
        if self.pooling == "halve":
            return layers.max_pool(x, 3, 2, 0)
        if self.pooling == "max":
            return self.branch_pool(layers.max_pool(x, 3, 1, 1))
        # The mean and the 1x1 convolution are linear and can be swapped: fewer channels to average.
        y = _mean(self.branch_pool.conv(x), self.pooling == "mean_inside")
        return jax.nn.relu(self.branch_pool.bn(y))


class InceptionV3(nnx.Module):
    """Maps "stem" and "stage1" (before the poolings that follow them), "stage2" ... "stage4" (35,
    17 and 8 positions a side from 299 pixels) and "features"."""

    def __init__(self, table, *, setup, rngs):
        setup.refuse_drop_path("Inception-v3")
        dtype, wanted = setup.dtype, list(STRIDES).index(setup.last) + 1
        self.last, self.remat = setup.last, setup.remat
        features = 3
        chosen = list(STEM.items())[:wanted]
        self.stem = tuple((stage, tuple(name for name, *_ in steps)) for stage, steps in chosen)
        for name, *shape in (step for _, steps in chosen for step in steps):
            setattr(self, name, ConvNorm(features, *shape, dtype=dtype, rngs=rngs))
            features = shape[0]
        chosen = list(table.items())[: max(0, wanted - len(STEM))]
        self.stages = tuple((stage, tuple(blocks)) for stage, blocks in chosen)
        for name, block in (item for _, blocks in chosen for item in blocks.items()):
            branches, pooling, width = block
            setattr(self, name, Mixed(features, *block, dtype=dtype, rngs=rngs))
            features = _features(features, branches, width)

    def __call__(self, x, *, rngs=None):
        if min(x.shape[1:3]) < LEAST:
            raise ValueError(
                f"Inception-v3 needs images of at least {LEAST}x{LEAST} pixels, not "
                f"{x.shape[1]}x{x.shape[2]}"
            )
        maps = {}
        for stage, names in self.stem:
            if maps:
                x = layers.max_pool(x, 3, 2, 0)
            part = layers.Chain([getattr(self, name) for name in names])
            x = maps[stage] = bridge.run(part, x, remat=self.remat)
        if self.stages:
            x = layers.max_pool(x, 3, 2, 0)
        for stage, names in self.stages:
            for name in names:
                x = bridge.run(getattr(self, name), x, remat=self.remat)
            maps[stage] = x
        if self.last == "features":
            maps["features"] = x
        return maps


def row(table, *, parameters=0, gflops=0.0, weights=None, in_timm=True) -> Backbone:
    """A row of BACKBONES for a table like that of `stages`."""
    names = {stage: [name for name, *_ in steps] for stage, steps in STEM.items()}
    names |= {stage: list(blocks) for stage, blocks in table.items()}
    ordered = {name: (name,) for blocks in names.values() for name in blocks}
    depths = dict(zip(names, np.cumsum([len(n) for n in names.values()]).tolist(), strict=True))
    channels = {stage: steps[-1][1] for stage, steps in STEM.items()}
    features = channels["stage1"]
    for stage, blocks in table.items():
        for branches, _, width in blocks.values():
            features = _features(features, branches, width)
        channels[stage] = features
    return Backbone(
        build=functools.partial(InceptionV3, table),
        channels=channels | {"features": features},
        strides=dict(STRIDES),
        layers=ordered,
        depths=depths | {"features": len(ordered)},
        weights=weights or {},
        head="gap",
        head_names={"fc": "fc"},
        parameters=parameters,
        gflops=gflops,
        unused=("AuxLogits",),
        in_timm=in_timm,
    )


_TORCH = "https://download.pytorch.org/models/inception_v3_google-1a9a5a14.pth"
_FID = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)

INCEPTIONS = {
    "inception_v3": row(
        stages(),
        parameters=23_834_568,
        gflops=5.71,
        weights={
            "tv_in1k": timm_facts(norm=HALF, size=299, url=_TORCH),
            "tf_in1k": timm_facts(norm=HALF, size=299),
            "tf_adv_in1k": timm_facts(norm=HALF, size=299),
            "gluon_in1k": timm_facts(size=299),
        },
    ),
    # TensorFlow's network of 2015, converted by pytorch-fid.
    "inception_v3_fid": row(
        stages(mean="mean_inside", last="max"),
        parameters=23_850_960,
        gflops=5.71,
        weights={
            "fid": timm_facts(
                norm=HALF,
                size=299,
                crop=1.0,
                interpolation="bilinear",
                source="",
                url=_FID,
                classes=1008,
            )
        },
        in_timm=False,
    ),
}
