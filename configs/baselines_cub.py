"""Strong plain baselines on CUB-200-2011, for comparison with the methods for similar classes.

    python -m fgc_jax.main --config=configs/baselines_cub.py --workdir=runs/cub_swin \\
        --config.data.root=DIR      # DIR contains CUB_200_2011

Variants:

`swin_large` (the default): Swin-L (arXiv:2103.14030), ImageNet-21k, 384 px, AdamW 5e-6. Expected
test top-1 91.87 % (mmpretrain's swin-large_8xb8_cub-384px, with the same recipe; trained on all of
train, best epoch on test).

`resnet50`: ResNet-50 with the ImageNet-21k weights of "ImageNet-21K pretraining for the masses"
(arXiv:2104.10972), 448 px, SGD with Nesterov momentum 0.01. Expected 88.45 % (mmpretrain's
resnet50_8xb8_cub, with the same recipe; also the best epoch on test). timm's repositories on the
hub do not have these weights: download resnet50_miil_21k.pth from Alibaba-MIIL/ImageNet21K and set
--config.model.pretrained=FILE.

`bit`: the same with BiT's ResNet-50 (arXiv:1912.11370), whose ImageNet-21k weights are on the hub.
No published accuracy.

`convnext_base`: ConvNeXt-B (arXiv:2201.03545), ImageNet-22k, 224 px, AdamW with layer-wise decay,
nearly as in its paper. Plain SGD reaches 84.5 %, a linear classifier on the frozen features 87.9 %
(both FGIR-Backbones); this recipe should be better than both. No published accuracy with this
recipe.

`dinov2`: a linear classifier on frozen DINOv2 features (arXiv:2304.07193), ViT-B/14 at 224 px,
without augmentation: features are computed once and stored. Expected 89.6 % (linear probe, recalled
from the paper, not checked); frozen Swin-B of ImageNet-21k reaches 90.9 % (FGIR-Backbones).

`tiny`: seconds, a small network of the family with random weights.

None of these is reproduced here yet. `--config.final=True` trains on all of train. Batches of 64
are computed in parts of 8 to fit on one device; on eight devices use
`--config.phases[0].accumulate=1` for the same result. Memory: 16 GB for Swin-L
(scripts/estimate_memory.py on a CPU: an estimate for GPUs). Time: not measured; the test suite runs
the variant `tiny`.
"""

from configs import common

NETWORKS = {
    "swin_large": ("swin_large_patch4_window12_384", "ms_in22k"),
    "resnet50": ("resnet50", "tv_in1k"),
    "bit": ("resnetv2_50x1_bit", "goog_in21k"),
    "convnext_base": ("convnext_base", "fb_in22k"),
    "dinov2": ("vit_base_patch14_dinov2", "lvd142m"),
}
LONG = dict(
    epochs=100,
    batch_size=64,
    accumulate=8,
    schedule="cosine",
    warmup="5 %",
    weight_decay=5e-4,
    monitor="val_top1",
)


def get_config(variant: str = ""):
    words = common.variants(variant, (*NETWORKS, "tiny"))
    chosen = common.one_of(words, NETWORKS, "swin_large")
    backbone, tag = NETWORKS[chosen]
    config = common.get_config()
    config.data.name = "cub"
    common.network(config, backbone, tag)
    if chosen == "swin_large":
        config.model.drop_path = 0.2
        config.data.interpolation = "bicubic"
        phase = dict(
            LONG,
            resize=510,
            crop=384,
            optimizer="adamw",
            lr=5e-6,
            decay_norm_and_bias=False,
            clip_norm=5.0,
        )
    elif chosen in ("resnet50", "bit"):
        if chosen == "resnet50":
            config.model.pretrained = "resnet50_miil_21k.pth"
        phase = dict(LONG, resize=600, crop=448, optimizer="sgd", lr=0.01, nesterov=True)
    elif chosen == "convnext_base":
        config.model.drop_path = 0.2
        config.data.interpolation = "bicubic"
        config.data.augment = (("flip", {}), ("rand_augment", {}), ("erase", {}))
        config.method_options.label_smoothing = 0.1
        phase = dict(
            LONG,
            epochs=30,
            resize=256,
            crop=224,
            optimizer="adamw",
            lr=5e-5,
            # The paper's 0.8 is for each of 12 groups of three blocks; here every block is a layer.
            layer_decay=0.8 ** (1 / 3),
            weight_decay=1e-8,
            warmup="10 %",
            average="ema 0.999",
            monitor="val_average_top1",
        )
    else:
        config.data.update(
            resize_mode="short_side", interpolation="bicubic", random_crop=False, augment=()
        )
        phase = dict(
            train="head",
            cache_features=True,
            epochs=30,
            batch_size=64,
            resize=256,
            crop=224,
            optimizer="adamw",
            lr=1e-3,
            schedule="cosine",
            monitor="val_top1",
        )
    config.phases = (common.phase("head" if chosen == "dinov2" else "all", **phase),)
    if "tiny" in words:
        common.make_tiny(config)
    return config
