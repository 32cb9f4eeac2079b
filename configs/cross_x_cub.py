"""Cross-X learning: ResNet-50 with two excitations for each stage on CUB-200-2011.

Paper: Cross-X Learning for Fine-Grained Visual Categorization (Luo et al., arXiv:1909.04412). Two
excitations of the last two stages and a third, merged feature each have a classifier; the logits
are summed. Regularisers make an excitation similar for all images, the excitations different from
each other, and the three classifiers similar.

Expected top-1 on the test split: 87.7 % (the paper's figure, of the best epoch on test). Not
reproduced here yet.

    python -m fgc_jax.main --config=configs/cross_x_cub.py --workdir=runs/cross_x \\
        --config.data.root=DIR      # DIR contains CUB_200_2011

The authors' settings for other data with ResNet-50, and their top-1 there:

NABirds (86.2 %): as here.
Cars (94.6 %): gamma_high=1 gamma_low=0.25 gamma_merged=1 (`--config.method_options.gamma_high=1`
and so on), `--config.model.head_options.low_pool=avg`, and no crop:
`--config.phases[0].resize=448 --config.data.random_crop=False`.
Dogs (88.9 %): gammas 0.01, 0.01 and 1, otherwise as Cars, and `--config.phases[0].lr=0.001`. For
Dogs their code does not use the merged classifier at test time; ours does.
Aircraft (92.6 %): gammas 0.5, 0.1 and 0.5, low_pool=avg, crop as here. Because of a misspelt key,
all three are 0 in their code.

Variant: `tiny`: seconds, a small network with random weights.
Memory: 13 GB (scripts/estimate_memory.py on a CPU: an estimate for GPUs). Time: not measured; the
test suite runs the variant `tiny`.
"""

from configs import common


def get_config(variant: str = ""):
    words = common.variants(variant, ("tiny",))
    config = common.get_config()
    config.data.name = "cub"
    common.network(config, "resnet50", "tv_in1k")
    config.model.update(
        feature_map="stage3+features",
        head="cross_x",
        head_options={"parts": 2, "reduction": 256, "low_pool": "max"},
    )
    config.method = "cross_x"
    gammas = {"gamma_high": 0.5, "gamma_low": 0.25, "gamma_merged": 0.5}
    config.method_options = {**gammas, "kl_weight": 1.0}
    config.phases = (
        common.phase(
            "all",
            epochs=30,
            batch_size=32,
            resize=600,
            crop=448,
            optimizer="sgd",
            lr=0.01,
            schedule="step",
            schedule_options={"milestones": ("15 epochs", "25 epochs")},
            monitor="val_top1",
        ),
    )
    if "tiny" in words:
        common.make_tiny(config)
        config.phases[0].schedule_options = {"milestones": ("50 %",)}
    return config
