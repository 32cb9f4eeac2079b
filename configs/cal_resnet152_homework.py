"""CAL with ResNet-152 on the 200 birds of a course's homework (CUB-200-2010, 15 images per class).

The course project LiaoWC/ImageClassification-CAL: CAL (arXiv:2108.08728) with 16 attention maps,
crops of 300 px from 324, rotations up to 20 degrees, and its own normalisation.

    python -m fgc_jax.main --config=configs/cal_resnet152_homework.py --workdir=runs/homework \\
        --config.data.root=DIR      # DIR contains training_images and training_labels.txt

Expected: 89.5 % on the project's 400 validation images, but half of these were also training
images. Here two images of each class (200 x 2) are used for validation only. Not reproduced here
yet. The project reduced the learning rate after six epochs in which the validation accuracy was not
1.9 times the best, in effect after every six epochs; here it is reduced if the accuracy has not
improved for six epochs.

Variants: `plain` is the project's ResNet without CAL; `tiny`: seconds, ResNet-18 with random
weights. Memory: 6 GB (scripts/estimate_memory.py on a CPU: an estimate for GPUs). Time: not
measured; the test suite trains the default variant on a small network and assembles the others.
"""

from configs import bundles, common


def get_config(variant: str = ""):
    words = common.variants(variant, ("plain", "tiny"))
    config = common.get_config()
    config.data.update(name="cub2010", val_fraction=2 / 15)
    config.data.options = {"layout": "homework"}
    common.network(config, "resnet152", "tv_in1k")
    if "plain" not in words:
        common.attention(config, "cal", maps=16)
        config.views = "crop3"
    config.phases = (
        common.phase(
            "all",
            epochs=100,
            batch_size=8,
            optimizer="sgd",
            lr=1e-3,
            schedule="plateau",
            schedule_options={"factor": 0.1, "patience": 5},
            monitor="val_top1",
        ),
    )
    bundles.apply(config, "wsdan_homework")
    if "tiny" in words:
        common.make_tiny(config)
    return config
