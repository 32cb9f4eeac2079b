"""ResNeXt-50 on Stanford Cars in three stages, with discriminative rates, one-cycle, larger images.

The recipe of "fine-grained-image-classification" (vivekkalyan, fastai 1.0.52): first the classifier
and all batch norms at 1e-2, then all layers at 3e-3, then all layers on larger images. Early layers
(up to layer2) have a ninth of the rate, layer3 and layer4 a third. It uses super-convergence
(arXiv:1708.07120), decoupled weight decay (arXiv:1711.05101), discriminative rates
(arXiv:1801.06146).

    python -m fgc_jax.main --config=configs/resnext50_cars.py --workdir=runs/cars \\
        --config.data.root=DIR      # DIR contains cars_train, cars_test, devkit and the labels

Expected top-1: 91.4 % on the test split, trained on all of train (reported by the project as a mean
over shuffled batches without the last 9 images; 91 % on its 20 % validation split after two
stages). To train on all of train with the numbers of epochs selected here: `--config.final=True
--config.search=runs/cars` with another workdir. Not reproduced here yet.

Variants: `efficientnet_b0` to `efficientnet_b3` (the TensorFlow weights of efficientnet_pytorch;
two stages, the backbone at a third of the rate; the project: 89 % on validation for b3),
`resnet18`, `resnet50`, `resnet101` (the project's other backbones; 89.7 % for ResNet-50 after three
stages, 84 % for ResNet-101 after two with weight decay 1e-2). `tiny`: seconds, a small network.

Differences: each stage starts with new moments and from the state with the best validation loss of
the previous stage; the project continued from the last state. Frozen weights do not decay. No image
is left out at the end of an epoch.
Memory: 4 GB (scripts/estimate_memory.py on a CPU: an estimate for GPUs). Time: not measured; the
test suite runs the variant `tiny`.
"""

from configs import bundles, common

THIRDS = (
    ("head/.*", "head", 1.0),
    ("backbone/layer[34]/.*", "late", 1 / 3),
    ("backbone/.*", "early", 1 / 9),
)
HALVES = (("head/.*", "head", 1.0), ("backbone/.*", "trunk", 1 / 3))
EFFICIENTNETS = tuple(f"efficientnet_b{number}" for number in range(4))


def get_config(variant: str = ""):
    trunks = ("resnext50_32x4d", "resnet18", "resnet50", "resnet101", *EFFICIENTNETS)
    words = common.variants(variant, (*trunks[1:], "tiny"))
    backbone = common.one_of(words, trunks, trunks[0])
    efficient = backbone in EFFICIENTNETS
    config = common.get_config()
    config.data.name = "cars"
    name, tag = (f"tf_{backbone}", "aa_in1k") if efficient else (backbone, "tv_in1k")
    common.network(config, name, tag)
    config.model.head_options = {"pool": "avgmax", "mlp": True, "hidden": 512, "dropout": 0.5}
    each = dict(
        groups=HALVES if efficient else THIRDS,
        optimizer="adamw",
        weight_decay=1e-3,
        beta2=0.99,
        schedule="one_cycle",
    )
    config.phases = (
        common.phase(
            "frozen", train="head", train_bn_while_frozen=True, epochs=20, lr=1e-2, **each
        ),
        common.phase("all", epochs=40, lr=3e-3, **each),
    )
    if not efficient:
        config.phases += (common.phase("larger", epochs=40, lr=3e-3, batch_size=16, **each),)
    bundles.apply(config, "fastai")
    if not efficient:
        config.phases[2].update(resize=299, crop=299)
    if "tiny" in words:
        common.make_tiny(config)
    return config
