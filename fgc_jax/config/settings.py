"""The run's settings as frozen dataclasses: of each key its type and what it may be.

A key's default stands in `configs/common.py`, except for those of a network, which stand here, for
networks that are loaded without a recipe. In a config each key must be given.
"""

import dataclasses
import json
import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import ml_collections

from fgc_jax.config import fields
from fgc_jax.config.languages import (
    Average,
    Duration,
    FeatureMaps,
    Layers,
    Monitor,
    NewLayers,
    Sampling,
    Weights,
)
from fgc_jax.config.limits import (
    Count,
    Limit,
    NotNegative,
    Share,
    above,
    at_least,
    between,
    lengths,
)

NotNegativeInt = Annotated[int, at_least(0)]
Seed = Annotated[int, between(0, 2**32 - 1)]  # what a JAX key and a grain shuffle tell apart
PhaseName = Annotated[
    str, Limit("of letters, digits, '_', '.' and '-'", re.compile(r"[\w.-]+").fullmatch)
]
ResizeMode = Literal["squash", "short_side", "letterbox"]  # see `data.images`
SplitName = Literal["train", "val", "test"]


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """What is trained. See `fgc_jax.models.build`."""

    backbone: str
    head: str
    backbone_b: str = ""  # second stream of a two-stream bilinear model; "" for none
    pretrained: Weights = Weights("")  # "" for random ones
    pretrained_b: Weights = Weights("")
    weights_tag: str = ""  # whose mean and std to use; "" for the backbone's default tag
    head_options: dict = dataclasses.field(default_factory=dict)
    # which named map the head reads, or several, "stage3+features"; "" for that of the published
    # classifier
    feature_map: FeatureMaps = FeatureMaps("")
    # of the (first) backbone's family, see `fgc_jax.models.backbone`
    backbone_options: dict = dataclasses.field(default_factory=dict)
    dtype: Literal["float32", "bfloat16"] = "float32"  # compute type of the backbone
    # stochastic depth: rate of the last block, from 0 at the first
    drop_path: Annotated[float, between(0, 0.999)] = 0.0
    # compute activations again in the backward pass: less memory, more time
    remat: bool = False
    # of the kernels that train="lora" trains beside linear layers; 0 for none
    lora_rank: NotNegativeInt = 0
    lora_alpha: NotNegative = 0.0  # over the rank: LoRA's factor; 0 for the rank itself
    lora_targets: str = ""  # regex over the paths of linear layers; "" for all outside the head


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What it is trained on. See `fgc_jax.data.load` and `fgc_jax.data.pipeline`."""

    name: str
    root: str
    options: dict
    # cut from train when the data set has no validation split
    val_fraction: Annotated[float, between(0, 0.9)]
    split_seed: Seed
    resize_mode: ResizeMode
    interpolation: Literal["bilinear", "bicubic"]
    random_crop: bool  # train crops at a random place instead of the centre
    sampling: Sampling  # order of train images
    # of train images on the device: (name, options), see `data.augment.build`
    augment: tuple[tuple[str, dict], ...]
    # of the channels of 0..1, for normalising; () for those of the weights
    mean: Annotated[tuple[Share, ...], lengths(0, 3)]
    std: Annotated[tuple[Annotated[float, between(1e-6, 1)], ...], lengths(0, 3)]
    # splits whose pictures are cut to their annotated box
    box_crop: Annotated[tuple[SplitName, ...], Limit("not twice", lambda x: len(set(x)) == len(x))]
    box_margin: NotNegative  # share of the box that is added on each side
    box_square: bool  # widen the box to a square where the picture allows it
    on_bad_image: Literal["raise", "skip"]
    threads: Count
    workers: NotNegativeInt


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stage of training."""

    name: PhaseName
    train: Layers  # the head trains always; "lora": see `fgc_jax.models.lora`
    reinit: NewLayers  # fresh weights at the phase's start
    start_from: Literal["best", "last"]  # checkpoint of the phase before
    # ordered (regex, group, learning rate multiplier), behind which may stand {KEY: VALUE} with the
    # GROUP_KEYS that the group has otherwise than the phase; multiplier 0 freezes
    groups: tuple[tuple[str, str, NotNegative] | tuple[str, str, NotNegative, dict], ...]
    train_bn_while_frozen: bool
    epochs: Count
    batch_size: Count  # global: over all devices and processes
    resize: Count
    crop: Count
    cache_features: bool  # train the head on embeddings computed once; see `embeddings`
    optimizer: Literal["sgd", "adam", "adamw", "lamb"]
    lr: NotNegative
    # batch size that lr is stated for: lr grows with batch_size; 0: as it stands
    lr_batch: NotNegativeInt
    # learning rate multipliers of the backbone's thirds from the input; or ()
    lr_thirds: Annotated[tuple[Annotated[float, above(0)], ...], lengths(0, 3)]
    # factor of the learning rate from each layer to the one before it
    layer_decay: Annotated[float, between(1e-3, 1)]
    head_lr: Annotated[float, at_least(1e-6)]  # learning rate multiplier of the head
    momentum: Annotated[float, between(0, 0.9999)]  # SGD's momentum, Adam's and LAMB's beta1
    # of Adam, AdamW and LAMB: how long squared gradients are averaged
    beta2: Annotated[float, between(0, 0.99999)]
    nesterov: bool  # SGD only
    weight_decay: NotNegative  # added to the gradient; decoupled with "adamw" and "lamb"
    decay_norm_and_bias: bool  # whether vectors (norms, biases) decay too
    schedule: str  # see `schedules`, as of its options
    schedule_options: dict
    warmup: Duration  # a linear rise
    clip_norm: NotNegative  # global norm over the trained parameters; 0 for none
    accumulate: Count  # parts of a batch whose gradients are summed: less memory, the same step
    sam_rho: NotNegative  # sharpness-aware minimisation: how far it moves the weights; 0 for none
    average: Average  # see `averaging`
    monitor: Monitor  # what "best" and early stopping look at
    patience: NotNegativeInt  # epochs without a better value before stopping; 0 for never


