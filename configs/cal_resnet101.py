"""Counterfactual attention learning with ResNet-101 on CUB-200-2011, Cars or FGVC-Aircraft.

CAL (Rao et al., arXiv:2108.08728) with the numbers of its published code: layer4 at stride 1, 32
attention maps, 448 px, SGD 1e-3 whose rate falls by a tenth every two epochs, 160 epochs.

    python -m fgc_jax.main --config=configs/cal_resnet101.py --workdir=runs/cal_cub \\
        --config.data.root=DIR      # DIR contains CUB_200_2011

Expected test top-1: CUB 90.6, Cars 95.5, Aircraft 94.2 % (the paper, mean of 8 views, the better of
plain and effect logits, best epoch on test); users of that code report 89.5 to 90.4 on CUB. Not
reproduced here yet.

Variants: `cub` (the default), `cars`, `aircraft`; `wsdan` has no counterfactual attention, `plain`
is only the network at stride 1 with average pooling; `tiny`: seconds, ResNet-18 with random
weights. `--config.final=True` trains on all of train.
Memory: 19 GB (scripts/estimate_memory.py on a CPU: an estimate for GPUs), most of it for the
activations of three versions of each image; there are 56 M parameters with 200 classes, 13 M of
them in the classifier. To use less memory: `--config.phases[0].accumulate=4`; the centres then move
four times in a step, each time towards the images of one part. Time: not measured; the test suite
runs the variants `tiny`.
"""

from configs import bundles, common

DATA = ("cub", "cars", "aircraft")
METHODS = ("cal", "wsdan", "plain")


def get_config(variant: str = ""):
    words = common.variants(variant, (*DATA, *METHODS, "tiny"))
    config = common.get_config()
    config.data.name = common.one_of(words, DATA, "cub")
    if config.data.name == "aircraft":
        common.aircraft(config)
    common.network(config, "resnet101", "tv_in1k")
    config.model.backbone_options = {"last_stride": 1}
    method = common.one_of(words, METHODS, "cal")
    if method != "plain":
        common.attention(config, method)
        config.views = {"cal": "crop3_flip", "wsdan": "raw_crop"}[method]
    config.phases = (
        common.phase(
            "all",
            epochs=160,
            batch_size=16,
            optimizer="sgd",
            lr=1e-3,
            weight_decay=1e-5,
            schedule="exponential",
            schedule_options={"factor": 0.9, "every": "1.25 %"},  # two epochs
            monitor="val_top1",
        ),
    )
    bundles.apply(config, "cal")
    if "tiny" in words:
        common.make_tiny(config)
    return config
