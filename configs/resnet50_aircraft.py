"""ResNet-50 on FGVC-Aircraft in two phases: classifier first, then the last stage.

The phase-wise transfer of the course project "Fine-grained image classification: phase-wise
transfer" (nmd2k); re-initialising the last layers follows Plested et al., "Non-binary deep
transfer learning for image classification" (arXiv:2107.08585).

Expected top-1 on the test split: 78.6-78.9 % (the project's figure; it classified
the flattened, l2-normalised map, we classify its average). Not reproduced here yet.

    python -m fgc_jax.main --config=configs/resnet50_aircraft.py --workdir=runs/resnet50 \\
        --config.data.root=DIR      # DIR holds fgvc-aircraft-2013b

Variants: default Adam 1e-3, at most 10 epochs a phase, early stopping after 3 (the project's code).
`sgd`: SGD 0.025 (the project's report, after Plested et al.). `reinit`: phase 2 re-initialises what
it un-freezes, from the best checkpoint of phase 1. `tiny`: seconds, random weights.
"""

from configs import common


def get_config(variant: str = ""):
    return common.aircraft_transfer(variant, "resnet50", train="from layer4")
