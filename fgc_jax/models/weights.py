"""The weights of a new classifier: the published ones that the config names, and random ones."""

import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax import trees
from fgc_jax.config import ModelSettings
from fgc_jax.convert import timm
from fgc_jax.models import builder, lora, pretrained, table


def _read_all(config: ModelSettings, own_input):
    """The state dicts, with timm's names, of the streams; None for random weights.

    Raises:
        ValueError: a file states another normalisation than that of the config.
    """
    states = []
    for stream in table.streams(config):
        state, tag = None, ""
        if stream.pretrained:
            state, tag = pretrained.read(stream.pretrained, stream.name, table.BACKBONES)
        states.append(state)
        if own_input or not tag:
            continue
        if len(states) == 1:
            seen = table.preprocess(config)
            told = f"config.model.weights_tag={table.weights_tag(config)!r}: set it to {tag!r}"
        else:
            seen = pretrained.facts_of(stream.row.weights, stream.pretrained)
            told = "the first tag of its network, which a second stream uses"
        if seen.rescale(stream.row.weights[tag]):
            # A run must not depend on the content of a file: its config defines the input.
            raise ValueError(
                f"{stream.pretrained} needs images with the mean and std of {tag!r}, which are not "
                f"those of {told}"
            )
    return states


def fill(config: ModelSettings, params, stats, states, classifier):
    """Puts the `states` of `_read_all` into the trees of a model: (params, stats, report).

    The trees may be abstract (see `abstract` and `split`); other leaves do not change. If the head
    is the one that the weights were trained with, its hidden layers (VGG's fc1 and fc2) are filled
    too, and its last linear layer only with `classifier`. The report says what was filled and what
    was left out on purpose.

    Raises:
        ValueError: a key or parameter has no counterpart.
    """
    report = []
    adapters, params = trees.select(params, lora.paths(params))  # no weights fill these
    for stream, state in zip(table.streams(config), states, strict=True):
        label = f"{stream.root} ({stream.name})"
        if state is None:
            report.append(f"{label}: random weights")
            continue
        names, left_out = pretrained.names(
            stream.row,
            stream.root,
            state,
            params,
            head=config.head == stream.row.head and not config.backbone_b,
            classifier=classifier,
        )
        state, resampled = pretrained.resample(stream.row, params, state, names)
        try:
            params, stats = timm.fill(params, stats, state, names, left_out)
        except ValueError as error:
            raise ValueError(
                f"{stream.pretrained} does not contain the weights of {stream.name}: {error}"
            ) from None
        told = pretrained.describe(names, left_out, state) + resampled
        report.append(f"{label}: {stream.pretrained} {told}")
    return trees.merge(params, adapters), stats, "\n".join(report)


def random_weights(
    config: ModelSettings, num_classes: int, *, seed, paths: Collection[str] | None = None
) -> dict[str, jax.Array]:
    """Flat dict path -> newly drawn weight or statistic, of all leaves or of `paths` only.

    seed: an int or a JAX key. A leaf depends only on it, the config and the leaf's place, not on
    which other leaves are requested.
    """

    # One compilation of the returned leaves. It runs once, so compiling without optimisation is
    # faster.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def draw():
        model = builder.build(config, num_classes, rngs=nnx.Rngs(seed))
        params, stats = map(trees.flatten, builder.split(model))
        flat = params | stats
        return flat if paths is None else {path: flat[path] for path in sorted(paths)}

    return draw()


def initialise(config: ModelSettings, num_classes: int, *, seed, own_input: bool = False):
    """Weights of a new classifier: (params, stats, report), jax arrays.

    config.pretrained and config.pretrained_b fill their streams (see `fill`), except the last
    linear layer; other leaves are random. seed, an int or a JAX key, is that of `random_weights`.
    own_input: the recipe sets its own mean and std, so those stated in a file are not checked.

    Raises:
        ValueError: the weights are missing, or a key or parameter has no counterpart.
    """
    return initialise_from(config, num_classes, seed, _read_all(config, own_input), False)


def initialise_from(config: ModelSettings, num_classes, seed, states, classifier):
    """As `initialise`, from the `states` of `_read_all`; classifier: see `fill`."""
    shapes = builder.split(builder.abstract(config, num_classes))
    params, stats, report = fill(config, *shapes, states, classifier)
    flat = [trees.flatten(params), trees.flatten(stats)]
    missing = {
        path for tree in flat for path, x in tree.items() if isinstance(x, jax.ShapeDtypeStruct)
    }
    drawn = random_weights(config, num_classes, seed=seed, paths=missing) if missing else {}
    params, stats = (
        trees.unflatten({path: jnp.asarray(drawn.get(path, x)) for path, x in tree.items()})
        for tree in flat
    )
    return params, stats, report
