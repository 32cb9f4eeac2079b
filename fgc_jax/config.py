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

from fgc_jax import logs, methods, models, schedules
from fgc_jax.data import dataset, images


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
    feature_map: str  # which named map the head reads; "" for that of the published classifier
    dtype: str  # compute type of the backbone
    drop_path: float  # stochastic depth: rate of the last block, from 0 at the first
    remat: bool  # compute activations again in the backward pass: less memory, more time


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
    train: str  # "head", "last N" layers, "from LAYER" or "all"; the head trains always
    reinit: str  # "" or "last N" or "from LAYER" or "all": fresh weights at the phase's start
    start_from: str  # "best" or "last" checkpoint of the phase before
    groups: tuple  # ordered (regex, group, learning rate multiplier); multiplier 0 freezes
    train_bn_while_frozen: bool
    epochs: int
    batch_size: int  # global: over all devices and processes
    resize: int
    crop: int
    optimizer: str
    lr: float
    lr_batch: int  # batch size that lr is stated for: lr grows with batch_size; 0: as it stands
    lr_thirds: tuple  # learning rate multipliers of the backbone's thirds from the input; or ()
    layer_decay: float  # factor of the learning rate from each layer to the one before it
    head_lr: float  # learning rate multiplier of the head
    momentum: float  # SGD's momentum, Adam's and LAMB's beta1
    nesterov: bool  # SGD only
    weight_decay: float  # added to the gradient; decoupled with "adamw" and "lamb"
    decay_norm_and_bias: bool  # whether vectors (norms, biases) decay too
    schedule: str  # see `schedules`, as of its options
    schedule_options: dict
    warmup: str  # "" or a linear rise, "500 steps", "1.5 epochs" or "30 %" of the phase
    clip_norm: float  # global norm over the trained parameters; 0 for none
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
    eval_batch_size: int
    checkpoint_every: int  # steps; also at the end of each epoch
    log_every: int  # steps


ALLOWED = {
    "model.backbone": lambda: models.BACKBONES,
    "model.backbone_b": lambda: ("", *models.BACKBONES),
    "model.head": lambda: models.HEADS,
    "model.dtype": lambda: ("float32", "bfloat16"),
    "data.resize_mode": lambda: images.MODES,
    "data.interpolation": lambda: ("bilinear", "bicubic"),
    "data.on_bad_image": lambda: ("raise", "skip"),
    "method": lambda: methods.METHODS,
    "phases[].start_from": lambda: ("best", "last"),
    "phases[].optimizer": lambda: ("sgd", "adam", "adamw", "lamb"),
    "phases[].schedule": lambda: schedules.SCHEDULES,
    "phases[].monitor": lambda: ("val_loss", "val_top1"),
}
LAYER_SPEC = r"last [1-9]\d*|from \S+|all"
PATTERNS = {"phases[].train": f"head|{LAYER_SPEC}", "phases[].reinit": f"|{LAYER_SPEC}"}
SPECS = {
    "phases[].train": "'head', 'last N', 'from LAYER', 'all'",
    "phases[].reinit": "'', 'last N', 'from LAYER', 'all'",
}
MINIMA = {
    "phases[].epochs": 1,
    "phases[].batch_size": 1,
    "phases[].resize": 1,
    "phases[].crop": 1,
    "phases[].lr": 0,
    "phases[].layer_decay": 1e-3,
    "model.drop_path": 0,
    "phases[].momentum": 0,
    "phases[].weight_decay": 0,
    "phases[].patience": 0,
    "phases[].lr_batch": 0,
    "phases[].head_lr": 1e-6,
    "phases[].clip_norm": 0,
    "eval_batch_size": 1,
    "checkpoint_every": 1,
    "log_every": 1,
    "data.val_fraction": 0,
    "data.box_margin": 0,
    "data.threads": 1,
    "data.workers": 0,
    "seed": 0,
    "data.split_seed": 0,
}
MAXIMA = {
    "phases[].momentum": 0.9999,
    "phases[].lr": 3e38,
    "phases[].layer_decay": 1,
    "model.drop_path": 0.999,
    "data.val_fraction": 0.9,
    "seed": 2**32 - 1,  # what a JAX key and a grain shuffle tell apart
    "data.split_seed": 2**32 - 1,
}


