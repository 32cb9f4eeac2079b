"""Phase-wise transfer on FGVC-Aircraft: first the classifier, then also the last layers.

All single networks of the course project "Fine-grained image classification: phase-wise transfer"
(nmd2k). Re-initialising the layers that a phase un-freezes follows Plested et al., "Non-binary deep
transfer learning for image classification" (arXiv:2107.08585). Pictures are squashed to 512 x 512
and cropped to the centre 448 x 448.

    python -m fgc_jax.main --config=configs/transfer_aircraft.py:resnet50 --workdir=runs/aircraft \\
        --config.data.root=DIR      # DIR contains fgvc-aircraft-2013b

Variants, in any combination, as in `:resnet101,last2,reinit,sgd`:
`resnet18`, `resnet34`, `resnet50` (the default), `resnet101`, `resnet152`, `vgg16`, `vgg16_bn`,
`vgg19`, `inception_v3`: the network. `phase1`: only the classifier is trained. `last1` to `last4`:
how many of the last layers phase 2 un-freezes; a layer is a residual or Inception block, or a
convolution of VGG. Without one of these it un-freezes the whole last stage (ResNet), two
convolutions (VGG) or three blocks (Inception), as in the project. `reinit`: these layers are also
re-initialised. `sgd`: SGD 0.025 of the project's report; the default is the Adam 1e-3 of its code.
At most 10 epochs per phase, with early stopping after 3. `boxes`: every picture, also of the test
split, is first cropped to its published box, as in the project. `tiny`: seconds, a small network of
the family with random weights.

Expected top-1 on the test split with `boxes` (the project's accuracies, read from its plot; its
input of the classifier was the flattened, l2-normalised map of BGR images, here it is the
average-pooled map of RGB images):

    network       phase 1   phase 2
    resnet34      64.4 %    77.1 %
    resnet50      62.0 %    78.6-78.9 %
    vgg16         75.3 %    77.4 %

There is no published accuracy for the other networks and for `reinit`, which is not in the
project's code. None of these is reproduced here yet.

Memory: 2.5 GB for resnet50 (scripts/estimate_memory.py on a CPU: an estimate for GPUs); activations
of the frozen layers are not stored. Time: not measured; the test suite runs the variant `tiny`.
"""

from configs import common

LAST_STAGE = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), "from layer4"),
    **dict.fromkeys(("vgg16", "vgg16_bn", "vgg19"), "last 2"),
    "inception_v3": "last 3",
}
LAST = {f"last{number}": f"last {number}" for number in range(1, 5)}


def get_config(variant: str = ""):
    words = common.variants(
        variant, (*LAST_STAGE, "phase1", *LAST, "reinit", "sgd", "boxes", "tiny")
    )
    backbone = common.one_of(words, LAST_STAGE, "resnet50")
    last = common.one_of(words, ("phase1", *LAST), "")
    if last == "phase1" and "reinit" in words:
        raise ValueError("the variant 'reinit' changes phase 2, but 'phase1' has no phase 2")
    config = common.get_config()
    common.aircraft(config, words)
    common.network(config, backbone, "tv_in1k")
    each = {"optimizer": "adam", "lr": 1e-3, "patience": 3, "monitor": "val_top1"}
    if "sgd" in words:
        each.update(optimizer="sgd", lr=0.025, weight_decay=5e-4)
    config.phases = (common.phase("head", train="head", **each),)
    if last != "phase1":
        train = LAST.get(last, LAST_STAGE[backbone])
        reinit = train if "reinit" in words else ""
        config.phases += (common.phase("features", train=train, reinit=reinit, **each),)
    if "tiny" in words:
        common.make_tiny(config)
    return config
