"""Networks: the tables of backbones and heads, classifiers built from them, and their weights.

A model config is a `fgc_jax.config.ModelSettings`.
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
from fgc_jax.models.weights import initialise, random_weights

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
