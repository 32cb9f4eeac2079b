"""From a model config to a classifier: the module, its shapes, its static definitions."""

import jax.numpy as jnp
from flax import nnx

from fgc_jax import config as settings
from fgc_jax.config import ModelSettings
from fgc_jax.models import lora, table
from fgc_jax.models.backbone import Setup
from fgc_jax.models.classifier import Classifier
from fgc_jax.models.heads import basic
from fgc_jax.models.table import HEADS


def build(config: ModelSettings, num_classes: int, *, rngs: nnx.Rngs) -> Classifier:
    """A classifier with new random weights; runs under nnx.eval_shape and jax.jit.

    Raises:
        ValueError: an unknown backbone, head, option of the head or feature map; stochastic depth
            in a backbone without residual branches; fewer than two classes; maps in a wrong order
            for the head; two streams whose maps have different strides; or no linear layer for
            LoRA.
    """
    streams = table.streams(config)
    head = table.lookup(HEADS, config.head, "head")
    dtype = jnp.dtype(config.dtype)
    options = settings.options(head, config.head_options, "config.model.head_options.")
    if num_classes < 2:
        raise ValueError(f"a classifier needs at least two classes, not {num_classes}")
    basic.check_order(head, config.head, streams)
    first, last = streams[0], streams[-1]
    for name, name_b in zip(first.feature_maps, last.feature_maps, strict=True):
        strides = first.row.strides[name], last.row.strides[name_b]
        if strides[0] != strides[1]:
            raise ValueError(
                f"the grids of the two streams differ: {name!r} has stride {strides[0]} in "
                f"{first.name} and {strides[1]} in {last.name}"
            )
    backbones = [
        stream.row.build(setup=Setup(dtype, stream.last, config.drop_path, config.remat), rngs=rngs)
        for stream in streams
    ]
    channels = tuple(
        stream.row.channels[name] for stream in streams for name in stream.feature_maps
    )
    model = Classifier(
        backbones[0],
        head(channels, num_classes, rngs=rngs, **options),
        *backbones[1:],
        feature_maps=tuple(stream.feature_maps for stream in streams),
        rescale_b=table.rescale(config),
    )
    if config.lora_rank:
        lora.add(model, config, rngs=rngs)
    return model


def abstract(config: ModelSettings, num_classes: int) -> Classifier:
    """The classifier with shapes instead of arrays: it needs no memory and no computation."""
    return nnx.eval_shape(lambda: build(config, num_classes, rngs=nnx.Rngs(0)))


def split(model: Classifier) -> tuple[dict, dict]:
    """(params, stats) of a classifier as pure nested dicts with string keys."""
    return tuple(nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))


def evaluation_graphdef(model: Classifier) -> nnx.GraphDef:
    """The static definition of a classifier for evaluation: batch norm uses its stored statistics,
    and there is no dropout."""
    view = nnx.view(
        # VGG without batch norm has no layer for the first mode.
        model,
        use_running_average=True,
        deterministic=True,
        raise_if_not_found=False,
    )
    return nnx.graphdef(view)
