"""A row of the backbone table: constructor, feature maps, layers, and facts of the weights."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


# Of a network that halves the grid in its stem, after it, and before each further stage.
STRIDES = {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32, "features": 32}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The input that one set of weights expects, and the source of these weights.

    mean, std: of RGB values scaled to [0, 1]. size, test_size: side of the square crop in pixels,
    in training and the one recommended for testing. crop_fraction, test_crop_fraction: crop side
    over the short side of the resized image, at `size` and at `test_size`. interpolation:
    "bilinear" or "bicubic". classes: of the weights' own classifier, 0 if they have none. source:
    a spec for `convert.weights.read`, "" if there is none; url: the original file, whose name ends
    in the first eight digits of its sha256. See `named` for "{model}" and "{tag}" in these two.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    test_size: int
    interpolation: str = "bicubic"
    crop_fraction: float
    test_crop_fraction: float
    license: str = "apache-2.0"
    source: str = "hub:timm/{model}.{tag}"
    url: str = ""
    classes: int = 1000

    def rescale(self, other: "Preprocess"):
        """(factor, shift), three numbers each, that convert pixels normalised with this mean and
        std to those of `other`; None if they are the same."""
        if (self.mean, self.std) == (other.mean, other.std):
            return None
        triples = list(zip(self.mean, self.std, other.mean, other.std, strict=True))
        factor = tuple(std / std_b for _, std, _, std_b in triples)
        shift = tuple((mean - mean_b) / std_b for mean, _, mean_b, std_b in triples)
        return factor, shift


@dataclasses.dataclass(frozen=True)
class Setup:
    """How much of a network is built, and how it computes.

    dtype: of activations. last: the deepest feature map that is needed; layers after it are not
    built. drop_path: the largest rate of stochastic depth. remat: whether the backward pass
    computes each block's activations again.
    """

    dtype: Any
    last: str
    drop_path: float
    remat: bool

    def refuse_drop_path(self, name: str) -> None:
        """Raises ValueError for stochastic depth in a network without residual branches."""
        if self.drop_path:
            raise ValueError(
                f"drop_path={self.drop_path} has no effect: {name} has no residual branches"
            )


def as_it_is(row: "Backbone") -> "Backbone":
    return row


@dataclasses.dataclass(frozen=True)
class Backbone:
    """One row of BACKBONES.

    build: (setup=Setup, rngs=) -> nnx.Module;
        module(x [B, H, W, 3], rngs=) -> dict of maps [B, h, w, c], and attention maps
        "attention/BLOCK" if it has any. Raises ValueError for a size that does not fit.
    channels, strides: of each feature map. "features" is the grid of timm's forward_features;
        "pooled" [B, 1, 1, c], stride 0, is the vector that the published classifier reads, if
        it is not the mean of "features".
    layers: layer name -> parameter path prefixes inside the backbone, ordered input to output; a
        final norm belongs to the last block.
    depths: feature map -> how many of `layers`, from the input, it depends on.
    weights: tag -> facts; the first tag is the default.
    head: the key of HEADS that the published weights were trained with.
    head_names: timm's module names of that head -> paths inside our head.
    parameters: count with the classifier of the first weights, if they have one.
    gflops: 1e9 multiply-adds of a forward pass at the first weights' size, as papers count them.
    unused: timm's names of modules in published files that no forward pass reads.
    optional: paths of layers that some published files lack; these layers then start with random
        weights.
    in_timm: whether timm has the network under this name.
    resample: leaf name -> function (array, shape) that fits a stored leaf to another image size.
    adapt: (row, *, OPTIONS) -> the row so changed; config.model.backbone_options are the options.
    """

    build: Callable
    channels: dict[str, int]
    strides: dict[str, int]
    layers: dict[str, tuple[str, ...]]
    depths: dict[str, int]
    weights: dict[str, Preprocess]
    head: str
    head_names: dict[str, str]
    parameters: int
    gflops: float = 0.0
    unused: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    in_timm: bool = True
    resample: dict[str, Callable] = dataclasses.field(default_factory=dict)
    adapt: Callable[..., "Backbone"] = as_it_is


def timm_facts(
    *,
    norm=IMAGENET,
    size: int = 224,
    crop: float = 0.875,
    test: tuple[int, float] | None = None,
    **others,
) -> Preprocess:
    """Facts of weights on the Hugging Face hub, as stated by timm 1.0.31.

    norm: (mean, std). crop: `crop_fraction`. test: (`test_size`, `test_crop_fraction`), None if
    they are the same as in training. others: the other fields of Preprocess.
    """
    test_size, test_crop = test or (size, crop)
    return Preprocess(
        mean=norm[0],
        std=norm[1],
        size=size,
        test_size=test_size,
        crop_fraction=crop,
        test_crop_fraction=test_crop,
        **others,
    )


def named(model: str, row: Backbone) -> Backbone:
    """The row with the network's name and the tags written into sources and URLs of its weights."""
    weights = {
        tag: dataclasses.replace(
            facts,
            source=facts.source.format(model=model, tag=tag),
            url=facts.url.format(model=model),
        )
        for tag, facts in row.weights.items()
    }
    return dataclasses.replace(row, weights=weights)


def counted(stem: dict[str, tuple[str, ...]], stages: Sequence[Sequence[str]]):
    """(layers, depths) of a row. stem: name -> paths of the first layer, which gives the map
    "stem". stages: the paths of the blocks of each stage, which are also their names."""
    ordered, counts = dict(stem), {"stem": 1}
    for number, blocks in enumerate(stages, start=1):
        ordered |= {block: (block,) for block in blocks}
        counts[f"stage{number}"] = len(ordered)
    return ordered, counts | {"features": len(ordered)}


def stage_layers(stem: str, stages: str, depths: Sequence[int], norm: str):
    """(layers, depths) of a row whose blocks are at `stages`/STAGE/blocks, with a downsampling
    layer before each stage except the first, and whose final norm is at the path `norm`."""
    blocks = [[f"{stages}/{n}/blocks/{i}" for i in range(depth)] for n, depth in enumerate(depths)]
    ordered, counts = counted({stem: (stem,)}, blocks)
    for stage, (first, *_) in enumerate(blocks[1:], start=1):
        ordered[first] = (f"{stages}/{stage}/downsample", first)
    ordered[blocks[-1][-1]] += (norm,)
    return ordered, counts


def torchvision(digest: str, **facts) -> Preprocess:
    """Facts of torchvision's first ImageNet weights (V1), which timm calls tv_in1k."""
    url = f"https://download.pytorch.org/models/{{model}}-{digest}.pth"
    return timm_facts(interpolation="bilinear", license="bsd-3-clause", url=url, **facts)


def torchvision2(digest: str) -> Preprocess:
    """Facts of torchvision's second ImageNet weights (V2), which timm calls tv2_in1k."""
    return torchvision(digest, size=176, test=(224, 0.965))
