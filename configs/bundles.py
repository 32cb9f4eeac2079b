"""Named bundles of the image sizes and augmentations of published recipes.

Call `apply(config, "cal")` after the phases are set; in `finetune_folder.py` the names of bundles
are variants. Augmentation is for training only: validation and test use the centre crop.
"""

from ml_collections import ConfigDict

BUNDLES = {
    # fastai 1.0.52's get_transforms(), with which the Stanford Cars project trained its ResNeXt-50.
    # It jitters brightness and contrast in the space of logits, as "lighting" does.
    "fastai": dict(
        resize=224,
        crop=224,
        resize_mode="short_side",
        random_crop=True,
        augment=(
            ("flip", {}),
            ("symmetric_warp", {"magnitude": 0.2, "p": 0.75}),
            ("rotate", {"degrees": 10.0, "p": 0.75}),
            ("zoom", {"scale": (1.0, 1.1), "p": 0.75}),
            ("lighting", {"brightness": 0.2, "contrast": 0.2, "p": 0.75}),
        ),
    ),
    # Counterfactual Attention Learning (arXiv:2108.08728): 448 from 512.
    "cal": dict(
        resize=512,
        crop=448,
        resize_mode="squash",
        random_crop=True,
        augment=(
            ("flip", {}),
            ("colour_jitter", {"brightness": 0.126, "saturation": 0.5}),
        ),
    ),
    # The NYCU bird homework project (CAL + WS-DAN on CUB-200-2010), its normalisation included.
    "wsdan_homework": dict(
        resize=324,
        crop=300,
        resize_mode="squash",
        random_crop=False,
        augment=(
            ("rotate", {"degrees": 20.0, "padding": "zeros"}),
            ("flip", {}),
            ("crop", {}),
        ),
        mean=(0.48194, 0.49756, 0.43214),
        std=(0.13271, 0.12794, 0.17289),
    ),
    # The bilinear CNN project on FGVC-Aircraft: the centre 448 of 512.
    "aircraft_448": dict(
        resize=512, crop=448, resize_mode="squash", random_crop=False, augment=(("flip", {}),)
    ),
    # The seven-step course project: the whole picture in 512, black borders.
    "letterbox_512": dict(
        resize=512,
        crop=512,
        resize_mode="letterbox",
        random_crop=False,
        augment=(("greyscale", {"p": 0.1}),),
    ),
}


def apply(config: ConfigDict, name: str) -> None:
    """Sets the keys of `config.data` that a bundle is about, and the sizes of all phases."""
    keys = {"mean": (), "std": (), **BUNDLES[name]}
    sizes = {size: keys.pop(size) for size in ("resize", "crop")}
    config.data.update(keys)
    for phase in config.phases:
        phase.update(sizes)
