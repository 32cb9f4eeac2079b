"""The settings of a run as frozen dataclasses: the type and the allowed values of each key.

The defaults are in `configs/common.py`. Only those of a network are here, because networks can also
be loaded without a recipe. A config must contain every key.
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
from fgc_jax.config.views import ViewSpec

NotNegativeInt = Annotated[int, at_least(0)]
Seed = Annotated[int, between(0, 2**32 - 1)]  # other seeds repeat those of JAX keys or of grain
PhaseName = Annotated[
    str, Limit("of letters, digits, '_', '.' and '-'", re.compile(r"[\w.-]+").fullmatch)
]
ResizeMode = Literal["squash", "short_side", "letterbox"]  # see `data.images`
SplitName = Literal["train", "val", "test"]


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The network. See `fgc_jax.models.build`."""

    backbone: str
    head: str
    backbone_b: str = ""  # second stream of a two-stream bilinear model; "" for none
    pretrained: Weights = Weights("")  # "" for random ones
    pretrained_b: Weights = Weights("")
    weights_tag: str = ""  # normalise with its mean and std; "" for the backbone's default tag
    head_options: dict = dataclasses.field(default_factory=dict)
    # the named map that the head reads, or several, "stage3+features"; "" for that of the
    # published classifier
    feature_map: FeatureMaps = FeatureMaps("")
    # of the (first) backbone's family, see `fgc_jax.models.backbone`
    backbone_options: dict = dataclasses.field(default_factory=dict)
    dtype: Literal["float32", "bfloat16"] = "float32"  # compute type of the backbone
    # stochastic depth: rate of the last block, from 0 at the first
    drop_path: Annotated[float, between(0, 0.999)] = 0.0
    # compute activations again in the backward pass: less memory, more time
    remat: bool = False
    # rank of the kernels that train="lora" adds to linear layers; 0 for none
    lora_rank: NotNegativeInt = 0
    lora_alpha: NotNegative = 0.0  # LoRA's factor is lora_alpha / lora_rank; 0 for a factor of 1
    lora_targets: str = ""  # regex over the paths of linear layers; "" for all outside the head

    @property
    def sources(self) -> str | None:
        """Where the pretrained weights are from; None if all weights are random."""
        given = filter(None, (self.pretrained, self.pretrained_b))
        return " + ".join(map(str, given)) or None


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The data set and its images. See `fgc_jax.data.load` and `fgc_jax.data.pipeline`."""

    name: str
    root: str
    options: dict
    # share of train that becomes val if the data set has no validation split
    val_fraction: Annotated[float, between(0, 0.9)]
    split_seed: Seed
    resize_mode: ResizeMode
    interpolation: Literal["bilinear", "bicubic"]
    random_crop: bool  # train crops at a random place instead of the centre
    sampling: Sampling  # order of train images
    # augmentation of train images on the device: (name, options), see `data.augment.build`
    augment: tuple[tuple[str, dict], ...]
    # of the channels (0..1), for normalising; () for those of the weights
    mean: Annotated[tuple[Share, ...], lengths(0, 3)]
    std: Annotated[tuple[Annotated[float, between(1e-6, 1)], ...], lengths(0, 3)]
    # splits whose pictures are cropped to their annotated box
    box_crop: Annotated[
        tuple[SplitName, ...], Limit("without repetition", lambda x: len(set(x)) == len(x))
    ]
    box_margin: NotNegative  # share of the box that is added on each side
    box_square: bool  # widen the box to a square if the picture is large enough
    on_bad_image: Literal["raise", "skip"]
    threads: Count
    workers: NotNegativeInt


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stage of training."""

    name: PhaseName
    train: Layers  # the head always trains; "lora": see `fgc_jax.models.lora`
    reinit: NewLayers  # layers that are re-initialised at the start of the phase
    start_from: Literal["best", "last"]  # checkpoint of the phase before
    # ordered (regex, group, learning rate multiplier); multiplier 0 freezes. An optional fourth
    # entry {KEY: VALUE} changes some of the GROUP_KEYS for this group
    groups: tuple[tuple[str, str, NotNegative] | tuple[str, str, NotNegative, dict], ...]
    train_bn_while_frozen: bool
    epochs: Count
    batch_size: Count  # global: over all devices and processes
    resize: Count
    crop: Count
    cache_features: bool  # compute the embeddings once and train the head on them: `embeddings`
    optimizer: Literal["sgd", "adam", "adamw", "lamb"]
    lr: NotNegative
    # batch size that belongs to lr: lr is multiplied by batch_size / lr_batch; 0: by 1
    lr_batch: NotNegativeInt
    # learning rate multipliers of the thirds of the backbone, first that of the input; or ()
    lr_thirds: Annotated[tuple[Annotated[float, above(0)], ...], lengths(0, 3)]
    # factor of the learning rate from each layer to the one before it
    layer_decay: Annotated[float, between(1e-3, 1)]
    head_lr: Annotated[float, at_least(1e-6)]  # learning rate multiplier of the head
    momentum: Annotated[float, between(0, 0.9999)]  # SGD's momentum, Adam's and LAMB's beta1
    # of Adam, AdamW and LAMB: decay of the average of squared gradients
    beta2: Annotated[float, between(0, 0.99999)]
    nesterov: bool  # SGD only
    weight_decay: NotNegative  # added to the gradient; decoupled with "adamw" and "lamb"
    decay_norm_and_bias: bool  # whether vectors (norms, biases) also decay
    schedule: str  # see `schedules`, also for its options
    schedule_options: dict
    warmup: Duration  # a linear rise
    clip_norm: NotNegative  # global norm over the trained parameters; 0 for none
    accumulate: Count  # parts of a batch whose gradients are summed: less memory, the same step
    sam_rho: NotNegative  # sharpness-aware minimisation: how far it moves the weights; 0 for none
    average: Average  # see `averaging`
    monitor: Monitor  # the number that selects the best epoch and stops early
    patience: NotNegativeInt  # epochs without a better value before stopping; 0 for never


# The keys of a phase that a group of parameters can change.
GROUP_KEYS = (
    "optimizer", "momentum", "beta2", "nesterov", "weight_decay", "decay_norm_and_bias",
)  # fmt: skip


def with_changes(phase: Phase, changes: Mapping[str, Any], at: str) -> Phase:
    """The phase with the keys that a group changes; errors name the keys `at`KEY.

    Raises:
        ValueError: a key that is not in GROUP_KEYS, or a value that is not allowed.
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
    phases: Annotated[tuple[Phase, ...], Limit("with at least one entry", len)]
    final: bool  # train on train + val, select no checkpoint, test the last state
    # of a final run: directory of the finished run whose best epochs it trains; "" for all epochs
    search: str
    views: ViewSpec  # of the final test; the default of evaluate and predict; see `views`
    eval_batch_size: Count
    checkpoint_every: Count  # steps; also at the end of each epoch
    log_every: Count  # steps
    wandb: str  # Weights & Biases project that gets the same as TensorBoard; "" for none


def parse(config: ml_collections.ConfigDict) -> Settings:
    """The settings of a config. Checks each key alone; `training.rules.parse` checks all rules.

    Raises:
        ValueError: a key is missing, unknown or of the wrong type, or a value is not allowed.
    """
    return fields.read(Settings, _plain(config), "config")


def resolved(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as plain JSON values, the content of `config.json`."""
    return json.loads(json.dumps(_plain(config)))


def _plain(value: Any) -> Any:
    """ConfigDicts at any depth, also those in tuples, as plain dicts."""
    if isinstance(value, (Mapping, ml_collections.ConfigDict)):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_plain(entry) for entry in value)
    return value
