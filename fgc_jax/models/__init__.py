"""The tables of backbones and heads, and what is built and loaded from them.

A model config is anything with these attributes: backbone, backbone_b ("" for one stream), head,
head_options (dict), feature_map, dtype ("float32" or "bfloat16", of the backbones), pretrained,
pretrained_b ("" for random weights, else a spec of `convert.weights.read`), and weights_tag (""
for the tag whose source `pretrained` is, or else the backbone's first).
"""

import dataclasses
import functools
import inspect
import types
from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgc_jax import params as trees
from fgc_jax.convert import timm
from fgc_jax.models import efficientnet, heads, pretrained, resnet, vgg
from fgc_jax.models.backbone import Backbone, Preprocess
from fgc_jax.models.classifier import Classifier, apply

BACKBONES: dict[str, Backbone] = {**resnet.RESNETS, **vgg.VGGS, **efficientnet.EFFICIENTNETS}

HEADS = {"gap": heads.Gap, "bilinear": heads.Bilinear, "vgg_fc": heads.VggFc}

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def _lookup(table, name, what):
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; allowed: {', '.join(table)}")
    return table[name]


def _streams(config):
    """The backbones' names: one, or two with the second stream's last."""
    names = (config.backbone, config.backbone_b) if config.backbone_b else (config.backbone,)
    for name in names:
        row = _lookup(BACKBONES, name, "backbone")
        _lookup(row.channels, config.feature_map, f"feature map of {name}")
    return names


def build(config, num_classes: int, *, rngs: nnx.Rngs) -> Classifier:
    """A classifier with new random weights; runs under nnx.eval_shape and jax.jit.

    Raises:
        ValueError: an unknown backbone, head, option of the head, feature map or dtype, fewer
            than two classes, or two streams whose maps have different strides.
    """
    names = _streams(config)
    rows = [BACKBONES[name] for name in names]
    head = _lookup(HEADS, config.head, "head")
    dtype = _lookup(_DTYPES, config.dtype, "dtype")
    options = dict(config.head_options)
    allowed = [
        name
        for name, parameter in inspect.signature(head.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "rngs"
    ]
    for option in options:
        _lookup(dict.fromkeys(allowed), option, f"option of the head {config.head!r}")
    if num_classes < 2:
        raise ValueError(f"a classifier needs at least two classes, not {num_classes}")
    strides = [row.strides[config.feature_map] for row in rows]
    if strides[0] != strides[-1]:
        raise ValueError(
            f"the grids of the two streams differ: {config.feature_map!r} has stride "
            f"{strides[0]} in {names[0]} and {strides[-1]} in {names[-1]}"
        )
    backbones = [row.build(dtype=dtype, rngs=rngs, last=config.feature_map) for row in rows]
    channels = tuple(row.channels[config.feature_map] for row in rows)
    return Classifier(
        backbones[0],
        head(channels, num_classes, rngs=rngs, **options),
        *backbones[1:],
        feature_map=config.feature_map,
        rescale_b=_rescale(config) if config.backbone_b else None,
    )


def _rescale(config):
    """What turns pixels normalised for the first stream into those of the second, or None."""
    first, second = preprocess(config), _facts(config.backbone_b, config.pretrained_b, "")
    if (first.mean, first.std) == (second.mean, second.std):
        return None
    triples = list(zip(first.mean, first.std, second.mean, second.std, strict=True))
    factor = tuple(std / std_b for _, std, _, std_b in triples)
    shift = tuple((mean - mean_b) / std_b for mean, _, mean_b, std_b in triples)
    return factor, shift


def layer_prefixes(config) -> dict[str, tuple[str, ...]]:
    """Layer name -> path prefixes of its parameters, from input to output, head excluded.

    Layers behind config.feature_map are not built and not listed. With two streams each entry
    holds a layer of both, paired from the output ("a+b" where the names differ); what the
    deeper stream has more comes first, alone.
    """
    lists = []
    for name, root in zip(_streams(config), ("backbone", "backbone_b"), strict=False):
        row = BACKBONES[name]
        entries = list(row.layers.items())[: row.depths[config.feature_map]]
        lists.append([(layer, tuple(f"{root}/{p}" for p in paths)) for layer, paths in entries])
    if len(lists) == 1:
        return dict(lists[0])
    total = max(map(len, lists))
    padded = [[None] * (total - len(entries)) + entries for entries in lists]
    paired = {}
    for pair in zip(*padded, strict=True):
        present = [entry for entry in pair if entry is not None]
        name = "+".join(dict.fromkeys(layer for layer, _ in present))
        paired[name] = tuple(path for _, paths in present for path in paths)
    return paired


def preprocess(config) -> Preprocess:
    """What the (first) backbone's weights expect of its input."""
    _streams(config)
    return _facts(config.backbone, config.pretrained, config.weights_tag)


def _facts(name, spec, tag):
    table = BACKBONES[name].weights
    if tag:
        return _lookup(table, tag, f"weights_tag of {name}")
    return pretrained.facts_of(table, spec)


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


def _read_all(config):
    """The state dicts, with timm's names, of the streams; None for random weights."""
    specs = (config.pretrained, config.pretrained_b)
    return [
        pretrained.read(spec, name, BACKBONES[name]) if spec else None
        for name, spec in zip(_streams(config), specs, strict=False)
    ]


def _fill(config, params, stats, states, classifier):
    report = []
    specs = (config.pretrained, config.pretrained_b)
    roots = ("backbone", "backbone_b")
    streams = zip(_streams(config), states, specs, roots, strict=False)
    for name, state, spec, root in streams:
        if state is None:
            report.append(f"{root} ({name}): random weights")
            continue
        row = BACKBONES[name]
        names, left_out = pretrained.names(
            row,
            root,
            state,
            depth=row.depths[config.feature_map],
            hidden=config.head == row.head and not config.backbone_b,
            classifier=classifier,
        )
        try:
            params, stats = timm.fill(params, stats, state, names, left_out)
        except ValueError as error:
            raise ValueError(f"{spec} does not hold the weights of {name}: {error}") from None
        report.append(f"{root} ({name}): {spec} {pretrained.describe(names, left_out, state)}")
    return params, stats, "\n".join(report)


def abstract(config, num_classes: int) -> Classifier:
    """The classifier with shapes in place of arrays: no memory, no computation."""
    return nnx.eval_shape(lambda: build(config, num_classes, rngs=nnx.Rngs(0)))


def split(model: Classifier) -> tuple[dict, dict]:
    """(params, stats) of a classifier as pure nested dicts with string keys."""
    return tuple(nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))


