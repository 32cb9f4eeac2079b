"""The scores of images in several views: attention, crops and means are computed on the device, in
the compiled step."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fgc_jax import config, models
from fgc_jax.evaluation.views import Views, make
from fgc_jax.models import regions
from fgc_jax.models.network import Network, map_shapes

# In a classifier's `out`.
EFFECT, ATTENTION = "head/effect", ("head/attention", "part_attention")

Forward = Callable[[jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def of(network: Network, phase: config.Phase, spec: config.ViewSpec, **choices: str) -> Views:
    """The views `spec` of images of the phase's size. choices: `average` and `logits` of
    `views.make`.

    Raises:
        ValueError: an impossible view, or logits that the network does not have.
    """
    streams = models.streams(network.settings)
    made = make(
        spec,
        crop=phase.crop,
        resize=phase.resize,
        stride=max(stride for each in streams for stride in each.row.strides.values()),
        feature_map=streams[0].last,
        **choices,
    )
    maps = map_shapes(network, phase.crop)
    if made.attentive:
        jax.eval_shape(lambda out: attention(out, made.feature_map), maps)
    if made.logits == "effect" and EFFECT not in maps:
        raise ValueError(
            f"the head {network.settings.head!r} has no effect logits, only plain logits"
        )
    for side in {each.side for each in made.passes} - {phase.crop}:
        try:
            map_shapes(network, side)
        except ValueError as error:
            raise ValueError(f"views {made.spec!r}: {side} pixels: {error}") from None
    return made


def attention(out: dict[str, jax.Array], feature_map: str) -> jax.Array:
    """The network's attention to each position, f32 [B, h, w], at least 0.

    If `out` has "head/attention" or TransFG's "part_attention", it is the mean over these maps.
    Else it is the mean over the channels of |x| of the map `feature_map` (of "features" if that map
    is a single vector), minus its minimum in the image. This is the aggregation map of SCDA (Wei et
    al., arXiv:1604.04994), except for |.| and the minimum: a transformer's features have both
    signs, and the level of its background is not 0.

    Raises:
        ValueError: no map has more than one position.
    """
    for name in ATTENTION:
        if name in out:
            return out[name].astype(jnp.float32).mean(-1)
    for name in (feature_map, "features"):
        if name in out and out[name].shape[1] * out[name].shape[2] > 1:
            strength = jnp.abs(out[name].astype(jnp.float32)).mean(-1)
            return strength - strength.min((1, 2), keepdims=True)
    raise ValueError("crop(...) needs attention maps, or feature maps with more than one position")


def scores(views: Views, forward: Forward, images: jax.Array) -> jax.Array:
    """Logits f32 [B, K] of `images` f32 [B, side, side, 3], normalised, in the given views.

    forward: images [B, H, W, 3] -> (logits, out). For a mean of probabilities the result is its
    logarithm, so its softmax is the mean. The network is compiled once for each size. The passes of
    one size run one after the other and need the memory of one.
    """
    if views.is_raw:
        return _chosen(views, *forward(images))
    parts = []
    for side in dict.fromkeys(each.side for each in views.passes):
        group = [each for each in views.passes if each.side == side]
        parts.append(_group(views, group, forward, images))
    return functools.reduce(jnp.add if views.average == "logits" else jnp.logaddexp, parts)


def _chosen(views, logits, out):
    return out[EFFECT] if views.logits == "effect" else logits


def _group(views, group, forward, images):
    """The weighted sum over the passes of one size: of logits, or of probabilities (returned as
    logarithms)."""
    attentive = any(each.attended for each in group)
    attend = functools.partial(attention, feature_map=views.feature_map)

    def one(carry, each):
        total, maps = carry
        logits, out = forward(_picture(views, group, each, images, maps))
        logits = _chosen(views, logits, out).astype(jnp.float32)
        if views.average == "logits":
            total = total + each["weight"] * logits
        else:
            share = jnp.log(each["weight"]) + jax.nn.log_softmax(logits)
            total = jnp.logaddexp(total, share)
        if attentive:
            maps = jnp.where(each["maps"], attend(out), maps)
        return (total, maps), None

    table = {
        "weight": np.float32([each.weight for each in group]),
        "mirrored": np.array([each.mirrored for each in group]),
        "corner": np.int32([each.corner for each in group]),
        "attended": np.array([each.attended is not None for each in group]),
        "threshold": np.float32([(each.attended or (0, 0))[0] for each in group]),
        "padding": np.float32([(each.attended or (0, 0))[1] for each in group]),
        "maps": np.array([each.maps for each in group]),
    }
    square = (len(images), group[0].side, group[0].side, 3)
    logits, out = jax.eval_shape(forward, jax.ShapeDtypeStruct(square, images.dtype))
    nothing = 0.0 if views.average == "logits" else -jnp.inf
    maps = jax.eval_shape(attend, out) if attentive else None
    start = (
        jnp.full(logits.shape, nothing, jnp.float32),
        jnp.zeros(maps.shape, jnp.float32) if attentive else None,
    )
    if len(group) == 1:
        (total, _), _ = one(start, {name: values[0] for name, values in table.items()})
    else:
        (total, _), _ = jax.lax.scan(one, start, table)
    return total


def _picture(views, group, each, images, maps):
    """The images of the pass `each`, which is a row of `_group`'s table."""
    if views.side > views.crop:
        size = (len(images), views.crop, views.crop, 3)
        images = jax.lax.dynamic_slice(images, (0, *each["corner"], 0), size)
    if any(other.mirrored for other in group):
        images = jnp.where(each["mirrored"], images[:, :, ::-1], images)
    if group[0].side != views.crop:
        size = (len(images), group[0].side, group[0].side, 3)
        images = jax.image.resize(images, size, "linear", antialias=True)
    if any(other.attended for other in group):
        size, boxes = images.shape[1:3], jnp.zeros((len(images), 4), jnp.int32)
        for padding in sorted({other.attended[1] for other in group if other.attended}):
            found = regions.boxes(maps, each["threshold"], padding, size)
            boxes = jnp.where(each["padding"] == np.float32(padding), found, boxes)
        images = jnp.where(each["attended"], regions.crop(images, boxes), images)
    return images
