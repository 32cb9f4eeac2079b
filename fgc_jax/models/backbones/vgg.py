"""VGG with and without batch normalisation.

Paper: Very Deep Convolutional Networks for Large-Scale Image Recognition (arXiv 1409.1556). The
indices of `features` are torchvision's and timm's: ReLUs and poolings count.
"""

import functools

import jax
from flax import nnx

from fgc_jax.models import bridge, layers
from fgc_jax.models.backbone import Backbone, torchvision

WIDTHS = (64, 128, 256, 512, 512)


def _pool(x):
    return layers.max_pool(x, 2, 2, 0)


class Vgg(nnx.Module):
    """Maps "stage1" ... "stage5" (before each pooling) and "features" (after the last one).

    "stage5" of VGG-16 is conv5_3 after its ReLU, the map of the bilinear papers.
    """

    def __init__(self, depths, batch_norm, *, setup, rngs):
        setup.refuse_drop_path("VGG")
        dtype, wanted = setup.dtype, list(_strides()).index(setup.last)
        modules, features = [], 3
        for stage, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True)):
            if stage > wanted:
                break
            for _ in range(depth):
                modules.append(
                    layers.Conv(features, width, 3, use_bias=True, dtype=dtype, rngs=rngs)
                )
                if batch_norm:
                    modules.append(layers.BatchNorm(width, dtype=dtype, rngs=rngs))
                modules.append(jax.nn.relu)
                features = width
            if stage < wanted:
                modules.append(_pool)
        self.features = layers.Blocks(modules)
        self.last, self.remat = setup.last, setup.remat

    def __call__(self, x, *, rngs=None):
        maps = {}
        # The pooling after the last stage is not built if nothing reads its result.
        end = () if self.last == "features" else (_pool,)
        stage = []
        for layer in (*self.features, *end):
            if layer is not _pool:
                stage.append(layer)
            else:
                x = bridge.run(layers.Chain(stage), x, remat=self.remat)
                maps[f"stage{len(maps) + 1}"] = x
                stage = [_pool]
        if self.last == "features":
            maps["features"] = _pool(x)
        return maps


def _strides():
    return {"stage1": 1, "stage2": 2, "stage3": 4, "stage4": 8, "stage5": 16, "features": 32}


def row(depths, batch_norm, parameters=0, gflops=0.0, weights=None) -> Backbone:
    """A row of BACKBONES; `depths` counts the convolutions between two poolings."""
    ordered, layer_counts, index = {}, {}, 0
    for stage, depth in enumerate(depths, start=1):
        for _ in range(depth):
            name = f"features/{index}"
            ordered[name] = (name, f"features/{index + 1}") if batch_norm else (name,)
            index += 3 if batch_norm else 2
        index += 1
        layer_counts[f"stage{stage}"] = len(ordered)
    return Backbone(
        build=functools.partial(Vgg, depths, batch_norm),
        channels={f"stage{i}": w for i, w in enumerate(WIDTHS, start=1)} | {"features": WIDTHS[-1]},
        strides=_strides(),
        layers=ordered,
        depths=layer_counts | {"features": len(ordered)},
        weights=weights or {},
        head="vgg_fc",
        head_names={"pre_logits.fc1": "fc1", "pre_logits.fc2": "fc2", "head.fc": "fc"},
        parameters=parameters,
        gflops=gflops,
    )


def _tv(digest):
    return {"tv_in1k": torchvision(digest)}


VGGS = {
    "vgg11": row((1, 1, 2, 2, 2), False, 132_863_336, 7.61, _tv("8a719046")),
    "vgg13": row((2, 2, 2, 2, 2), False, 133_047_848, 11.3, _tv("19584684")),
    "vgg16": row((2, 2, 3, 3, 3), False, 138_357_544, 15.5, _tv("397923af")),
    "vgg19": row((2, 2, 4, 4, 4), False, 143_667_240, 19.6, _tv("dcbb9e9d")),
    "vgg11_bn": row((1, 1, 2, 2, 2), True, 132_868_840, 7.61, _tv("6002323d")),
    "vgg13_bn": row((2, 2, 2, 2, 2), True, 133_053_736, 11.3, _tv("abd245e5")),
    "vgg16_bn": row((2, 2, 3, 3, 3), True, 138_365_992, 15.5, _tv("6c64b313")),
    "vgg19_bn": row((2, 2, 4, 4, 4), True, 143_678_248, 19.6, _tv("c79401a0")),
}
