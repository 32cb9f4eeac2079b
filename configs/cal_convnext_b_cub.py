"""Counterfactual attention learning with ConvNeXt-B of ImageNet-22k at 224 px on CUB-200-2011.

The setting of FGIR-Backbones (arkel23), in which 224 pixels with better pretraining are better than
ResNet-101 at 448: CAL (arXiv:2108.08728) with ConvNeXt-B (arXiv:2201.03545), 50 epochs, cosine with
warm-up, clipped gradients.

    python -m fgc_jax.main --config=configs/cal_convnext_b_cub.py --workdir=runs/cal_convnext \\
        --config.data.root=DIR      # DIR contains CUB_200_2011

Expected test top-1: 91.52 % with the crop's view, 91.54 % without (FGIR-Backbones' table, last
epoch; its learning rate was one of 0.03, 0.01, 0.003 and 0.001, but it does not state which; here
it is 0.003). Not reproduced here yet.

`tiny`: seconds, ConvNeXt V2 Atto with random weights. `--config.final=True` trains on all of train.
Memory: 7 GB (scripts/estimate_memory.py on a CPU: an estimate for GPUs). Time: not measured; the
test suite trains the recipe on a small network.
"""

from configs import bundles, common


def get_config(variant: str = ""):
    words = common.variants(variant, ("tiny",))
    config = common.get_config()
    config.data.name = "cub"
    common.network(config, "convnext_base", "fb_in22k")
    config.model.feature_map = "features"
    common.attention(config, "cal")
    config.views = "raw_crop"
    config.phases = (
        common.phase(
            "all",
            epochs=50,
            batch_size=8,
            optimizer="sgd",
            lr=3e-3,
            schedule="cosine",
            warmup="500 steps",
            clip_norm=1.0,
            monitor="val_top1",
        ),
    )
    bundles.apply(config, "cal")
    config.phases[0].update(resize=256, crop=224)
    config.data.interpolation = "bicubic"
    if "tiny" in words:
        common.make_tiny(config)
    return config
