"""What the values of a config may be beyond their types: names that tables hold, and rules between
keys."""

import ml_collections

from fgc_jax import config, console, methods, models
from fgc_jax.data import augment
from fgc_jax.evaluation import views
from fgc_jax.training import schedules


def parse(recipe: ml_collections.ConfigDict) -> config.Settings:
    """The settings of a recipe or of a stored config, with every check that needs no data.

    Raises:
        ValueError: naming the key and what it may be.
    """
    settings = config.parse(recipe)
    check(settings)
    return settings


def check(settings: config.Settings) -> None:
    """Names against their tables, and keys against each other. A value without effect is an error,
    too.

    Raises:
        ValueError: naming the keys.
    """
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
    _check_method(settings)
    views.parse(settings.views)
    if settings.search and not settings.final:
        raise ValueError("config.search has no effect without config.final=True")
    _check_lora(model, {phase.train.kind for phase in settings.phases})
    names = [phase.name for phase in settings.phases]
    if len(set(names)) < len(names):
        raise ValueError(f"the names of phases must differ: {names}")
    for index, phase in enumerate(settings.phases):
        _check_name(f"phases[{index}].schedule", phase.schedule, schedules.SCHEDULES)
        _check_phase(f"config.phases[{index}] ({phase.name})", settings, phase, first=index == 0)


def _check_name(key: str, name: str, table) -> None:
    if name not in table:
        raise ValueError(f"config.{key}={name!r} is unknown; {console.choices(name, table)}")


def _check_phase(at: str, settings: config.Settings, phase: config.Phase, *, first: bool) -> None:
    """The keys of one phase against each other."""
    if phase.crop > phase.resize:
        raise ValueError(f"{at}: crop={phase.crop} is larger than resize={phase.resize}")
    if first and phase.reinit:
        raise ValueError(
            f"{at}: reinit={phase.reinit!r} belongs to a later phase; for random "
            "weights from the start set config.model.pretrained=''"
        )
    if phase.reinit and phase.train.kind in ("bias", "lora"):
        raise ValueError(
            f"{at}: reinit={phase.reinit!r} draws whole layers anew, of which "
            f"train={phase.train!r} trains a part"
        )
    if phase.train_bn_while_frozen and phase.train.kind == "all":
        raise ValueError(f"{at}: train_bn_while_frozen has no effect where train='all'")
    _check_optimiser(at, phase)
    for number, (_, _, _, *own) in enumerate(phase.groups):
        if own:
            _check_group(f"{at}: groups[{number}]", phase, *own)
    _check_average(at, phase)
    if phase.cache_features:
        _check_cache(at, settings, phase)
    epochs_without = phase.schedule == "plateau" and schedules.options(phase)["patience"]
    if epochs_without is not False and 0 < phase.patience <= epochs_without:
        raise ValueError(
            f"{at}: patience={phase.patience} stops the phase before schedule='plateau' lowers "
            f"the rate, after more than {epochs_without} epochs (schedule_options.patience)"
        )
    if settings.final and phase.schedule == "plateau":
        raise ValueError(
            f"{at}: schedule='plateau' follows the validation images, which train too where "
            "config.final=True"
        )


def _check_method(settings: config.Settings) -> None:
    """What the method needs of the model and of the data."""
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
            f"config.model.head={head!r} learns as a whole with config.method="
            f"{' or '.join(map(repr, only))} alone, not {name!r}"
        )
    if entry.balanced:
        _check_balanced(name, settings.data.sampling, settings.phases)
    mixing = [op for op, _ in augment.checked(settings.data.augment) if op in augment.MIXING]
    if mixing and not entry.mixed:
        raise ValueError(
            f"config.method={name!r} needs images of one label each: leave {mixing[0]!r} out of "
            "config.data.augment"
        )


def _check_balanced(name: str, spec: config.Sampling, phases) -> None:
    """That each batch holds several images of a class, and each part of it does, too."""
    if spec.images < 2:
        raise ValueError(
            f"config.method={name!r} compares images of one class: config.data.sampling must be "
            f"'N classes x M' with M above 1, not {spec!r}"
        )
    for index, phase in enumerate(phases):
        if spec.images < 2 * phase.accumulate:
            raise ValueError(
                f"config.phases[{index}] ({phase.name}): config.method={name!r} compares images "
                f"of one class, of which the parts of accumulate={phase.accumulate} would hold "
                f"fewer than two with config.data.sampling={spec!r}"
            )


def _check_lora(model: config.ModelSettings, trained: set[str]) -> None:
    """The keys of LoRA against each other and what the phases train."""
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
            f"config.model.lora_rank={model.lora_rank} has no effect: no phase trains 'lora'"
        )


def _check_average(at: str, phase: config.Phase) -> None:
    """Averaged weights, and that each batch can be cut into the parts to accumulate."""
    if phase.monitor.source == "val_average" and not phase.average:
        raise ValueError(f"{at}: monitor={phase.monitor!r} needs an average")
    if phase.average.kind == "swa":
        if phase.average.epochs > phase.epochs:
            raise ValueError(
                f"{at}: average={phase.average!r} is of more epochs than epochs={phase.epochs}"
            )
        if phase.patience:
            raise ValueError(
                f"{at}: average={phase.average!r} is of the last epochs, which early stopping "
                "(patience) would leave out"
            )
    if phase.batch_size % phase.accumulate:
        raise ValueError(
            f"{at}: batch_size={phase.batch_size} cannot be cut into accumulate="
            f"{phase.accumulate} equal parts"
        )


def _check_optimiser(at: str, phase: config.Phase) -> None:
    """Learning rate and optimiser of one phase, as far as they do not depend on model and data."""
    schedules.build(phase, steps_per_epoch=10**9)  # so that any number of steps is possible yet
    if phase.lr_thirds and phase.layer_decay != 1:
        raise ValueError(f"{at}: lr_thirds and layer_decay both say how fast layers learn")
    if phase.nesterov and phase.optimizer != "sgd":
        raise ValueError(f"{at}: nesterov has no effect with optimizer={phase.optimizer!r}")
    if phase.beta2 != 0.999 and phase.optimizer == "sgd":
        raise ValueError(f"{at}: beta2 has no effect with optimizer='sgd'")
    if phase.nesterov and not phase.momentum:
        raise ValueError(f"{at}: nesterov has no effect without momentum")
    spared = phase.weight_decay or phase.optimizer == "lamb"  # which adapts only what decays
    if not phase.decay_norm_and_bias and not spared:
        raise ValueError(f"{at}: decay_norm_and_bias has no effect without weight_decay")


def _check_group(at: str, phase: config.Phase, own: dict) -> None:
    """What a group has otherwise than its phase."""
    changed = config.with_changes(phase, own, f"{at}: ")
    schedules.build(changed, steps_per_epoch=10**9)
    if not own:
        raise ValueError(f"{at}: {{}} has no effect: leave it out")
    useless = {"nesterov": changed.optimizer != "sgd", "beta2": changed.optimizer == "sgd"}
    for name, value in own.items():
        if getattr(phase, name) == value:
            raise ValueError(f"{at}: {name}={value!r} has no effect: the phase has it so")
        if useless.get(name):
            raise ValueError(f"{at}: {name} has no effect with optimizer={changed.optimizer!r}")


def _check_cache(at: str, settings: config.Settings, phase: config.Phase) -> None:
    """That the head sees the same embedding of an image each time."""
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