def parse(config: ml_collections.ConfigDict) -> Settings:
    """ConfigDict -> Settings.

    Raises:
        ValueError: a key is missing, unknown or of the wrong type, or a value is not allowed.
    """
    settings = _build(Settings, _plain(config), "")
    _check(settings)
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
    if general in ALLOWED and value not in ALLOWED[general]():
        allowed = logs.choices(value, ALLOWED[general]())
        raise ValueError(f"config.{where}={value!r} is unknown; {allowed}")
    if general in PATTERNS and not re.fullmatch(PATTERNS[general], value):
        raise ValueError(f"config.{where}={value!r} must be one of {SPECS[general]}")
    if general in MINIMA and not value >= MINIMA[general]:
        raise ValueError(f"config.{where}={value!r} must be at least {MINIMA[general]}")
    if general in MAXIMA and not value <= MAXIMA[general]:
        raise ValueError(f"config.{where}={value!r} must be at most {MAXIMA[general]}")
    return value


def _check(settings: Settings) -> None:
    """Rules between keys. A value that would have no effect is an error."""
    if settings.model.pretrained_b and not settings.model.backbone_b:
        raise ValueError("config.model.pretrained_b has no effect without config.model.backbone_b")
    for name, least in (("mean", 0.0), ("std", 1e-6)):
        value = getattr(settings.data, name)
        fits = all(isinstance(part, (int, float)) and least <= part <= 1 for part in value)
        if len(value) not in (0, 3) or not fits:
            raise ValueError(
                f"config.data.{name}={value!r} must be () or three numbers for pixels of 0 to 1"
            )
    box = settings.data
    strays = set(box.box_crop) - set(dataset.SPLITS)
    if strays or len(set(box.box_crop)) < len(box.box_crop):
        raise ValueError(
            f"config.data.box_crop={box.box_crop!r} must be some of {', '.join(dataset.SPLITS)}"
        )
    if not box.box_crop and (box.box_margin or box.box_square):
        raise ValueError(
            "config.data.box_margin and config.data.box_square have no effect without box_crop"
        )
    names = [phase.name for phase in settings.phases]
    if len(set(names)) < len(names) or not all(re.fullmatch(r"[\w.-]+", name) for name in names):
        raise ValueError(
            f"phase names must differ and hold only letters, digits, '_', '.', '-': {names}"
        )
    for index, phase in enumerate(settings.phases):
        at = f"config.phases[{index}] ({phase.name})"
        if phase.crop > phase.resize:
            raise ValueError(f"{at}: crop={phase.crop} is larger than resize={phase.resize}")
        if index == 0 and phase.reinit:
            raise ValueError(
                f"{at}: reinit={phase.reinit!r} belongs to a later phase; for random "
                "weights from the start set config.model.pretrained=''"
            )
        if phase.train_bn_while_frozen and phase.train == "all":
            raise ValueError(f"{at}: train_bn_while_frozen has no effect where train='all'")
        _check_optimiser(at, phase)
        for rule in phase.groups:
            if not (
                isinstance(rule, (tuple, list))
                and len(rule) == 3
                and isinstance(rule[0], str)
                and isinstance(rule[1], str)
                and isinstance(rule[2], (int, float))
                and rule[2] >= 0
            ):
                raise ValueError(
                    f"{at}: groups must be (regex, group, multiplier >= 0) tuples, not {rule!r}"
                )


def _check_optimiser(at: str, phase: Phase) -> None:
    """Learning rate and optimiser of one phase, as far as they do not depend on model and data."""
    schedules.build(phase, steps_per_epoch=10**9)  # so that any number of steps is possible yet
    thirds = phase.lr_thirds
    if len(thirds) not in (0, 3) or not all(
        isinstance(third, (int, float)) and third > 0 for third in thirds
    ):
        raise ValueError(f"{at}: lr_thirds={thirds!r} must be () or three multipliers above 0")
    if thirds and phase.layer_decay != 1:
        raise ValueError(f"{at}: lr_thirds and layer_decay both say how fast layers learn")
    if phase.nesterov and phase.optimizer != "sgd":
        raise ValueError(f"{at}: nesterov has no effect with optimizer={phase.optimizer!r}")
    if phase.nesterov and not phase.momentum:
        raise ValueError(f"{at}: nesterov has no effect without momentum")
    if not phase.decay_norm_and_bias and not phase.weight_decay:
        raise ValueError(f"{at}: decay_norm_and_bias has no effect without weight_decay")


def _plain(value: Any) -> Any:
    """ConfigDicts at any depth, tuples of them included, as plain dicts."""
    if isinstance(value, (Mapping, ml_collections.ConfigDict)):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_plain(entry) for entry in value)
    return value
