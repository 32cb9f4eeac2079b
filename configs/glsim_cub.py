"""GLSim: a vision transformer that also encodes a crop around the most relevant patches.

Global-Local Similarity for Efficient Fine-Grained Image Recognition with Vision Transformers (Rios
et al., arXiv:2407.12891). ViT-B/16 of ImageNet-21k at 224 px. The same network encodes the crop
around the 8 patches whose cosine with the class token is largest, and one more block combines both
class tokens. Recipe of github.com/arkel23/GLSim with its medium augmentation.

Expected test top-1 (last epoch): CUB-200-2011 90.93 %, against 90.11 % of the same transformer
alone; Stanford Dogs 92.01 %. Not reproduced here yet.

    python -m fgc_jax.main --config=configs/glsim_cub.py --workdir=runs/glsim \\
        --config.data.root=DIR      # DIR contains CUB_200_2011

Variants: `dogs` (Stanford Dogs, 16 patches), `tiny` (seconds, random weights). The authors choose
the learning rate among 0.03, 0.01, 0.003 and 0.001 for each data set.
`--config.final=True` trains on all of train, as for the figures above.

Memory: 4.1 GB (scripts/estimate_memory.py on a CPU; an estimate for GPUs). Time: not measured; a
forward pass takes 70.7 GFLOP, twice that of the network, because it encodes two images. The test
suite runs the variant `tiny`.
"""

from configs import common


def get_config(variant: str = ""):
    words = common.variants(variant, ("dogs", "tiny"))
    config = common.get_config()
    config.data.name = common.one_of(words, ("dogs",), "cub")
    common.network(config, "vit_base_patch16_224", "orig_in21k")
    config.model.update(
        head="glsim",
        head_options={"top": 16 if config.data.name == "dogs" else 8, "dropout": 0.1},
        feature_map="features+pooled",
        dtype="bfloat16",
    )
    train(config)
    if "tiny" in words:
        common.make_tiny(config)
        config.model.head_options.update(top=2)
    return config


def train(config) -> None:
    """The augmentation and training of the authors' code, also for a transformer alone."""
    config.data.update(
        interpolation="bicubic",
        augment=(("flip", {}), ("trivial_augment", {}), ("erase", {"p": 0.3})),
    )
    config.model.drop_path = 0.1
    config.method_options.label_smoothing = 0.1
    config.phases = (
        common.phase(
            "all",
            epochs=50,
            batch_size=8,
            resize=300,
            crop=224,
            optimizer="sgd",
            lr=0.01,
            schedule="cosine",
            warmup="500 steps",
            clip_norm=1.0,
            monitor="val_top1",
        ),
    )
