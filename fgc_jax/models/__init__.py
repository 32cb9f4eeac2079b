"""The tables of backbones and heads, and what is built and loaded from them.

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

import dataclasses
import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgc_jax import trees
from fgc_jax.convert import timm
from fgc_jax.models import lora, pretrained, table
from fgc_jax.models.backbone import Preprocess
from fgc_jax.models.bridge import apply
from fgc_jax.models.builder import abstract, build, evaluation_graphdef, split
from fgc_jax.models.table import (
    BACKBONES,
    HEADS,
    layer_prefixes,
    original_config,
    preprocess,
    streams,
    weights_tag,
)

__all__ = (
    "BACKBONES",
    "HEADS",
    "LoadedClassifier",
    "abstract",
    "apply",
    "build",
    "evaluation_graphdef",
    "initialise",
    "layer_prefixes",
    "load",
    "load_pretrained",
    "original_config",
    "preprocess",
    "random_weights",
    "split",
    "streams",
    "timm_state",
    "to_timm",
    "weights_tag",
)


def load_pretrained(config, params, stats, *, classifier: bool = False):
    """Puts the configured weights into the trees of a `build`-ed model: (params, stats, report).

    The trees may be abstract (see `abstract` and `split`); what no weights fill stays as it is.
    config.pretrained and config.pretrained_b fill their streams; "" leaves a stream as it is. If
    the head is the one the weights were trained with, its hidden layers (VGG's fc1 and fc2) are
    taken too, and the last linear layer only with classifier=True. The report says what was taken
    and what was left out on purpose.

    Raises:
        ValueError: the weights cannot be had, or a key or parameter is unaccounted for.
    """
    return _fill(config, params, stats, _read_all(config), classifier)


def _read_all(config, own_input=False):
    """The state dicts, with timm's names, of the streams; None for random weights.

    Raises:
        ValueError: a file says that it wants other input than the config gives it.
    """
    states = []
    for stream in table.streams(config):
        state, tag = None, ""
        if stream.pretrained:
            state, tag = pretrained.read(stream.pretrained, stream.name, BACKBONES)
        states.append(state)
        if own_input or not tag:
            continue
        if len(states) == 1:
            seen = preprocess(config)
            told = f"{weights_tag(config)!r}: set config.model.weights_tag={tag!r}"
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


def _read_published(name, spec):
    """(model config of the published network, state dict of `spec` or None): the config has the
    tag that the weights say."""
    config = original_config(name, spec)
    if not spec:
        return config, None
    state, config.weights_tag = pretrained.read(spec, name, BACKBONES)
    return config, state


def _fill(config, params, stats, states, classifier):
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
    config, num_classes: int, *, seed, paths: Collection[str] | None = None
) -> dict[str, jax.Array]:
    """Flat dict path -> newly drawn weight or statistic, of all leaves or of `paths` only.

    seed: an int or a JAX key. A leaf depends on it, the config and the leaf's place alone, not on
    which others are asked for.
    """

    # One compilation of what is returned; it runs once, so to compile it carelessly is faster.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def draw():
        model = build(config, num_classes, rngs=nnx.Rngs(seed))
        params, stats = map(trees.flatten, split(model))
        flat = params | stats
        return flat if paths is None else {path: flat[path] for path in sorted(paths)}

    return draw()


def initialise(
    config, num_classes: int, *, seed, classifier: bool = False, own_input: bool = False
):
    """Weights of a new classifier: (params, stats, report), jax arrays.

    The configured pretrained weights where there are any, random ones elsewhere. seed, an int or a
    JAX key, is that of `random_weights`; classifier, report and errors are `load_pretrained`'s.
    own_input: images have a mean and std of the recipe's own, whatever a file says of its weights.
    """
    return _initialise(config, num_classes, seed, _read_all(config, own_input), classifier)


def _initialise(config, num_classes, seed, states, classifier):
    shapes = split(abstract(config, num_classes))
    params, stats, report = _fill(config, *shapes, states, classifier)
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


ATTENTION, BLOCK = "attention/", "block"  # begin the names of attention maps and of a ViT's blocks


@functools.partial(jax.jit, static_argnums=0)
def _forward(graphdef, params, stats, images):
    (logits, out), _ = apply(graphdef, params, stats, lambda model: model(images))
    # Gigabytes for a large image: attention maps grow with the fourth power of its side.
    few = {name: x for name, x in out.items() if not name.startswith((ATTENTION, BLOCK))}
    return logits, few


@functools.partial(jax.jit, static_argnums=(0, 1))
def _maps(graphdef, kind, params, stats, images):
    """The maps whose names begin with `kind`."""
    (_, out), _ = apply(graphdef, params, stats, lambda model: model(images))
    return {name: x for name, x in out.items() if name.startswith(kind)}


@dataclasses.dataclass(frozen=True)
class LoadedClassifier:
    """A network in evaluation mode; see `load`. `report` says where its weights come from."""

    graphdef: nnx.GraphDef
    params: dict
    stats: dict
    preprocess: Preprocess
    num_classes: int
    report: str

    def __call__(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """images f32 [B, H, W, 3], normalised by `preprocess` -> (logits f32 [B, K], maps).

        The maps are those of the stages and behind the last block; for others see below.
        """
        return _forward(self.graphdef, self.params, self.stats, images)

    def attention(self, images: jax.Array) -> dict[str, jax.Array]:
        """The attention maps of a transformer, by block; {} for other networks."""
        maps = _maps(self.graphdef, ATTENTION, self.params, self.stats, images)
        return {name.removeprefix(ATTENTION): x for name, x in maps.items()}

    def blocks(self, images: jax.Array) -> dict[str, jax.Array]:
        """The grids behind a ViT's blocks before the last, "block1" and so on; {} for others."""
        return _maps(self.graphdef, BLOCK, self.params, self.stats, images)


def load(
    name: str, weights: str | None = None, *, num_classes: int | None = None, seed: int = 0
) -> LoadedClassifier:
    """The network `name` with its original kind of head, ready to call.

    weights: a spec of `convert.weights.read`, or None for random weights drawn from `seed`.
    num_classes: None for as many as the weights' own classifier has (1000 if they have none); the
    classifier is kept if the number is equal, else a new random one takes its place.

    Raises:
        ValueError: an unknown name, fewer than 2 classes, or weights that are missing or do not
            fit.
    """
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"num_classes={num_classes} must be at least 2")
    config, state = _read_published(name, weights or "")
    classes = pretrained.count_classes(BACKBONES[name], state)
    num_classes = num_classes or classes or 1000
    params, stats, report = _initialise(config, num_classes, seed, [state], num_classes == classes)
    return LoadedClassifier(
        graphdef=evaluation_graphdef(abstract(config, num_classes)),
        params=params,
        stats=stats,
        preprocess=preprocess(config),
        num_classes=num_classes,
        report=report,
    )


