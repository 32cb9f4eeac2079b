"""API-Net on CUB-200-2011: training with pairs of similar images.

Learning Attentive Pairwise Interaction for Fine-Grained Classification (arXiv:2002.10191) with the
numbers of the authors' code (PeiqinZhuang/API-Net): batches of 30 classes x 4 images, SGD 0.01, the
head alone for the first 8 of 100 epochs. In those 8 epochs the authors' code updates the
batch-norm statistics of the frozen backbone; this recipe does not. Their cosine schedule covers
all 100 epochs, here it covers the second phase.

Expected test top-1: 87.7 % with ResNet-50, 88.6 % with ResNet-101 (from the paper; users report
85.9 to 87.2 %, Hawkeye 87.88 %). Not reproduced here yet.

    python -m fgc_jax.main --config=configs/api_net_cub.py --workdir=runs/api_net \\
        --config.data.root=DIR      # DIR contains CUB_200_2011

Variants: `resnet50` (the default), `resnet101`; `tiny`: seconds, random weights.
Memory: estimated at 45 GB for ResNet-50 (120 images of 448 px in float32), divided among all
devices; about a third with --config.model.remat=True. Pairs are searched in the whole batch. With
`accumulate`, each part of a batch must contain at least two images of a class. Time: not measured.
"""

from configs import common


def get_config(variant: str = ""):
    words = common.variants(variant, ("resnet50", "resnet101", "tiny"))
    backbone = common.one_of(words, ("resnet50", "resnet101"), "resnet50")
    config = common.get_config()
    config.data.update(name="cub", sampling="30 classes x 4")
    common.network(config, backbone, "tv_in1k")
    config.model.update(head="api_net", head_options={"hidden": 512, "dropout": 0.5})
    config.method = "api_net"
    config.method_options = {"margin": 0.05, "ranking_weight": 1.0}
    steps = dict(batch_size=120, optimizer="sgd", lr=0.01, weight_decay=5e-4, monitor="val_top1")
    config.phases = (
        common.phase("head", train="head", epochs=8, **steps),
        common.phase("all", start_from="last", epochs=92, schedule="cosine", **steps),
    )
    if "tiny" in words:
        common.make_tiny(config)
        config.data.sampling = "2 classes x 4"
    return config
