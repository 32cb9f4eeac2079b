"""Networks: the tables of backbones and heads, what is built from them, and their weights.

A model config is anything with these attributes: backbone, backbone_b ("" for one stream), head,
head_options (dict), feature_map ("" for the vector that the published classifier reads under a
head of that kind, and for "features" elsewhere; "stage3+features" for a head that reads several),
backbone_options (dict, of the first backbone; what there is depends on the family), dtype
("float32" or "bfloat16", of the backbones), drop_path (largest rate of stochastic depth), remat
(bool: gradient checkpointing),
lora_rank (0 for none), lora_alpha and lora_targets (see `models.lora`),
pretrained, pretrained_b ("" for random weights, else a spec of `convert.weights.read`), and
weights_tag ("" for the tag whose source `pretrained` is, or else the backbone's first).
"""

from fgc_jax.models.bridge import apply, infer
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
    "infer",
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
