"""The tables of backbones and heads, and facts of a model config that need no built model.

`config.ModelSettings` defines what a model config is.
"""

import dataclasses

from fgc_jax import console
from fgc_jax.config import ModelSettings, Weights, options
from fgc_jax.models import pretrained
from fgc_jax.models.backbone import Backbone, Preprocess, named
from fgc_jax.models.backbones import (
    convnext_table,
    efficientnet_table,
    eva,
    inception,
    resnet_table,
    resnetv2,
    swin_table,
    vgg,
    vit_table,
)
from fgc_jax.models.heads import (
    api_net,
    attention_pooling,
    basic,
    cross_x,
    dcl,
    glsim,
    pmg,
    pyramid,
    second_order,
)

BACKBONES: dict[str, Backbone] = {
    name: named(name, row)
    for rows in (
        resnet_table.RESNETS,
        resnetv2.RESNETV2S,
        inception.INCEPTIONS,
        vgg.VGGS,
        efficientnet_table.EFFICIENTNETS,
        vit_table.VITS,
        eva.DINOV3S,
        convnext_table.CONVNEXTS,
        swin_table.SWINS,
    )
    for name, row in rows.items()
}

HEADS = {
    "gap": basic.Gap,
    "bilinear": basic.Bilinear,
    "vgg_fc": basic.VggFc,
    "attention_pooling": attention_pooling.AttentionPooling,
    "glsim": glsim.GlSim,
    "pim": pyramid.Pim,
    "herbs": pyramid.Herbs,
    "compact_bilinear": second_order.CompactBilinear,
    "isqrt_cov": second_order.IsqrtCov,
    "low_rank_bilinear": second_order.LowRankBilinear,
    "api_net": api_net.ApiNet,
    "pmg": pmg.Pmg,
    "dcl": dcl.Dcl,
    "cross_x": cross_x.CrossX,
}


@dataclasses.dataclass(frozen=True)
class Stream:
    """One backbone of a classifier: root path of its parameters, name, row, source of its weights,
    and the maps that the head reads."""

    root: str
    name: str
    row: Backbone
    pretrained: Weights
    feature_maps: tuple[str, ...]

    @property
    def last(self) -> str:
        """The deepest of the maps."""
        return max(
            self.feature_maps, key=lambda name: (self.row.depths[name], self.row.strides[name])
        )


def lookup(table, name, what):
    """table[name], or a ValueError that lists the allowed names."""
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; {console.choices(name, table)}")
    return table[name]


def original_config(name: str, pretrained: str = "") -> ModelSettings:
    """The settings of the published network `name`.

    Raises:
        ValueError: an unknown backbone.
    """
    head = lookup(BACKBONES, name, "backbone").head
    return ModelSettings(backbone=name, head=head, pretrained=Weights.parse(pretrained))


def streams(config: ModelSettings) -> tuple[Stream, ...]:
    """The config's one or two backbones.

    Raises:
        ValueError: an unknown backbone, feature map or option of a backbone, or an option without
            effect on the maps that are read.
    """
    found = []
    for root, name, spec in (
        ("backbone", config.backbone, config.pretrained),
        ("backbone_b", config.backbone_b, config.pretrained_b),
    ):
        if name or root == "backbone":
            own_row = row = lookup(BACKBONES, name, "backbone")
            if root == "backbone":
                at = "config.model.backbone_options."
                row = row.adapt(row, **options(row.adapt, config.backbone_options, at))
            maps = config.feature_map.names
            if not maps:  # What the published classifier reads, if the head is of its kind.
                own = config.head == row.head and not config.backbone_b
                maps = ("pooled" if own and "pooled" in row.channels else "features",)
            for each in maps:
                lookup(row.channels, each, f"feature map of {name}")
            stream = Stream(root, name, row, spec, maps)
            changed = {m for m, stride in row.strides.items() if stride != own_row.strides[m]}
            if changed and row.strides[stream.last] and stream.last not in changed:
                read = "+".join(maps)
                raise ValueError(
                    f"config.model.backbone_options={dict(config.backbone_options)!r} has no "
                    f"effect on config.model.feature_map={read!r}, only on {sorted(changed)}"
                )
            found.append(stream)
    return tuple(found)


def layer_prefixes(config: ModelSettings) -> dict[str, tuple[str, ...]]:
    """Layer name -> path prefixes of its parameters, from input to output, head excluded.

    Layers after config.feature_map are not built and not listed. With two streams each entry has
    one layer of both, paired from the output ("a+b" if the names differ); the additional layers of
    the deeper stream come first, alone.
    """
    lists = []
    for stream in streams(config):
        entries = list(stream.row.layers.items())[: stream.row.depths[stream.last]]
        lists.append(
            [(layer, tuple(f"{stream.root}/{path}" for path in paths)) for layer, paths in entries]
        )
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


def preprocess(config: ModelSettings) -> Preprocess:
    """The input that the weights of the (first) backbone expect."""
    stream = streams(config)[0]
    return lookup(stream.row.weights, weights_tag(config), f"weights_tag of {stream.name}")


def weights_tag(config: ModelSettings) -> str:
    """The tag of the weights whose mean and standard deviation are used for the input."""
    stream = streams(config)[0]
    known = config.weights_tag or pretrained.tag_of(stream.row.weights, stream.pretrained)
    return known or next(iter(stream.row.weights))


def rescale(config: ModelSettings):
    """(factor, shift), three numbers each, that convert pixels normalised for the first stream to
    those for the second; None if they are the same or there is one stream."""
    _, *others = streams(config)
    if not others:
        return None
    second = pretrained.facts_of(others[0].row.weights, others[0].pretrained)
    return preprocess(config).rescale(second)
