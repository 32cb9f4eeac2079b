"""LoRA: adds a trainable product of two small matrices to frozen linear layers of a backbone.

Paper: LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685). A layer computes
x W + b + alpha / rank (x A) B, with A [in, rank] and B [rank, out]. B starts as zero, so that the
network at first computes the same as without LoRA. The keys of a model config are lora_rank,
lora_alpha (0 for the rank: a factor of 1), and lora_targets: a regular expression that must match
the whole path of a linear layer, such as r".*/qkv" for "backbone/blocks/0/attn/qkv"; "" for every
linear layer outside the head, which is better than attention alone (QLoRA, arXiv 2305.14314).
"""

import re

import numpy as np
from flax import nnx

from fgc_jax import trees
from fgc_jax.config import ModelSettings
from fgc_jax.models import layers

LEAVES = ("lora_a", "lora_b")


def add(model: nnx.Module, config: ModelSettings, *, rngs: nnx.Rngs) -> None:
    """Adds the two kernels to the linear layers that config.lora_targets selects.

    Raises:
        ValueError: the backbones have no linear layer, or lora_targets is not a regular expression
            or matches none of them.
    """
    found = {
        "/".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, layers.Linear) and path[0] != "head"
    }
    if not found:
        raise ValueError(
            f"lora_rank={config.lora_rank}: {config.backbone} has no linear layers outside its "
            "head; use a transformer"
        )
    try:
        pattern = re.compile(config.lora_targets or ".*")
    except re.error as error:
        raise ValueError(
            f"lora_targets={config.lora_targets!r} is not a regular expression: {error}"
        ) from None
    chosen = [path for path in sorted(found) if pattern.fullmatch(path)]
    if not chosen:
        raise ValueError(
            f"lora_targets={config.lora_targets!r} does not match the whole path of any linear "
            f"layer; the layers are {', '.join(sorted(found)[:4])}, ... ({len(found)} in all)"
        )
    for path in chosen:
        found[path].add_lora(config.lora_rank, _factor(config), rngs=rngs)


def _factor(config: ModelSettings) -> float:
    return (config.lora_alpha or config.lora_rank) / config.lora_rank


def paths(params: trees.Tree) -> set[str]:
    """The paths of the parameters of LoRA."""
    return {path for path in trees.flatten(params) if path.endswith(LEAVES)}


def merged(config: ModelSettings, params: trees.Tree) -> trees.Tree:
    """The parameters of an equivalent network without LoRA: W + alpha / rank A B."""
    flat = trees.flatten(params)
    for path in sorted(path for path in flat if path.endswith(LEAVES[0])):
        layer = path.removesuffix(LEAVES[0])
        a, b = (np.float64(flat.pop(layer + leaf)) for leaf in LEAVES)
        kernel = flat[layer + "kernel"]
        flat[layer + "kernel"] = np.float32(kernel + _factor(config) * (a @ b))
    return trees.unflatten(flat)
