"""The names that authors gave the weights of their networks, as timm's names.

ConvNeXt's are those of Meta's files (V1 and V2), Swin's those of Microsoft's.
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
    """A state dict of Meta's ConvNeXt; other state dicts as they are."""
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
    """A state dict of Microsoft's Swin, whose stages end with the downsampling and not begin with
    it; other state dicts as they are."""
    if "layers.0.downsample.reduction.weight" not in state:
        return dict(state)
    renamed = {}
    for key, x in state.items():
        stage = re.match(r"layers\.(\d+)\.downsample\.", key)
        if stage:
            key = f"layers.{int(stage[1]) + 1}.downsample.{key[stage.end() :]}"
        renamed[re.sub(r"^head\.(weight|bias)", r"head.fc.\1", key)] = x
    return renamed
