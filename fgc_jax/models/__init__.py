"""Networks: the tables of backbones and heads, classifiers built from them, and their weights.

A model config is any object with these attributes:

backbone, backbone_b: keys of BACKBONES; backbone_b is "" for one stream.
head, head_options: a key of HEADS, and a dict.
feature_map: the map that the head reads, "stage3+features" for several; "" for the map that the
    published classifier reads if the head is of the same kind, else for "features".
backbone_options: dict, for the first backbone; each family has its own options.
dtype: "float32" or "bfloat16", of the backbones.
drop_path: largest rate of stochastic depth. remat: bool, gradient checkpointing.
lora_rank (0 for none), lora_alpha, lora_targets: see `models.lora`.
pretrained, pretrained_b: "" for random weights, else a spec of `convert.weights.read`.
weights_tag: "" for the tag whose source is `pretrained`, or else the backbone's first.
"""

from fgc_jax.models.bridge import apply
from fgc_jax.models.builder import abstract, build, evaluation_graphdef, split
from fgc_jax.models.published import (
    ATTENTION,
    BLOCK,
    LoadedClassifier,
    forward,
    load,
    maps_named,
    timm_state,
    to_timm,
)
from fgc_jax.models.table import (
    BACKBONES,
    HEADS,
    layer_prefixes,
    original_config,
    preprocess,
    streams,
    weights_tag,
)
from fgc_jax.models.weights import initialise, load_pretrained, random_weights

__all__ = (
    "ATTENTION",
    "BACKBONES",
    "BLOCK",
    "HEADS",
    "LoadedClassifier",
    "abstract",
    "apply",
    "build",
    "evaluation_graphdef",
    "forward",
    "initialise",
    "layer_prefixes",
    "load",
    "load_pretrained",
    "maps_named",
    "original_config",
    "preprocess",
    "random_weights",
    "split",
    "streams",
    "timm_state",
    "to_timm",
    "weights_tag",
)
