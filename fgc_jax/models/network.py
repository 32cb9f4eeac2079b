"""A classifier without its weights: shapes instead of arrays."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax import config
from fgc_jax.models import bridge, builder, conv, table
from fgc_jax.models.backbone import Preprocess
from fgc_jax.models.classifier import on_embeddings


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """An abstract classifier with its settings and layers.

    settings: its model settings. model: the module. params, stats: nested dicts of
    ShapeDtypeStructs. layers: layer name -> path prefixes, input to output. preprocess: the mean
    and std of the images; None if the network takes embeddings.
    """

    settings: config.ModelSettings
    model: nnx.Module
    params: Mapping
    stats: Mapping
    layers: Mapping[str, tuple[str, ...]]
    preprocess: Preprocess | None

    @functools.cached_property
    def graphdef(self) -> nnx.GraphDef:
        """The static half for inference: stored statistics in batch norm and no dropout."""
        return builder.evaluation_graphdef(self.model)


def describe(
    settings: config.ModelSettings, num_classes: int, *, mean: tuple = (), std: tuple = ()
) -> Network:
    """The network of model settings; mean, std: of the images; () for those of the weights.

    Raises:
        ValueError: unknown model parts, or parts that do not fit together.
    """
    model = builder.abstract(settings, num_classes)
    params, stats = builder.split(model)
    own = {name: value for name, value in (("mean", mean), ("std", std)) if value}
    preprocess = dataclasses.replace(table.preprocess(settings), **own)
    return Network(
        settings=settings,
        model=model,
        params=params,
        stats=stats,
        layers=table.layer_prefixes(settings),
        preprocess=preprocess,
    )


def of_embeddings(network: Network) -> Network:
    """The network that takes the results of `Classifier.embed` instead of images."""
    return dataclasses.replace(network, model=on_embeddings(network.model), preprocess=None)


@functools.lru_cache(maxsize=64)
def map_shapes(network: Network, side: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of the classifier's `out` for one image of `side` pixels.

    Raises:
        ValueError: the backbone takes no images of this size.
    """
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    infer = functools.partial(bridge.infer, network.graphdef)
    return jax.eval_shape(infer, network.params, network.stats, images)[1]


def forward_gflops(network: Network, side: int) -> float:
    """1e9 floating-point operations of one image's forward pass (a multiply-add counts two), by
    XLA's cost analysis of the network with plain convolutions."""
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)

    def forward(params, stats, images):
        return bridge.infer(network.graphdef, params, stats, images)[0]

    with conv.plain():
        cost = jax.jit(forward).lower(network.params, network.stats, images).cost_analysis()
    return cost["flops"] / 1e9
