"""WS-DAN with Inception-v3 on CUB-200-2011, FGVC-Aircraft, Stanford Cars or Stanford Dogs.

Weakly supervised data augmentation (Hu et al., arXiv:1901.09891) with the numbers of the PyTorch
port GuYuc/WS-DAN.PyTorch: features of Mixed_6e (Dogs: Mixed_7c), 32 attention maps, 448 px, batch
12, SGD 1e-3 whose rate falls by a tenth every two epochs, 160 epochs. Here batch norm normalises
crops and erased images as one batch, in that port separately. For Dogs the port uses the first 32
channels of Mixed_7c as attention maps; here a convolution learns them.

    python -m fgc_jax.main --config=configs/wsdan_inception.py --workdir=runs/wsdan_cub \\
        --config.data.root=DIR      # DIR contains CUB_200_2011

Expected test top-1 with the crop's view: CUB 88.28, Aircraft 93.28, Cars 94.38, Dogs 89.66 % (that
port, best epoch on test); the paper reports 89.4, 93.0, 94.5 and 92.2. Not reproduced here yet.

Variants: `cub` (the default), `aircraft`, `cars`, `dogs`; `tiny`: seconds, random weights.
Memory: 5 GB (scripts/estimate_memory.py on a CPU: an estimate for GPUs). Time: not measured; the
test suite trains the default variant on a small network and assembles the others.
"""

from configs import bundles, common

FEATURES = {"cub": "stage3", "aircraft": "stage3", "cars": "stage3", "dogs": "stage4"}


def get_config(variant: str = ""):
    words = common.variants(variant, (*FEATURES, "tiny"))
    config = common.get_config()
    config.data.name = common.one_of(words, FEATURES, "cub")
    if config.data.name == "aircraft":
        common.aircraft(config)
    common.network(config, "inception_v3", "tv_in1k")
    config.model.feature_map = FEATURES[config.data.name]
    common.attention(config, "wsdan")
    config.views = "raw_crop"
    config.phases = (
        common.phase(
            "all",
            epochs=160,
            batch_size=12,
            optimizer="sgd",
            lr=1e-3,
            weight_decay=1e-5,
            schedule="step",
            schedule_options={"every": "1.25 %", "factor": 0.9},  # two epochs
            monitor="val_top1",
        ),
    )
    bundles.apply(config, "cal")
    if "tiny" in words:
        common.make_tiny(config)
    return config
