"""Training losses of small recipes; as a program, on however many devices there are.

python -m tests.device_losses NAME...
"""

import dataclasses
import json
import sys

import jax

from configs import common
from fgc_jax import models
from tests import small_networks, step_trainer, tiny_run


def transformer(recipe):
    """Drop path and remat: which devices compute again, and draw, each for its own images."""
    recipe.model.update(backbone="vit", drop_path=0.5, remat=True)


def cal(recipe):
    """Batch norms, random attention, and centres of classes whose images lie on all devices."""
    recipe.model.update(backbone="basic", feature_map="stage2")
    common.attention(recipe, "cal", maps=3)


def pmg(recipe):
    """Three optimiser steps on mosaics, then one on the whole images."""
    recipe.model.update(backbone="basic", feature_map="stage1+stage2+stage3", head="pmg")
    recipe.model.head_options = {"hidden": 4, "width": 4}
    recipe.method = "pmg"
    recipe.method_options = {"tiles": (8, 4, 2)}


def api_net(recipe):
    """Pairs of images that lie on different devices."""
    recipe.model.update(backbone="basic", feature_map="stage2", head="api_net")
    recipe.model.head_options = {"hidden": 4, "dropout": 0.0}
    recipe.method = "api_net"
    recipe.method_options = {"ranking_weight": 1.0}
    recipe.data.sampling = "2 classes x 4"


def herbs(recipe):
    """Positions ranked image by image, and a temperature that halves as all devices see images."""
    recipe.model.update(backbone="basic", feature_map="stage1+stage2+stage3", head="herbs")
    recipe.model.head_options = {"width": 8, "selects": (8, 4, 2), "tokens_per_joint": 4}
    recipe.method = "herbs"
    recipe.method_options = {"lambda_s": 0.5, "temperature": 4.0, "halve_every": 8}


CHANGES = {change.__name__: change for change in (transformer, cal, pmg, api_net, herbs)}


def losses(name: str, steps: int = 3) -> list[float]:
    """The losses of some steps on the same eight images, with flips."""
    weights = small_networks.STORED  # whose mean and std normalise the images
    for backbone in ("vit", "basic"):
        row = dataclasses.replace(small_networks.SMALL[backbone], weights=weights)
        models.BACKBONES[backbone] = row
    recipe = tiny_run.recipe("unused")
    CHANGES[name](recipe)
    recipe.eval_batch_size = 8
    recipe.phases = (common.phase("all", batch_size=8, resize=32, crop=32, lr=1e-3),)
    batch = step_trainer.batch_of(8, mask=[1, 1, 1, 0, 1, 1, 1, 1])
    trained = step_trainer.of(recipe).each([batch] * steps)
    return [float(metrics["loss"]) for _, metrics in trained]


if __name__ == "__main__":
    found = {name: losses(name) for name in sys.argv[1:]}
    print(json.dumps({"devices": jax.device_count(), **found}))
