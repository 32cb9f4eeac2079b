"""Checks of a config beyond the types of its keys: names that must be in a table, and rules between
keys."""

from collections.abc import Iterator

import ml_collections

from fgc_jax import config, console, methods, models
from fgc_jax import data as sources
from fgc_jax.data import augment
from fgc_jax.training import schedules


def parse(recipe: ml_collections.ConfigDict) -> config.Settings:
    """The settings of a recipe or of a stored config, with every check that needs no data: of names
    against their tables, and of keys against each other.

    Raises:
        ValueError: a wrong value, or one without effect; the message names the key.
    """
    settings = config.parse(recipe)
    model, data = settings.model, settings.data
    _check_name("model.backbone", model.backbone, models.BACKBONES)
    if model.backbone_b:
        _check_name("model.backbone_b", model.backbone_b, models.BACKBONES)
    elif model.pretrained_b:
        raise ValueError("config.model.pretrained_b has no effect without config.model.backbone_b")
    _check_name("model.head", model.head, models.HEADS)
    _check_name("method", settings.method, methods.METHODS)
    if not data.box_crop and (data.box_margin or data.box_square):
        raise ValueError(
            "config.data.box_margin and config.data.box_square have no effect without box_crop"
        )
    if settings.final and ("train" in data.box_crop) != ("val" in data.box_crop):
        raise ValueError(
            f"config.data.box_crop={data.box_crop!r}: a final run also trains on the images of "
            "val, so crop both train and val, or neither"
        )
    _check_method(settings)
    config.options(models.HEADS[model.head], model.head_options, "config.model.head_options.")
    config.options(methods.METHODS[settings.method].make, settings.method_options, methods.AT)
    models.table.streams(model)
    sources.options(data.name, data.options)
    if settings.search and not settings.final:
        raise ValueError("config.search has no effect without config.final=True")
    _check_lora(model, {phase.train.kind for phase in settings.phases})
    names = [phase.name for phase in settings.phases]
    if len(set(names)) < len(names):
        raise ValueError(f"the names of phases must differ: {names}")
    for index, phase in enumerate(settings.phases):
        _check_name(f"phases[{index}].schedule", phase.schedule, schedules.SCHEDULES)
        _check_phase(f"config.phases[{index}] ({phase.name})", settings, phase, first=index == 0)
    return settings


def _check_name(key: str, name: str, table) -> None:
    if name not in table:
        raise ValueError(f"config.{key}={name!r} is unknown; {console.choices(name, table)}")


def _check_phase(at: str, settings: config.Settings, phase: config.Phase, *, first: bool) -> None:
    if phase.crop > phase.resize:
        raise ValueError(f"{at}: crop={phase.crop} is larger than resize={phase.resize}")
    if first and phase.reinit:
        raise ValueError(
            f"{at}: reinit={phase.reinit!r} is only for later phases; for random "
            "weights from the start set config.model.pretrained=''"
        )
    if phase.reinit and phase.train.kind in ("bias", "lora"):
        raise ValueError(
            f"{at}: reinit={phase.reinit!r} re-initialises whole layers, but "
            f"train={phase.train!r} trains only a part of them"
        )
    if phase.train_bn_while_frozen and phase.train.kind == "all":
        raise ValueError(f"{at}: train_bn_while_frozen has no effect with train='all'")
    _check_optimiser(at, phase)
    for number, (_, _, multiplier, *own) in enumerate(phase.groups):
        if own and not multiplier:
            raise ValueError(
                f"{at}: groups[{number}]: {own[0]!r} has no effect, because multiplier 0 freezes"
            )
        if own:
            _check_group(f"{at}: groups[{number}]", phase, *own)
    _check_average(at, phase)
    if phase.cache_features:
        _check_cache(at, settings, phase)
    epochs_without = phase.schedule == "plateau" and schedules.options(phase)["patience"]
    if epochs_without is not False and 0 < phase.patience <= epochs_without:
        raise ValueError(
            f"{at}: patience={phase.patience} stops the phase before schedule='plateau' lowers "
            f"the rate, which needs more than {epochs_without} epochs (schedule_options.patience)"
        )
    if settings.final and phase.schedule == "plateau":
        raise ValueError(
            f"{at}: schedule='plateau' needs validation, but config.final=True trains on the "
            "validation images"
        )


def _check_method(settings: config.Settings) -> None:
    name, entry = settings.method, methods.METHODS[settings.method]
    if entry.heads and settings.model.head not in entry.heads:
        raise ValueError(
            f"config.method={name!r} needs config.model.head={' or '.join(map(repr, entry.heads))}"
            f", not {settings.model.head!r}"
        )
    head = settings.model.head
    only = [name for name, each in methods.METHODS.items() if each.alone and head in each.heads]
    if only and name not in only:
        raise ValueError(
            f"config.model.head={head!r} needs config.method={' or '.join(map(repr, only))}, "
            f"not {name!r}, which would leave a part of the head untrained"
        )
    if entry.balanced:
        _check_balanced(name, settings.data.sampling, settings.phases)
    mixing = [op for op, _ in augment.checked(settings.data.augment) if op in augment.MIXING]
    if mixing and not entry.mixed:
        raise ValueError(
            f"config.method={name!r} needs images with one label: remove {mixing[0]!r} from "
            "config.data.augment"
        )


