"""The weights of a new classifier: published ones where the config names some, random elsewhere."""

import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp
from flax import nnx

from fgc_jax import trees
from fgc_jax.config import ModelSettings
from fgc_jax.convert import timm
from fgc_jax.models import builder, lora, pretrained, table


def load_pretrained(config: ModelSettings, params, stats, *, classifier: bool = False):
    """Puts the configured weights into the trees of a `build`-ed model: (params, stats, report).

    The trees may be abstract (see `abstract` and `split`); what no weights fill stays as it is.
    config.pretrained and config.pretrained_b fill their streams; "" leaves a stream as it is. If
    the head is the one the weights were trained with, its hidden layers (VGG's fc1 and fc2) are
    taken too, and the last linear layer only with classifier=True. The report says what was taken
    and what was left out on purpose.

    Raises:
        ValueError: the weights cannot be had, or a key or parameter is unaccounted for.
    """
    return fill(config, params, stats, _read_all(config), classifier)


def _read_all(config: ModelSettings, own_input=False):
    """The state dicts, with timm's names, of the streams; None for random weights.

    Raises:
        ValueError: a file says that it wants other input than the config gives it.
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
            told = f"{table.weights_tag(config)!r}: set config.model.weights_tag={tag!r}"
        else:
            seen = pretrained.facts_of(stream.row.weights, stream.pretrained)
            told = "its first tag, as which a second stream's images are normalised"
        if seen.rescale(stream.row.weights[tag]):
            # A run must not depend on what lies in a file: its config says how images go in.
            raise ValueError(
                f"{stream.pretrained} was normalised as {tag!r}, whose mean and std are not those "
                f"of {told}"
            )
    return states


def fill(config: ModelSettings, params, stats, states, classifier):
    """`load_pretrained` from state dicts that are read already, None for a stream without."""
    report = []
    adapters, params = trees.select(params, lora.paths(params))  # which no weights fill
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
                f"{stream.pretrained} does not hold the weights of {stream.name}: {error}"
            ) from None
        told = pretrained.describe(names, left_out, state) + resampled
        report.append(f"{label}: {stream.pretrained} {told}")
    return trees.merge(params, adapters), stats, "\n".join(report)


def random_weights(
    config: ModelSettings, num_classes: int, *, seed, paths: Collection[str] | None = None
) -> dict[str, jax.Array]:
    """Flat dict path -> newly drawn weight or statistic, of all leaves or of `paths` only.

    seed: an int or a JAX key. A leaf depends on it, the config and the leaf's place alone, not on
    which others are asked for.
    """

    # One compilation of what is returned; it runs once, so to compile it carelessly is faster.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def draw():
        model = builder.build(config, num_classes, rngs=nnx.Rngs(seed))
        params, stats = map(trees.flatten, builder.split(model))
        flat = params | stats
        return flat if paths is None else {path: flat[path] for path in sorted(paths)}

    return draw()


def initialise(
    config: ModelSettings,
    num_classes: int,
    *,
    seed,
    classifier: bool = False,
    own_input: bool = False,
):
    """Weights of a new classifier: (params, stats, report), jax arrays.

    The configured pretrained weights where there are any, random ones elsewhere. seed, an int or a
    JAX key, is that of `random_weights`; classifier, report and errors are `load_pretrained`'s.
    own_input: images have a mean and std of the recipe's own, whatever a file says of its weights.
    """
    return initialise_from(config, num_classes, seed, _read_all(config, own_input), classifier)


def initialise_from(config: ModelSettings, num_classes, seed, states, classifier):
    """`initialise` from state dicts that are read already, None for a stream without."""
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
