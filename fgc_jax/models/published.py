"""Published networks: loading them complete, and writing networks with timm's names."""

import dataclasses
import functools

import jax
import numpy as np
from flax import nnx

from fgc_jax import trees
from fgc_jax.config import ModelSettings
from fgc_jax.convert import timm
from fgc_jax.models import bridge, builder, lora, pretrained, table
from fgc_jax.models import weights as filling
from fgc_jax.models.backbone import Preprocess

ATTENTION, BLOCK = "attention/", "block"  # begin the names of attention maps and of a ViT's blocks


@functools.partial(jax.jit, static_argnums=0)
def forward(graphdef, params, stats, images):
    """Logits f32 [B, K] and named maps of images f32 [B, H, W, 3], normalised."""
    logits, out = bridge.infer(graphdef, params, stats, images)
    # Left out, because they take gigabytes: attention maps grow with the fourth power of the side.
    few = {name: x for name, x in out.items() if not name.startswith((ATTENTION, BLOCK))}
    return logits, few


@functools.partial(jax.jit, static_argnums=(0, 1))
def maps_named(graphdef, kind, params, stats, images):
    """The maps whose names begin with `kind`."""
    _, out = bridge.infer(graphdef, params, stats, images)
    return {name: x for name, x in out.items() if name.startswith(kind)}


@dataclasses.dataclass(frozen=True)
class LoadedClassifier:
    """A network in evaluation mode; see `load`. `report` states the source of its weights."""

    graphdef: nnx.GraphDef
    params: dict
    stats: dict
    preprocess: Preprocess
    num_classes: int
    report: str

    def __call__(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """images f32 [B, H, W, 3], normalised by `preprocess` -> (logits f32 [B, K], maps).

        The maps are those of the stages and after the last block; for others see the methods below.
        """
        return forward(self.graphdef, self.params, self.stats, images)

    def attention(self, images: jax.Array) -> dict[str, jax.Array]:
        """The attention maps of a transformer, by block; {} for other networks."""
        maps = maps_named(self.graphdef, ATTENTION, self.params, self.stats, images)
        return {name.removeprefix(ATTENTION): x for name, x in maps.items()}

    def blocks(self, images: jax.Array) -> dict[str, jax.Array]:
        """The grids after the blocks of a ViT except the last, "block1", ...; {} for others."""
        return maps_named(self.graphdef, BLOCK, self.params, self.stats, images)


def _read_published(name, spec):
    """(model config of the published network, state dict of `spec` or None); the config has the
    tag of the weights."""
    config = table.original_config(name, spec)
    if not spec:
        return config, None
    state, tag = pretrained.read(config.pretrained, name, table.BACKBONES)
    return dataclasses.replace(config, weights_tag=tag), state


def load(
    name: str, weights: str | None = None, *, num_classes: int | None = None, seed: int = 0
) -> LoadedClassifier:
    """The network `name` with its original kind of head, ready to call.

    weights: a spec of `convert.weights.read`, or None for random weights drawn from `seed`.
    num_classes: None for the number of the weights' own classifier (1000 if they have none). If the
    number is the same, that classifier is kept; otherwise it is replaced by a random one.

    Raises:
        ValueError: an unknown name, fewer than 2 classes, or weights that are missing or do not
            fit.
    """
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"num_classes={num_classes} must be at least 2")
    config, state = _read_published(name, weights or "")
    classes = pretrained.count_classes(table.BACKBONES[name], state)
    num_classes = num_classes or classes or 1000
    params, stats, report = filling.initialise_from(
        config, num_classes, seed, [state], num_classes == classes
    )
    return LoadedClassifier(
        graphdef=builder.evaluation_graphdef(builder.abstract(config, num_classes)),
        params=params,
        stats=stats,
        preprocess=table.preprocess(config),
        num_classes=num_classes,
        report=report,
    )


def timm_state(name: str, weights: str) -> tuple[dict[str, np.ndarray], str]:
    """(state dict of `weights` with timm's names and shapes, float32; their tag, "" if it is not
    stated).

    Raises:
        ValueError: the weights are missing or do not fit the network `name`.
    """
    config, state = _read_published(name, weights)
    classes = pretrained.count_classes(table.BACKBONES[name], state)
    shapes = builder.split(builder.abstract(config, classes or 1000))
    params, stats, _ = filling.fill(config, *shapes, [state], True)
    # If the weights have no classifier, the result has none either.
    params = params if classes else {"backbone": params["backbone"]}
    return _to_timm(name, params, stats), config.weights_tag


def to_timm(config: ModelSettings, params, stats) -> tuple[dict[str, np.ndarray], int, bool]:
    """A trained classifier as (state dict with timm's names and shapes, number of classes, whether
    it has every key of timm's network with that number of classes).

    If the head computes something other than timm's, it is left out and the number is 0; changed
    strides do not count as a difference. LoRA's products are added to the kernels.

    Raises:
        ValueError: two streams, a backbone that ends at an inner feature map, or one that timm does
            not have.
    """
    stream, *others = table.streams(config)
    if others:
        raise ValueError("timm has no classifier of two streams")
    row, original = stream.row, table.original_config(stream.name)
    if not row.in_timm:
        raise ValueError(f"timm has no network {stream.name}")
    if row.depths[stream.last] < len(row.layers):
        raise ValueError(
            f"the map {stream.last!r} is inside {stream.name}: the layers after it were not "
            "trained, but timm's network has them"
        )
    params = lora.merged(config, params)
    classes = params["head"]["fc"]["kernel"].shape[1]
    wanted, _ = builder.split(builder.abstract(original, classes))
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
    return timm.to_state_dict(params, stats, pretrained.original_names(table.BACKBONES[name]))