# What a group of parameters may have otherwise than its phase.
GROUP_KEYS = (
    "optimizer", "momentum", "beta2", "nesterov", "weight_decay", "decay_norm_and_bias",
)  # fmt: skip


def with_changes(phase: Phase, changes: Mapping[str, Any], at: str) -> Phase:
    """The phase as a group has it; errors call the keys `at`KEY.

    Raises:
        ValueError: a key that is not in GROUP_KEYS, or a value that it cannot have.
    """
    hints = typing.get_type_hints(Phase, include_extras=True)
    known = {name: hints[name] for name in GROUP_KEYS}
    kept = {name: getattr(phase, name) for name in GROUP_KEYS}
    return dataclasses.replace(phase, **fields.checked(known, {**kept, **changes}, at))


@dataclasses.dataclass(frozen=True)
class Settings:
    """A whole run."""

    seed: Seed
    model: ModelSettings
    data: DataSettings
    method: str
    method_options: dict
    phases: Annotated[tuple[Phase, ...], Limit("and at least one", len)]
    final: bool  # train on train + val, select nothing, test the last state
    search: str  # of a final run: the finished run whose best epochs it trains; "" for all epochs
    views: str  # of the final test, and what evaluate and predict begin with; see `views`
    eval_batch_size: Count
    checkpoint_every: Count  # steps; also at the end of each epoch
    log_every: Count  # steps
    wandb: str  # Weights & Biases project that gets what TensorBoard gets; "" for none


def parse(config: ml_collections.ConfigDict) -> Settings:
    """The settings of a config, each key checked by itself; `training.rules.parse` checks all.

    Raises:
        ValueError: a key is missing, unknown or of the wrong type, or a value is not allowed.
    """
    return fields.read(Settings, _plain(config), "config")


def resolved(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as plain JSON values, as `config.json` stores it."""
    return json.loads(json.dumps(_plain(config)))


def _plain(value: Any) -> Any:
    """ConfigDicts at any depth, tuples of them included, as plain dicts."""
    if isinstance(value, (Mapping, ml_collections.ConfigDict)):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_plain(entry) for entry in value)
    return value
