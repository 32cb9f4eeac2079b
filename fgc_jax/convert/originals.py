"""Translates the weight names of the authors' own files to timm's names.

The files are Meta's for ConvNeXt (V1 and V2) and Microsoft's for Swin.
"""

import re
from collections.abc import Mapping

import numpy as np

_CONVNEXT = (
    (r"downsample_layers\.0\.", "stem."),
    (r"downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"(.*)\.dwconv\.", r"\1.conv_dw."),
    (r"(.*)\.pwconv", r"\1.mlp.fc"),
    (r"(.*)\.grn\.gamma", r"\1.mlp.grn.weight"),
    (r"(.*)\.grn\.beta", r"\1.mlp.grn.bias"),
    (r"norm\.", "head.norm."),
    (r"head\.(weight|bias)", r"head.fc.\1"),
)


def convnext(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict of Meta's ConvNeXt with timm's names; other state dicts are not changed."""
    if "downsample_layers.0.0.weight" not in state:
        return dict(state)
    renamed = {}
    for key, x in state.items():
        name = key
        for old, new in _CONVNEXT:
            name = re.sub(f"^{old}", new, name)
        renamed[name] = x.reshape(-1) if ".grn." in name else x
    return renamed


def swin(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict of Microsoft's Swin with timm's names; other state dicts are not changed. In
    Microsoft's files a stage ends with the downsampling; in timm's it begins with it."""
    if "layers.0.downsample.reduction.weight" not in state:
        return dict(state)
    renamed = {}
    for key, x in state.items():
        stage = re.match(r"layers\.(\d+)\.downsample\.", key)
        if stage:
            key = f"layers.{int(stage[1]) + 1}.downsample.{key[stage.end() :]}"
        renamed[re.sub(r"^head\.(weight|bias)", r"head.fc.\1", key)] = x
    return renamed