def timm_state(name: str, weights: str) -> tuple[dict[str, np.ndarray], str]:
    """(state dict of `weights`, whatever its names, with timm's names and shapes, float32; their
    tag, "" if nothing says it).

    Raises:
        ValueError: the weights are missing or do not fit the network `name`.
    """
    config, state = _read_published(name, weights)
    classes = pretrained.count_classes(BACKBONES[name], state)
    shapes = split(abstract(config, classes or 1000))
    params, stats, _ = _fill(config, *shapes, [state], True)
    # A classifier that the weights lack is not in the result either.
    params = params if classes else {"backbone": params["backbone"]}
    return _to_timm(name, params, stats), config.weights_tag


def to_timm(config, params, stats) -> tuple[dict[str, np.ndarray], int, bool]:
    """A trained classifier as (state dict with timm's names and shapes, number of classes, whether
    timm's network with as many classes finds every key in it).

    The number is 0 and the head is left out if it computes something else than timm's, which no
    change of strides does. LoRA's products are added to the kernels.

    Raises:
        ValueError: two streams, a backbone cut off behind an inner feature map, or one that timm
            does not have.
    """
    stream, *others = table.streams(config)
    if others:
        raise ValueError("a classifier of two streams has no counterpart in timm")
    row, original = stream.row, original_config(stream.name)
    if not row.in_timm:
        raise ValueError(f"timm has no network {stream.name}")
    if row.depths[stream.last] < len(row.layers):
        raise ValueError(
            f"the map {stream.last!r} is inside {stream.name}: what lies behind it was not "
            "trained, and timm's network is the whole one"
        )
    params = lora.merged(config, params)
    classes = params["head"]["fc"]["kernel"].shape[1]
    wanted, _ = split(abstract(original, classes))
    shapes, published = (
        {path: x.shape for path, x in trees.flatten(tree).items()} for tree in (params, wanted)
    )
    maps_of_timm = table.streams(original)[0].feature_maps
    plain = stream.feature_maps == maps_of_timm
    plain = plain and not config.backbone_options.get("part_selection")
    if shapes == published and plain and config.head == row.head:
        return _to_timm(stream.name, params, stats), classes, True
    bare = {path for path in published if trees.is_under(path, "backbone")} <= set(shapes)
    state = _to_timm(stream.name, {"backbone": params["backbone"]}, stats)
    return state, 0, bare and set(row.head_names.values()) == {"fc"}


def _to_timm(name, params, stats):
    return timm.to_state_dict(params, stats, pretrained.original_names(BACKBONES[name]))
