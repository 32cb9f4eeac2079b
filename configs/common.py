"""Every key of a run with its default value. A recipe starts from here and changes what it means.

`fgc_jax/config/settings.py` says what each key is and which values are allowed; the defaults of a
network stand there, and those of a method at its function.
"""

from collections.abc import Collection

from ml_collections import ConfigDict

from fgc_jax import methods, models
from fgc_jax.config import ModelSettings, defaults

# What `make_tiny` takes instead of a network whose name begins like this.
SMALL = {
    "resn": "resnet18",
    "vgg": "vgg11",
    "tf_efficientnet_b": "tf_efficientnet_b0",
    "vit_small_patch14": "vit_small_patch14_dinov2",
    "vit_base_patch14": "vit_small_patch14_dinov2",
    "vit_": "vit_tiny_patch16_224",
    "swin_": "swin_tiny_patch4_window7_224",
    "convnext": "convnextv2_atto",
}


def get_config() -> ConfigDict:
    """A config with all keys but `phases`' contents, which every recipe states itself."""
    config = ConfigDict()
    config.seed = 0
    config.model = ConfigDict(
        {
            "backbone": "resnet50",
            "head": "gap",
            **defaults(ModelSettings),
        }
    )
    config.data = ConfigDict(
        {
            "name": "folder",
            "root": "",
            "options": ConfigDict({}),
            "val_fraction": 0.2,
            "split_seed": 42,
            "resize_mode": "squash",
            "interpolation": "bilinear",
            "random_crop": True,
            "sampling": "shuffle",
            "augment": (("flip", {}),),
            "mean": (),
            "std": (),
            "box_crop": (),
            "box_margin": 0.0,
            "box_square": False,
            "on_bad_image": "raise",
            "threads": 4,
            "workers": 0,
        }
    )
    config.method = "plain"
    config.method_options = ConfigDict(defaults(methods.METHODS["plain"].make))
    config.phases = ()
    config.final = False
    config.search = ""
    config.views = "raw"
    config.eval_batch_size = 64
    config.checkpoint_every = 500
    config.log_every = 10
    config.wandb = ""
    return config


def phase(name: str, **changes) -> ConfigDict:
    """One phase with every key; `changes` to keys that do not exist raise."""
    values = ConfigDict(
        {
            "name": name,
            "train": "all",
            "reinit": "",
            "start_from": "best",
            "groups": ((".*", "all", 1.0),),
            "train_bn_while_frozen": False,
            "epochs": 10,
            "batch_size": 32,
            "resize": 512,
            "crop": 448,
            "cache_features": False,
            "optimizer": "sgd",
            "lr": 0.01,
            "lr_batch": 0,
            "lr_thirds": (),
            "layer_decay": 1.0,
            "head_lr": 1.0,
            "momentum": 0.9,
            "beta2": 0.999,
            "nesterov": False,
            "weight_decay": 0.0,
            "decay_norm_and_bias": True,
            "schedule": "constant",
            "schedule_options": ConfigDict({}),
            "warmup": "",
            "clip_norm": 0.0,
            "accumulate": 1,
            "sam_rho": 0.0,
            "average": "",
            "monitor": "val_loss",
            "patience": 0,
        }
    )
    values.lock()
    values.schedule_options.unlock()
    values.update(changes)
    return values


