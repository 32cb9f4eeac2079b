"""What the values of a config may be: of each key by itself, then between keys."""

import re

from fgc_jax import methods, models
from fgc_jax.data import augment, dataset, images, sampling
from fgc_jax.evaluation import views
from fgc_jax.training import schedules

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
    "phases[].monitor": lambda: (
        "val_loss",
        "val_top1",
        "val_average_loss",
        "val_average_top1",
    ),
}
LAYER_SPEC = r"last [1-9]\d*|from \S+|all"
PATTERNS = {
    "data.sampling": sampling.SPECS,
    "phases[].train": f"head|bias|lora|{LAYER_SPEC}",
    "phases[].reinit": f"|{LAYER_SPEC}",
    "phases[].average": r"|ema 0\.\d*[1-9]\d*|swa ([2-9]|[1-9]\d+)",
}
SPECS = {
    "data.sampling": sampling.SPECS_IN_WORDS,
    "phases[].train": "'head', 'last N', 'from LAYER', 'all', 'bias', 'lora'",
    "phases[].reinit": "'', 'last N', 'from LAYER', 'all'",
    "phases[].average": "'', 'ema DECAY' (as 'ema 0.999'), 'swa N' (the last N > 1 epochs)",
}
MINIMA = {
    "phases[].epochs": 1,
    "phases[].batch_size": 1,
    "phases[].resize": 1,
    "phases[].crop": 1,
    "phases[].lr": 0,
    "phases[].layer_decay": 1e-3,
    "model.drop_path": 0,
    "model.lora_rank": 0,
    "model.lora_alpha": 0,
    "phases[].momentum": 0,
    "phases[].beta2": 0,
    "phases[].weight_decay": 0,
    "phases[].patience": 0,
    "phases[].lr_batch": 0,
    "phases[].head_lr": 1e-6,
    "phases[].clip_norm": 0,
    "phases[].accumulate": 1,
    "phases[].sam_rho": 0,
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
    "phases[].sam_rho": 3e38,
    "phases[].clip_norm": 3e38,
    "phases[].momentum": 0.9999,
    "phases[].beta2": 0.99999,
    "phases[].lr": 3e38,
    "phases[].layer_decay": 1,
    "model.drop_path": 0.999,
    "data.val_fraction": 0.9,
    "seed": 2**32 - 1,  # what a JAX key and a grain shuffle tell apart
    "data.split_seed": 2**32 - 1,
}


def check(settings) -> None:
    """Rules between the keys of a `config.Settings`. A value without effect is an error, too.

    Raises:
        ValueError: naming the keys.
    """
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
    _check_method(settings)
    views.parse(settings.views)
    if settings.search and not settings.final:
        raise ValueError("config.search has no effect without config.final=True")
    _check_lora(settings.model, {phase.train for phase in settings.phases})
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
        if phase.reinit and phase.train in ("bias", "lora"):
            raise ValueError(
                f"{at}: reinit={phase.reinit!r} draws whole layers anew, of which "
                f"train={phase.train!r} trains a part"
            )
        if phase.train_bn_while_frozen and phase.train == "all":
            raise ValueError(f"{at}: train_bn_while_frozen has no effect where train='all'")
        _check_optimiser(at, phase)
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


def _check_method(settings) -> None:
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


def _check_balanced(name, spec, phases) -> None:
    """That each batch holds several images of a class, and each part of it does, too."""
    images = spec.partition(" x ")[2]
    if not images or int(images) < 2:
        raise ValueError(
            f"config.method={name!r} compares images of one class: config.data.sampling must be "
            f"'N classes x M' with M above 1, not {spec!r}"
        )
    for index, phase in enumerate(phases):
        if int(images) < 2 * phase.accumulate:
            raise ValueError(
                f"config.phases[{index}] ({phase.name}): config.method={name!r} compares images "
                f"of one class, of which the parts of accumulate={phase.accumulate} would hold "
                f"fewer than two with config.data.sampling={spec!r}"
            )


def _check_lora(model, trained: set[str]) -> None:
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


def _check_average(at: str, phase) -> None:
    """Averaged weights, and that each batch can be cut into the parts to accumulate."""
    if phase.monitor.startswith("val_average") and not phase.average:
        raise ValueError(f"{at}: monitor={phase.monitor!r} needs an average")
    if phase.average.startswith("swa"):
        if int(phase.average.split()[1]) > phase.epochs:
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


def _check_optimiser(at: str, phase) -> None:
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
    if phase.beta2 != 0.999 and phase.optimizer == "sgd":
        raise ValueError(f"{at}: beta2 has no effect with optimizer='sgd'")
    if phase.nesterov and not phase.momentum:
        raise ValueError(f"{at}: nesterov has no effect without momentum")
    spared = phase.weight_decay or phase.optimizer == "lamb"  # which adapts only what decays
    if not phase.decay_norm_and_bias and not spared:
        raise ValueError(f"{at}: decay_norm_and_bias has no effect without weight_decay")


def _check_cache(at: str, settings, phase) -> None:
    """That the head sees the same embedding of an image each time."""
    model, data, options = settings.model, settings.data, settings.method_options
    reasons = {
        f"train={phase.train!r}: the backbone changes": phase.train != "head",
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