def evaluation_graphdef(model: Classifier) -> nnx.GraphDef:
    """The static half of a classifier with stored statistics in batch norm and no dropout."""
    view = nnx.view(
        # VGG without batch norm has no layer that the first mode would reach.
        model,
        use_running_average=True,
        deterministic=True,
        raise_if_not_found=False,
    )
    return nnx.graphdef(view)


def random_weights(
    config, num_classes: int, *, seed, paths: Collection[str] | None = None
) -> dict[str, jax.Array]:
    """Flat dict path -> newly drawn weight or statistic, of all leaves or of `paths` only.

    seed: an int or a JAX key. A leaf depends on it, the config and the leaf's place alone, not on
    which others are asked for.
    """

    # One compilation for all leaves; those not returned are never computed, nor compiled.
    @jax.jit
    def draw():
        model = build(config, num_classes, rngs=nnx.Rngs(seed))
        params, stats = map(trees.flatten, split(model))
        flat = params | stats
        return flat if paths is None else {path: flat[path] for path in sorted(paths)}

    return draw()


def initialise(config, num_classes: int, *, seed, classifier: bool = False):
    """Weights of a new classifier: (params, stats, report), jax arrays.

    The configured pretrained weights where there are any, random ones elsewhere. seed, an int or a
    JAX key, is that of `random_weights`; classifier, report and errors are `load_pretrained`'s.
    """
    return _initialise(config, num_classes, seed, _read_all(config), classifier)


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


@functools.partial(jax.jit, static_argnums=0)
def _forward(graphdef, params, stats, images):
    return apply(graphdef, params, stats, lambda model: model(images))[0]


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
        """images f32 [B, H, W, 3], normalised by `preprocess` -> (logits f32 [B, K], maps)."""
        return _forward(self.graphdef, self.params, self.stats, images)


def load(
    name: str, weights: str | None = None, *, num_classes: int | None = None, seed: int = 0
) -> LoadedClassifier:
    """The network `name` with its original kind of head, ready to call.

    weights: a spec of `convert.weights.read`, or None for random weights drawn from `seed`.
    num_classes: None for as many as the weights' own classifier has (1000 if they have none); the
    classifier is kept if the number is equal, else a new random one takes its place.

    Raises:
        ValueError: an unknown name, or weights that are missing or do not fit.
    """
    config = _original(name, weights or "")
    (state,) = _read_all(config)
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


def timm_state(name: str, weights: str) -> dict[str, np.ndarray]:
    """The state dict of `weights`, whatever its names, with timm's names and shapes, float32.

    Raises:
        ValueError: the weights are missing or do not fit the network `name`.
    """
    config = _original(name, weights)
    (state,) = _read_all(config)
    row = BACKBONES[name]
    shapes = split(abstract(config, pretrained.count_classes(row, state) or 1000))
    params, stats, _ = _fill(config, *shapes, [state], True)
    # A classifier that the weights lack is not in the result either.
    names, _ = pretrained.names(
        row, "backbone", state, depth=len(row.layers), hidden=True, classifier=True
    )
    return timm.to_state_dict(params, stats, names)


def _original(name, spec):
    """The model config of the network that the published weights belong to."""
    return types.SimpleNamespace(
        backbone=name,
        backbone_b="",
        pretrained=spec,
        pretrained_b="",
        weights_tag="",
        head=_lookup(BACKBONES, name, "backbone").head,
        head_options={},
        feature_map="features",
        dtype="float32",
    )
