"""What must not depend on the number of devices and processes; as a program, on those there are.

python -m tests.on_devices NAME[=ARGUMENT]...
"""

import dataclasses
import functools
import json
import sys
from pathlib import Path

import jax

from configs import common
from fgc_jax import mesh, models
from fgc_jax import train as trainer
from fgc_jax.cli import train as command
from tests import commands, small_networks, step_trainer, test_multiview, tiny_run, watched

AUGMENT = (("flip", {}), ("rotate", {}), ("mixup_or_cutmix", {}))
# SGD: Adam divides tiny gradients by their own size, which blows rounding up.
OPTIONS = (
    *commands.SMALL,
    "--config.phases[0].optimizer=sgd",
    "--config.phases[0].lr=0.02",
    "--config.phases[1].optimizer=sgd",
    "--config.phases[1].lr=0.02",
    "--config.phases[1].batch_size=16",
    "--config.phases[1].accumulate=2",
    "--config.phases[1].average=ema 0.9",
    f"--config.data.augment={AUGMENT}",
)


def train(workdir: str) -> list[dict[str, float]]:
    """What a run through the command logs."""
    assert command.main([*OPTIONS, f"--workdir={workdir}"]) == 0
    return commands.logged(Path(workdir))


def views() -> list[list[float]]:
    """Scores over several views of eight images."""
    images = jax.device_put(test_multiview.pictures(32, 8), mesh.sharded(mesh.make()))
    return test_multiview.scored(images, "crop3_flip", crop=32).tolist()


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


def short(workdir: str) -> list[dict[str, float]]:
    """What a run of one epoch logs: the smallest network on the images beside the run directory,
    without a test."""
    phase = {"name": "all", "epochs": 1, "batch_size": 8, "accumulate": 2, "lr": 0.02}
    recipe = watched.make_recipe(Path(workdir).parent / "images", phase)
    recipe.model.feature_map = "stem"
    recipe.data.augment = AUGMENT
    trainer.run(recipe, workdir)
    return commands.logged(Path(workdir))


JOBS = {"train": train, "views": views, "short": short}
JOBS |= {name: functools.partial(losses, name) for name in CHANGES}


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[0].startswith("--multi_host="):
        mesh.join_cluster(words.pop(0).partition("=")[2])
    jobs = (word.partition("=") for word in words)
    found = {name: JOBS[name](*filter(None, [argument])) for name, _, argument in jobs}
    print(json.dumps({"devices": jax.device_count(), **found}))
