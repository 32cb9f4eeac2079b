"""PIM and HERBS: a feature pyramid on Swin-L; a small graph combines its best positions.

A Novel Plug-in Module for Fine-Grained Visual Classification (PIM, Chou et al., arXiv:2202.03822)
and Fine-grained Visual Classification with High-temperature Refinement and Background Suppression
(HERBS, Chou et al., arXiv:2303.06442), trained as in github.com/chou141253/FGVC-PIM and FGVC-HERBS:
ImageNet-22k weights, 384 px, SGD with Nesterov momentum, batches of 32.

Expected test top-1 on CUB-200-2011: PIM 92.77 %, HERBS 93.1 %. Both select the best epoch and the
best of up to ten combinations of outputs on test; another implementation of PIM reaches 91.4-91.9.
Swin-L alone reaches 91.87 (configs/baselines_cub.py). Not reproduced here yet.

    python -m fgc_jax.main --config=configs/pim_cub.py --workdir=runs/pim \\
        --config.data.root=DIR      # DIR contains CUB_200_2011

Variants: `herbs`; `tiny` (seconds, random weights). `--config.final=True` trains on all of train,
as for the figures above. The published code reads Swin's maps after the patch merging, whose finest
grid is 48 x 48; here it is 96 x 96, with the same numbers of selected positions.

Memory: 16 GB for PIM with batches in two parts, 14 GB for HERBS with four (with `remat`;
scripts/estimate_memory.py on a CPU; an estimate for GPUs). Time: not measured; the authors' PIM
takes 3 h on one GPU. The test suite runs the variant `tiny`.
"""

from configs import common

PIM = {"lambda_b": 0.5, "lambda_n": 5.0, "lambda_s": 0.0, "lambda_c": 1.0}
HERBS = {
    **PIM,
    "lambda_b": 0.3,
    "lambda_r": 1.375,
    "temperature": 64.0,
    "halve_every": 10,
}


def get_config(variant: str = ""):
    words = common.variants(variant, ("herbs", "tiny"))
    herbs = "herbs" in words
    config = common.get_config()
    config.data.name = "cub"
    config.data.augment = (
        ("flip", {}),
        ("blur", {"p": 0.1}),
        ("sharpen", {"p": 0.1}),
    )
    common.network(config, "swin_large_patch4_window12_384", "ms_in22k")
    config.model.update(
        head="herbs" if herbs else "pim",
        head_options={
            "width": 1536,
            "selects": (256, 128, 64, 32) if herbs else (2048, 512, 128, 32),
            "tokens_per_joint": 64 if herbs else 32,
            "dropout": 0.1,
        },
        feature_map="stage1+stage2+stage3+features",
        dtype="bfloat16",
        remat=True,
    )
    config.method = "herbs" if herbs else "pim"
    config.method_options = HERBS if herbs else PIM
    config.phases = (
        common.phase(
            "all",
            epochs=80 if herbs else 50,
            batch_size=32,
            accumulate=4 if herbs else 2,
            resize=510,
            crop=384,
            optimizer="sgd",
            lr=5e-4,
            nesterov=True,
            weight_decay=3e-4 if herbs else 5e-4,
            schedule="cosine",
            # The authors count parts of a batch: 1500 and 800 of them.
            warmup="375 steps" if herbs else "400 steps",
            monitor="val_top1",
        ),
    )
    if "tiny" in words:
        common.make_tiny(config)
        config.model.head_options.update(width=32, selects=(8, 4, 2, 1), tokens_per_joint=4)
    return config
