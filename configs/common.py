"""Every key of a config with its default value. A recipe starts from these values and changes some.

`fgc_jax/config/settings.py` documents each key and its allowed values. The defaults of a network
stand there, and those of a method at its function.
"""

from collections.abc import Collection

from ml_collections import ConfigDict

from fgc_jax import methods, models
from fgc_jax.config import ModelSettings, defaults

# The network that `make_tiny` uses instead of one whose name begins with the key.
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
    """A config with all keys and without phases, which every recipe adds."""
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
    """One phase with every key. `changes` with an unknown key raise an error."""
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

    `batch_size` is that of the first phase. The others are smaller for larger images, so that each
    phase needs about the same memory; they are multiples of 8 if the first is. Images are resized
    to 8/7 of the crop, or to `resize` times the crop. `changes` are those of `phase`; give
    `lr_batch` for learning rates that are proportional to the batch size.
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

    `rates` maps what trains to its learning rate, such as {"head": 1e-2, "last 3": 3e-3,
    "all": 1e-3}. `changes` are those of `phase`. A phase leaves out those without an effect: rates
    by layer if only the head trains, batch norms of frozen layers if no layer is frozen.
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
    """The only word of the variant that is in `choices`, or `default`; ValueError for several."""
    chosen = sorted(words & set(choices))
    if len(chosen) > 1:
        raise ValueError(f"the variants {' and '.join(chosen)} exclude each other")
    return chosen[0] if chosen else default


def network(config: ConfigDict, backbone: str, tag: str, *, second: str = "") -> None:
    """A network with the weights `tag` of timm's page on the Hugging Face hub, and `second` for a
    second stream."""
    weights = {name: f"hub:timm/{name}.{tag}" for name in (backbone, second) if name}
    config.model.update(
        backbone=backbone,
        pretrained=weights[backbone],
        weights_tag=tag,
        backbone_b=second,
        pretrained_b=weights.get(second, ""),
    )


def aircraft(config: ConfigDict, words: Collection[str] = ()) -> None:
    """FGVC-Aircraft as in the course project of `bcnn_aircraft.py`: official train + val merged,
    80/20 split with seed 42, resized to 512 x 512, centre crop of 448 x 448. With the word `boxes`
    the pictures of all splits are first cropped to their published boxes."""
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
    """Sets the method "wsdan" or "cal" and its head, with the numbers of CAL's published code."""
    head_options = {**defaults(models.HEADS["attention_pooling"]), "maps": maps}
    config.model.update(head="attention_pooling", head_options=ConfigDict(head_options))
    config.method = method
    config.method_options = ConfigDict(defaults(methods.METHODS[method].make))
    if method == "wsdan":
        del config.method_options.effect_weight  # it has none


def make_tiny(config: ConfigDict) -> None:
    """Changes a recipe so that it runs in seconds: a small network of the family instead of a large
    one, random weights, small images, one epoch per phase."""
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
