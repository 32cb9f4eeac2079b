"""Bilinear CNN: two VGG-16 streams on FGVC-Aircraft, head first, then the last two convolutions.

Bilinear CNNs (Lin et al., arXiv:1504.07889) in the phase-wise form of the course project
"Fine-grained image classification: phase-wise transfer" (nmd2k): two separate streams, the first
fine-tuned from conv5_2 on, the second frozen; bilinear pooling of conv5_3 (28 x 28 at 448 px),
signed square root, l2 norm, dropout 0.5, one linear layer with 26.2 M weights.

Expected top-1 on the test split: 78.7 % with `boxes` (the project's accuracy after phase 2; it used
BGR images and the maps after VGG's last pooling, 14 x 14; here images are RGB and maps 28 x 28);
84-87 % for the published recipe that fine-tunes everything (arXiv:1504.07889 reports 83.9-86.9,
depending on the version of the data). Not reproduced here yet.

    python -m fgc_jax.main --config=configs/bcnn_aircraft.py --workdir=runs/bcnn \\
        --config.data.root=DIR      # DIR contains fgvc-aircraft-2013b

Variants: without one: Adam 1e-3 and at most 10 epochs per phase with early stopping after 3, as in
that project's code. `sgd`: the two steps of public re-implementations of the paper (SGD 1.0 on the
classifier, then 5e-3 on all layers; HaoMood/bilinear-cnn, Hawkeye), with cosine schedules.
`boxes`: every picture, also of the test split, is first cropped to its published box, as in the
project. `reinit`: phase 2 re-initialises the layers that it un-freezes. `tiny`: seconds, random
weights.
`resnet34`, `resnet18_resnet34`, `resnet50`: the pairs of the project's earlier commits, without
published accuracy. Phase 2 then un-freezes the last stage of the first stream or, if the streams
differ, the last two blocks of both (the project: layer3 of its ResNet-18 and layer4 of its
ResNet-34). `resnet50` is one stream multiplied with itself. It needs a projection to 256 channels,
because 2048 x 2048 products would need 419 M weights.
Memory: 4 GB (scripts/estimate_memory.py on a CPU: an estimate for GPUs); parameters take 220 MB of
it. The classifier has 105 MB of these, and each of its Adam moments takes another 105 MB. Time: not
measured; the test suite runs the variant `tiny`.
"""

from configs import common

# The streams, the map of both, and the layers that phase 2 un-freezes.
PAIRS = {
    "vgg16": ("vgg16", "vgg16", "stage5", "last 2"),
    "resnet34": ("resnet34", "resnet34", "stage4", "last 3"),
    "resnet18_resnet34": ("resnet18", "resnet34", "stage4", "last 2"),
    "resnet50": ("resnet50", "", "stage4", "from layer4"),
}


def get_config(variant: str = ""):
    words = common.variants(variant, (*PAIRS, "sgd", "reinit", "boxes", "tiny"))
    pair = common.one_of(words, PAIRS, "vgg16")
    first_stream, second_stream, feature_map, last = PAIRS[pair]
    config = common.get_config()
    common.aircraft(config, words)
    common.network(config, first_stream, "tv_in1k", second=second_stream)
    projection = 256 if pair == "resnet50" else 0
    options = {"dropout": 0.5, "epsilon": 1e-5, "projection": projection}
    config.model.update(head="bilinear", head_options=options, feature_map=feature_map)
    if "sgd" in words:
        first = dict(optimizer="sgd", lr=1.0, weight_decay=1e-8, schedule="cosine", epochs=55)
        second = dict(
            train="all",
            optimizer="sgd",
            lr=5e-3,
            weight_decay=1e-5,
            schedule="cosine",
            warmup="1 epochs",
            epochs=30,
        )
    else:
        first = dict(optimizer="adam", lr=1e-3, epochs=10, patience=3)
        second = dict(train=last, optimizer="adam", lr=1e-3, epochs=10, patience=3)
        if first_stream == second_stream:
            second["groups"] = (("backbone_b/.*", "frozen", 0.0), (".*", "trained", 1.0))
    if "reinit" in words:
        second["reinit"] = last
    config.phases = (
        common.phase("head", train="head", monitor="val_top1", **first),
        common.phase("features", monitor="val_top1", **second),
    )
    if "tiny" in words:
        common.make_tiny(config)
    return config