def growing(name: str, crops: tuple[int, ...], *, batch_size: int, **changes) -> tuple:
    """Phases that train on larger and larger images: `name_224`, `name_299`, ...

    `batch_size` is that of the first; the others shrink as the images grow, so that each phase
    takes about the same memory, and are multiples of 8 where the first is. Images are resized to
    8/7 of the crop, or to `resize` times it. `changes` are those of `phase`; give `lr_batch` for
    learning rates that follow the batch.
    """
    ratio, phases = changes.pop("resize", 8 / 7), []
    for crop in crops:
        batch = int(batch_size * (crops[0] / crop) ** 2)
        if batch_size % 8 == 0:
            batch = max(batch // 8, 1) * 8
        sizes = {"crop": crop, "resize": round(crop * ratio), "batch_size": max(batch, 1)}
        phases.append(phase(f"{name}_{crop}", **sizes, **changes))
    return tuple(phases)


def gradual(name: str, rates: dict[str, float], **changes) -> tuple:
    """Phases that un-freeze a network from its head (arXiv:1801.06146): `name_1`, `name_2`, ...

    `rates` holds what trains and at which learning rate, as {"head": 1e-2, "last 3": 3e-3,
    "all": 1e-3}. Of `changes` to `phase`, those that have no effect on a part are left out there:
    rates by layer where the head trains alone, batch norms of frozen layers where none is frozen.
    """
    phases = []
    for number, (train, lr) in enumerate(rates.items(), start=1):
        own = {**changes, "train": train, "lr": lr}
        if train == "all":
            own["train_bn_while_frozen"] = False
        elif train == "head" and not own.get("train_bn_while_frozen"):
            own.update(lr_thirds=(), layer_decay=1.0)
        phases.append(phase(f"{name}_{number}", **own))
    return tuple(phases)


def variants(argument: str, allowed: tuple[str, ...]) -> set[str]:
    """The words after the colon in `--config=FILE.py:word,word`."""
    words = {word for word in argument.split(",") if word}
    if not words <= set(allowed):
        raise ValueError(
            f"unknown variant {sorted(words - set(allowed))}; this recipe has {allowed}"
        )
    return words


def one_of(words: set[str], choices: Collection[str], default: str) -> str:
    """The word among `choices` that the variant names, or `default`; at most one may be there."""
    chosen = sorted(words & set(choices))
    if len(chosen) > 1:
        raise ValueError(f"the variants {' and '.join(chosen)} exclude each other")
    return chosen[0] if chosen else default


def aircraft(config: ConfigDict, words: Collection[str] = ()) -> None:
    """FGVC-Aircraft as project A trained on it: official train + val merged, 80/20 split with seed
    42, resized to 512 x 512 and cropped to the centre 448 x 448; with the word `boxes`, pictures of
    all splits cut to their published boxes before."""
    config.data.name = "aircraft"
    config.data.options = ConfigDict(
        {
            "level": "variant",
            "train_split": "trainval",
        }
    )
    config.data.random_crop = False
    if "boxes" in words:
        config.data.box_crop = ("train", "val", "test")


def attention(config: ConfigDict, method: str, *, maps: int = 32) -> None:
    """The method "wsdan" or "cal" and its head, with the numbers of CAL's published code."""
    head_options = {**defaults(models.HEADS["attention_pooling"]), "maps": maps}
    config.model.update(head="attention_pooling", head_options=ConfigDict(head_options))
    config.method = method
    config.method_options = ConfigDict(defaults(methods.METHODS[method].make))
    if method == "wsdan":
        del config.method_options.effect_weight  # it has none


def make_tiny(config: ConfigDict) -> None:
    """Shrinks a recipe to seconds: a small network of the family where the recipe's is large,
    random weights, small images, one epoch a phase."""
    model = config.model
    for backbone in ("backbone", "backbone_b"):
        for prefix, small in SMALL.items():
            if model[backbone].startswith(prefix):
                model[backbone] = small
                model.weights_tag = ""
                break
    model.update(pretrained="", pretrained_b="")
    # Patches of 14 pixels fit 56, those of 16 and 32 fit 64; Inception takes no less than 75.
    crop = {"vit_small_patch14_dinov2": 56, "inception_v3": 80}.get(model.backbone, 64)
    sizes = {"crop": crop, "resize": crop + 8}
    for each in config.phases:
        each.update(epochs=1, batch_size=8, accumulate=1, **sizes)
        each.warmup = each.warmup and "1 epochs"
    config.eval_batch_size = 8
