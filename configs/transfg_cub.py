"""TransFG: a vision transformer with overlapping patches and selected parts in its last block.

TransFG: A Transformer Architecture for Fine-grained Recognition (He et al., arXiv:2103.07976).
ViT-B/16 of ImageNet-21k at 448 px; a patch every 12 pixels (37 x 37 patches); the inputs of the
last block are the class token and one token for each head; cross-entropy and contrastive loss.
Training follows github.com/TACJu/TransFG: SGD, 10,000 steps with batches of 64 when training on all
of train, pairs within parts of 16 images. That code divides the contrastive loss by the number of
images; here, as in the paper, it is divided by the number of pairs.

Expected test top-1 (best epoch on test): CUB-200-2011 91.7 % (others: 90.8-91.2); Stanford Cars
94.8 %, Stanford Dogs 92.3 % (others 90.5). Not reproduced here yet.

    python -m fgc_jax.main --config=configs/transfg_cub.py --workdir=runs/transfg \\
        --config.data.root=DIR      # DIR contains CUB_200_2011

Variants: `cars` (learning rate 3e-3 instead of 3e-2, RandAugment instead of AutoAugment, which is
not available), `dogs` (learning rate 3e-3), `plain` (the transformer alone: cross-entropy, patches
without overlap, no parts), `tiny` (seconds, random weights).
`--config.final=True` trains on all of train, as for the figures above.

Memory: 8 GB for parts of 16 images; with `--config.model.remat=False` 53 GB and a fifth fewer
operations (scripts/estimate_memory.py on a CPU; an estimate for GPUs). Time: not measured; a
forward pass takes 368 GFLOP, with `plain` 158. The test suite runs the variant `tiny`.
"""

from configs import common

# 10,000 steps of 64 images, counted on all of train.
EPOCHS = {"cub": 107, "cars": 79, "dogs": 53}


def get_config(variant: str = ""):
    words = common.variants(variant, ("cars", "dogs", "plain", "tiny"))
    config = common.get_config()
    config.data.name = common.one_of(words, ("cars", "dogs"), "cub")
    config.data.update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    if config.data.name == "cars":
        config.data.augment = (("flip", {}), ("rand_augment", {}))
    common.network(config, "vit_base_patch16_224", "orig_in21k")
    config.model.update(dtype="bfloat16", remat=True)
    if "plain" not in words:
        config.model.feature_map = "pooled"
        config.model.backbone_options = {"patch_stride": 12, "part_selection": True}
        config.method = "transfg"
        config.method_options = {"margin": 0.4, "label_smoothing": 0.0}
    config.phases = (
        common.phase(
            "all",
            epochs=EPOCHS[config.data.name],
            batch_size=64,
            accumulate=4,
            resize=600,
            crop=448,
            optimizer="sgd",
            lr=3e-2 if config.data.name == "cub" else 3e-3,
            schedule="cosine",
            warmup="500 steps",
            clip_norm=1.0,
            monitor="val_top1",
        ),
    )
    if "tiny" in words:
        common.make_tiny(config)
    return config