def _check_balanced(name: str, spec: config.Sampling, phases) -> None:
    """Checks that each batch, and each accumulated part of it, has several images of a class."""
    if spec.images < 2:
        raise ValueError(
            f"config.method={name!r} compares images of one class: config.data.sampling must be "
            f"'N classes x M' with M above 1, not {spec!r}"
        )
    for index, phase in enumerate(phases):
        if spec.images < 2 * phase.accumulate:
            raise ValueError(
                f"config.phases[{index}] ({phase.name}): config.method={name!r} compares images "
                f"of one class, but with accumulate={phase.accumulate} and config.data.sampling="
                f"{spec!r} each part of a batch would have fewer than two"
            )


def _check_lora(model: config.ModelSettings, trained: set[str]) -> None:
    if not model.lora_rank:
        for name in ("lora_alpha", "lora_targets"):
            if getattr(model, name):
                raise ValueError(
                    f"config.model.{name} has no effect without config.model.lora_rank"
                )
        if "lora" in trained:
            raise ValueError("train='lora' needs config.model.lora_rank, for example 8")
    elif trained <= {"head", "bias"}:
        raise ValueError(
            f"config.model.lora_rank={model.lora_rank} has no effect: no phase has train='lora'"
        )


def _check_average(at: str, phase: config.Phase) -> None:
    """Checks averaged weights, and that each batch can be split into the accumulated parts."""
    if phase.monitor.source == "val_average" and not phase.average:
        raise ValueError(f"{at}: monitor={phase.monitor!r} needs an average")
    if phase.average.kind == "swa":
        if phase.average.epochs > phase.epochs:
            raise ValueError(
                f"{at}: average={phase.average!r} needs more epochs than epochs={phase.epochs}"
            )
        if phase.patience:
            raise ValueError(
                f"{at}: average={phase.average!r} averages the last epochs, which early stopping "
                "(patience) would skip"
            )
    if phase.batch_size % phase.accumulate:
        raise ValueError(
            f"{at}: batch_size={phase.batch_size} cannot be split into accumulate="
            f"{phase.accumulate} equal parts"
        )


def _check_optimiser(at: str, phase: config.Phase) -> None:
    schedules.build(phase, schedules.UNCOUNTED)
    if phase.lr_thirds and phase.layer_decay != 1:
        raise ValueError(f"{at}: lr_thirds and layer_decay both set the rates of layers: use one")
    for key, why in _without_effect(phase):
        raise ValueError(f"{at}: {key} has no effect {why}")


def _without_effect(phase: config.Phase) -> Iterator[tuple[str, str]]:
    """(key, reason) for each key of the optimiser that has a value but no effect."""
    if phase.nesterov and phase.optimizer != "sgd":
        yield "nesterov", f"with optimizer={phase.optimizer!r}"
    elif phase.nesterov and not phase.momentum:
        yield "nesterov", "without momentum"
    if phase.beta2 != 0.999 and phase.optimizer == "sgd":
        yield "beta2", "with optimizer='sgd'"
    spared = phase.weight_decay or phase.optimizer == "lamb"  # lamb scales only what decays
    if not phase.decay_norm_and_bias and not spared:
        yield "decay_norm_and_bias", "without weight_decay"


def _check_group(at: str, phase: config.Phase, own: dict) -> None:
    changed = config.with_changes(phase, own, f"{at}: ")
    for key, why in _without_effect(changed):
        if key in own:  # what the group has from its phase may be without effect
            raise ValueError(f"{at}: {key} has no effect {why}")
    if "momentum" in own and schedules.build(changed, schedules.UNCOUNTED).momentum:
        raise ValueError(f"{at}: momentum has no effect with schedule={phase.schedule!r}")
    if not own:
        raise ValueError(f"{at}: {{}} has no effect: leave it out")
    for name, value in own.items():
        if getattr(phase, name) == value:
            raise ValueError(f"{at}: {name}={value!r} has no effect: the phase has the same value")


def _check_cache(at: str, settings: config.Settings, phase: config.Phase) -> None:
    """Checks that the embedding of an image never changes."""
    model, data, options = settings.model, settings.data, settings.method_options
    reasons = {
        f"train={phase.train!r}: the backbone changes": phase.train.kind != "head",
        "train_bn_while_frozen: the backbone changes": phase.train_bn_while_frozen,
        "data.augment: the images change": bool(data.augment),
        "data.random_crop: the images change": data.random_crop,
        "model.drop_path: the backbone draws random numbers": model.drop_path > 0,
        f"model.head={model.head!r} reads whole maps, not a pooled vector": model.head != "gap",
        f"method={settings.method!r} needs images": settings.method != "plain",
        "method_options.teacher needs images": bool(options.get("teacher")),
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise ValueError(f"{at}: cache_features is not possible with {'; '.join(found)}")
