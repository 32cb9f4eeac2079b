"""LoRA on your own images: a large vision transformer on a small GPU (arXiv 2106.09685).

    python -m fgc_jax.main --config=configs/lora_folder.py --workdir=runs/lora \\
        --config.data.root=DIR

The 304 M parameters of ViT-L/16 (ImageNet-21k) are frozen; 3.1 M new ones in its linear layers and
the head are trained. Memory: see docs/recipes.md, or run `python scripts/estimate_memory.py
--config=configs/lora_folder.py --classes=N` with your changes. Expected accuracy: depends on the
images. Time: a train step needs three quarters of the operations of full fine-tuning.

Variants: `bias` trains all biases instead (BitFit, arXiv 2106.10199), `full` all parameters;
`tiny`: seconds, a small network with random weights.
"""

from configs import common


def get_config(variant: str = ""):
    words = common.variants(variant, ("bias", "full", "tiny"))
    config = common.get_config()
    config.model.update(
        backbone="vit_large_patch16_224",
        pretrained="hub:timm/vit_large_patch16_224.augreg_in21k_ft_in1k",
        remat=True,
    )
    config.data.name = "folder"
    train, lr = "lora", 1e-3
    if "bias" in words:
        train = "bias"
    elif "full" in words:
        train, lr = "all", 1e-5
    if train == "lora":
        config.model.lora_rank = 8
    config.phases = (
        common.phase(
            "train",
            train=train,
            epochs=10,
            batch_size=8,
            resize=256,
            crop=224,
            optimizer="adamw",
            lr=lr,
            weight_decay=0.01,
            schedule="cosine",
            warmup="1 epochs",
            clip_norm=1.0,
        ),
    )
    if "tiny" in words:
        config.model.backbone = "vit_tiny_patch16_224"
        common.make_tiny(config)
    return config
