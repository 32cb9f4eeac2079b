"""The run's settings as frozen dataclasses, parsed from a ConfigDict with every key checked.

No field has a default: a value stands in the recipe or in `configs/common.py`, never here.
"""

import dataclasses
import json
import re
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from fgc_jax import console
from fgc_jax.training import rules


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """What is trained. See `fgc_jax.models.build`."""

    backbone: str
    backbone_b: str  # second stream of a two-stream bilinear model; "" for none
    pretrained: str  # file, directory, "package:NAME", "hub:timm/NAME.TAG" or "" for random
    pretrained_b: str
    weights_tag: str  # whose mean and std to use; "" for the backbone's default tag
    head: str
    head_options: dict
    # which named map the head reads, or several, "stage3+features"; "" for that of the published
    # classifier
    feature_map: str
    backbone_options: dict  # of the (first) backbone's family, see `fgc_jax.models.backbone`
    dtype: str  # compute type of the backbone
    drop_path: float  # stochastic depth: rate of the last block, from 0 at the first
    remat: bool  # compute activations again in the backward pass: less memory, more time
    lora_rank: int  # of the kernels that train="lora" trains beside linear layers; 0 for none
    lora_alpha: float  # over the rank: LoRA's factor; 0 for the rank itself
    lora_targets: str  # regex over the paths of linear layers; "" for all outside the head


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What it is trained on. See `fgc_jax.data.load` and `fgc_jax.data.pipeline`."""

    name: str
    root: str
    options: dict
    val_fraction: float  # cut from train when the data set has no validation split
    split_seed: int
    resize_mode: str  # "squash" (both sides) or "short_side"
    interpolation: str
    random_crop: bool  # train crops at a random place instead of the centre
    sampling: str  # order of train images: "shuffle", "balanced" or "N classes x M"
    augment: tuple  # of train images on the device: (name, options), see `data.augment.build`
    mean: tuple  # of the channels of 0..1, for normalising; () for those of the weights
    std: tuple
    box_crop: tuple  # splits whose pictures are cut to their annotated box, e.g. ("train", "val")
    box_margin: float  # share of the box that is added on each side
    box_square: bool  # widen the box to a square where the picture allows it
    on_bad_image: str  # "raise" or "skip"
    threads: int
    workers: int


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stage of training."""

    name: str
    # "head", "last N" layers, "from LAYER", "all", "bias" (all biases) or "lora" (see
    # `fgc_jax.models.lora`); the head trains always
    train: str
    reinit: str  # "" or "last N" or "from LAYER" or "all": fresh weights at the phase's start
    start_from: str  # "best" or "last" checkpoint of the phase before
    groups: tuple  # ordered (regex, group, learning rate multiplier); multiplier 0 freezes
    train_bn_while_frozen: bool
    epochs: int
    batch_size: int  # global: over all devices and processes
    resize: int
    crop: int
    cache_features: bool  # train the head on embeddings computed once; see `embeddings`
    optimizer: str
    lr: float
    lr_batch: int  # batch size that lr is stated for: lr grows with batch_size; 0: as it stands
    lr_thirds: tuple  # learning rate multipliers of the backbone's thirds from the input; or ()
    layer_decay: float  # factor of the learning rate from each layer to the one before it
    head_lr: float  # learning rate multiplier of the head
    momentum: float  # SGD's momentum, Adam's and LAMB's beta1
    beta2: float  # of Adam, AdamW and LAMB: how long squared gradients are averaged
    nesterov: bool  # SGD only
    weight_decay: float  # added to the gradient; decoupled with "adamw" and "lamb"
    decay_norm_and_bias: bool  # whether vectors (norms, biases) decay too
    schedule: str  # see `schedules`, as of its options
    schedule_options: dict
    warmup: str  # "" or a linear rise, "500 steps", "1.5 epochs" or "30 %" of the phase
    clip_norm: float  # global norm over the trained parameters; 0 for none
    accumulate: int  # parts of a batch whose gradients are summed: less memory, the same step
    sam_rho: float  # sharpness-aware minimisation: how far it moves the weights; 0 for none
    average: str  # "", "ema DECAY" or "swa N" (mean of the last N epochs), see `averaging`
    monitor: str  # what "best" and early stopping look at
    patience: int  # epochs without a better value before stopping; 0 for never


@dataclasses.dataclass(frozen=True)
class Settings:
    """A whole run."""

    seed: int
    model: ModelSettings
    data: DataSettings
    method: str
    method_options: dict
    phases: tuple[Phase, ...]
    final: bool  # train on train + val, select nothing, test the last state
    search: str  # of a final run: the finished run whose best epochs it trains; "" for all epochs
    views: str  # of the final test, and what evaluate and predict begin with; see `views`
    eval_batch_size: int
    checkpoint_every: int  # steps; also at the end of each epoch
    log_every: int  # steps
    wandb: str  # Weights & Biases project that gets what TensorBoard gets; "" for none


def parse(config: ml_collections.ConfigDict) -> Settings:
    """ConfigDict -> Settings.

    Raises:
        ValueError: a key is missing, unknown or of the wrong type, or a value is not allowed.
    """
    settings = _build(Settings, _plain(config), "")
    rules.check(settings)
    return settings


def resolved(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as plain JSON values, as `config.json` stores it."""
    return json.loads(json.dumps(_plain(config)))


def _build(kind: type, values: Any, path: str):
    if not isinstance(values, Mapping):
        raise ValueError(f"config.{path} must hold the keys of {kind.__name__}, not {values!r}")
    hints = typing.get_type_hints(kind)
    at = f"config.{path}" if path else "config"
    unknown, missing = sorted(set(values) - set(hints)), sorted(set(hints) - set(values))
    if unknown or missing:
        raise ValueError(
            f"{at}: unknown keys {unknown}, missing keys {missing}; it has {sorted(hints)}"
        )
    fields = {}
    for name, hint in hints.items():
        where = f"{path}.{name}" if path else name
        value = values[name]
        if name == "phases":
            if not isinstance(value, (tuple, list)) or not value:
                raise ValueError("config.phases must be a tuple of at least one phase")
            fields[name] = tuple(
                _build(Phase, phase, f"phases[{index}]") for index, phase in enumerate(value)
            )
        elif dataclasses.is_dataclass(hint):
            fields[name] = _build(hint, value, where)
        else:
            fields[name] = _typed(hint, value, where)
    return kind(**fields)


def _typed(hint: type, value: Any, where: str):
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is tuple and isinstance(value, list):
        value = tuple(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"config.{where}={value!r} must be of type {hint.__name__}")
    general = re.sub(r"\[\d+\]", "[]", where)
    if general in rules.ALLOWED and value not in rules.ALLOWED[general]():
        allowed = console.choices(value, rules.ALLOWED[general]())
        raise ValueError(f"config.{where}={value!r} is unknown; {allowed}")
    if general in rules.PATTERNS and not re.fullmatch(rules.PATTERNS[general], value):
        raise ValueError(f"config.{where}={value!r} must be one of {rules.SPECS[general]}")
    if general in rules.MINIMA and not value >= rules.MINIMA[general]:
        raise ValueError(f"config.{where}={value!r} must be at least {rules.MINIMA[general]}")
    if general in rules.MAXIMA and not value <= rules.MAXIMA[general]:
        raise ValueError(f"config.{where}={value!r} must be at most {rules.MAXIMA[general]}")
    return value


def _plain(value: Any) -> Any:
    """ConfigDicts at any depth, tuples of them included, as plain dicts."""
    if isinstance(value, (Mapping, ml_collections.ConfigDict)):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_plain(entry) for entry in value)
    return value
