"""One small network of each family: the code of the published ones with one block a stage."""

from fgc_jax.models import backbone
from fgc_jax.models.backbones import (
    convnext_table,
    efficientnet,
    eva,
    inception,
    resnet,
    resnetv2,
    swin_table,
    vgg,
    vit,
)


def _efficientnet(style, *blocks):
    stages = [efficientnet.Stage(block, 3, 1, 1, 16, 1) for block in blocks]
    stages.append(efficientnet.Stage(efficientnet.InvertedBlock, 5, 2, 6, 24, 2))
    return efficientnet.row(stages, stem=32, head=1280, style=style)


# Position embeddings are stored for a grid of 3 x 3 and resampled to that of the images.
STORED = {"": backbone.timm_facts(size=48)}
SMALL = {
    "basic": resnet.row(resnet.BasicBlock, (1, 1, 1, 1)),
    "bottleneck": resnet.row(resnet.Bottleneck, (1, 1, 1, 1)),
    "resnext": resnet.row(resnet.Bottleneck, (1, 1, 1, 1), groups=4, group_width=32),
    "basic_deep": resnet.row(resnet.BasicBlock, (1, 1, 1, 1), deep=True),
    "antialiased": resnet.row(resnet.Bottleneck, (1, 1, 1, 1), deep=True, antialias=True),
    "resnetv2": resnetv2.row((1, 1, 1, 2)),
    "bit": resnetv2.row((1, 1, 1, 2), bit=True),
    "inception": inception.row(
        {
            "stage2": {"Mixed_5b": (inception.A, "mean_inside", 32)},
            "stage3": {
                "Mixed_6a": (inception.B, "halve", 0),
                "Mixed_6b": (inception.middle(32), "mean", 192),
            },
            "stage4": {
                "Mixed_7a": (inception.D, "halve", 0),
                "Mixed_7b": (inception.E, "max", 192),
            },
        }
    ),
    "vgg": vgg.row((1, 1, 1, 1, 1), False),
    "vgg_bn": vgg.row((1, 1, 1, 1, 1), True),
    "lite": _efficientnet(efficientnet.LITE, efficientnet.SeparableBlock),
    "mbconv": _efficientnet(efficientnet.TORCH, efficientnet.SeparableBlock),
    "efficientnetv2": _efficientnet(
        efficientnet.TENSORFLOW, efficientnet.ConvBlock, efficientnet.FusedBlock
    ),
    "vit": vit.vit((24, 2, 2), 16, weights=STORED, parameters=0),
    "vit_registers": vit.vit(
        (24, 2, 2),
        16,
        registers=2,
        embed_prefix=False,
        layer_scale=0.1,
        pre_norm=True,
        weights=STORED,
        parameters=0,
    ),
    "eva": eva.row((24, 2, 2), weights=STORED, parameters=0),
    "convnext": convnext_table.row((1, 1, 1, 1), 8),
    "convnextv2": convnext_table.row((1, 1, 1, 1), 8, grn=True),
    "convnextv2_pointwise": convnext_table.row((1, 1, 1, 1), 8, grn=True, pointwise=True),
    # Shifted, padded and shortened windows.
    "swin": swin_table.row(32, (2, 2, 1, 1), 3),
}
