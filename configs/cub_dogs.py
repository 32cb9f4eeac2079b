"""ResNet-50 and four vision transformers on CUB-200-2011 or Stanford Dogs.

With usual settings, or with the settings of a published project (`published`).

The baselines of the course project "Fine-grained-Classification" in seven steps (yangtx7). In this
project the accuracy of the transformers collapsed: the best epoch was the first or second, then
accuracy fell to a few percent, which the project explained as overfitting. It trained every weight
with AdamW at 1e-3, a hundred times a usual learning rate for a pretrained transformer, so the
pretrained features are lost while the learning rate rises. It also normalised images with
ImageNet's mean and std, but the weights expect 0.5. `scripts/show_vit_collapse.py` reproduces the
collapse on a small task (docs/recipes.md): the learning rate causes it.

    python -m fgc_jax.main --config=configs/cub_dogs.py:vit_base_patch16_224 --workdir=runs/cub \\
        --config.data.root=DIR      # DIR contains CUB_200_2011; or Images, Annotation and two lists

Variants: `dogs` instead of CUB; a network, `resnet50` (the default), `vit_small_patch16_224`,
`vit_base_patch32_224`, `vit_base_patch16_224` or `vit_large_patch16_224`; `published`: the
project's recipe; `tiny`: seconds, a small network of the family with random weights.

Expected top-1 on the test split. `published` (the project's event files; best and last of 25
epochs; it used the test split for validation, so the best is optimistic):

    network                  CUB              Dogs
    resnet50                 70.8 / 70.4 %    86.8 / 86.5 %
    vit_small_patch16_224    50.7 / 50.3 %    49.8 / 36.7 %
    vit_base_patch32_224     45.2 / 26.2 %    39.0 / 11.7 %
    vit_base_patch16_224     47.2 / 23.5 %    62.5 / 12.7 %
    vit_large_patch16_224    68.0 / 39.6 %    63.2 /  1.6 %

Default: vit_base_patch16_224 90.1 % on CUB and 91.4 % on Dogs (table of arkel23/GLSim, the source
of its recipe); resnet50 84-86 % on CUB (FGVCLib's baseline, learning rates as here). The others
have no published accuracy with these recipes. The images of Dogs are ImageNet training images, so
its test accuracy is too optimistic for networks pretrained on ImageNet. None of these is reproduced
here yet.

Differences from the published code: the classifier has one output for each class, not 1000;
images are converted to grey in training only; validation is drawn from train and selects the epoch.
Memory: 6 GB for resnet50, 2 GB for vit_base_patch16_224 (scripts/estimate_memory.py on a CPU: an
estimate for GPUs). Time: not measured; the test suite runs the variant `tiny`.
"""

from configs import bundles, common, glsim_cub

VITS = (
    "vit_small_patch16_224",
    "vit_base_patch32_224",
    "vit_base_patch16_224",
    "vit_large_patch16_224",
)
# timm's default weights in 2023, which the project used.
PUBLISHED_TAGS = {"vit_base_patch16_224": "augreg2_in21k_ft_in1k"}


def get_config(variant: str = ""):
    words = common.variants(variant, ("dogs", "resnet50", *VITS, "published", "tiny"))
    backbone = common.one_of(words, ("resnet50", *VITS), "resnet50")
    config = common.get_config()
    config.data.name = "dogs" if "dogs" in words else "cub"
    make = {
        (False, False): _resnet,
        (False, True): _published_resnet,
        (True, False): _vit,
        (True, True): _published_vit,
    }
    make[backbone in VITS, "published" in words](config, backbone)
    if "tiny" in words:
        common.make_tiny(config)
    return config


def _resnet(config, backbone):
    common.network(config, backbone, "tv_in1k")
    config.phases = (
        common.phase(
            "all",
            epochs=50,
            batch_size=16,
            optimizer="sgd",
            lr=2e-3,
            groups=(("head/.*", "head", 1.0), ("backbone/.*", "backbone", 0.1)),
            weight_decay=5e-4,
            schedule="cosine",
            warmup="5 %",
            monitor="val_top1",
        ),
    )


def _published_resnet(config, backbone):
    common.network(config, backbone, "tv_in1k")
    config.phases = (
        common.phase(
            "all",
            epochs=25,
            batch_size=16,
            optimizer="sgd",
            lr=1e-3,
            schedule="step",
            schedule_options={"every": "28 %"},  # 7 of 25 epochs
            monitor="val_top1",
        ),
    )
    bundles.apply(config, "letterbox_512")


def _vit(config, backbone):
    common.network(config, backbone, "augreg_in21k")
    glsim_cub.train(config)


def _published_vit(config, backbone):
    common.network(config, backbone, PUBLISHED_TAGS.get(backbone, "augreg_in21k_ft_in1k"))
    config.method_options.label_smoothing = 0.1
    config.phases = (
        common.phase(
            "all",
            epochs=25,
            batch_size=16,
            optimizer="adamw",
            lr=1e-3,
            weight_decay=0.01,
            schedule="one_cycle",
            schedule_options={"final": 250000.0},
            monitor="val_top1",
        ),
    )
    bundles.apply(config, "letterbox_512")
    config.phases[0].update(resize=224, crop=224)
    config.data.update(
        mean=(0.485, 0.456, 0.406),  # not those of the weights, 0.5
        std=(0.229, 0.224, 0.225),
        augment=(
            *config.data.augment,
            ("mixup_or_cutmix", {"mixup_alpha": 0.2, "cutmix_alpha": 0.2, "p": 0.5}),
        ),
    )
