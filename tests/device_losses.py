"""Training losses of two small recipes; as a program, on however many devices there are.

python -m tests.device_losses
"""

import dataclasses
import json

import jax
import numpy as np

from configs import common
from fgc_jax import config, experiment, mesh, models, optim, phases, predict, schedules
from fgc_jax.data import dataset
from tests import small_networks, tiny_run


def transformer(recipe):
    """Drop path and remat: which devices compute again, and draw, each for its own images."""
    recipe.model.update(backbone="vit", drop_path=0.5, remat=True)


def cal(recipe):
    """Batch norms, random attention, and centres of classes whose images lie on all devices."""
    recipe.model.update(backbone="basic", feature_map="stage2")
    common.attention(recipe, "cal", maps=3)


def losses(change, steps: int = 3) -> list[float]:
    """The losses of some steps on the same eight images, with flips."""
    weights = {"": small_networks.STORED[0]}  # whose mean and std normalise the images
    for name in ("vit", "basic"):
        row = dataclasses.replace(small_networks.SMALL[name], weights=weights)
        models.BACKBONES[name] = row
    recipe = tiny_run.recipe("unused")
    change(recipe)
    recipe.eval_batch_size = 8
    recipe.phases = (common.phase("all", batch_size=8, resize=32, crop=32, lr=1e-3),)
    settings = config.parse(recipe)
    plan = experiment.assemble(settings, dataset.Dataset("none", tiny_run.CLASSES, {}))
    (phase,) = settings.phases
    groups, schedule = plan.groups(phase), schedules.build(phase, steps)
    optimizer, method = optim.make(phase, schedule, groups), plan.method(predict.load_run)
    train_step = phases.train_step(plan, 0, method, groups, optimizer=optimizer, rate=schedule.rate)
    variables, stats, _ = experiment.initial_variables(plan)
    state = phases.first_state(plan, method, groups, optimizer, variables, stats)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "label": np.arange(8, dtype=np.int32) % 3,
        "mask": np.float32([1, 1, 1, 0, 1, 1, 1, 1]),
        "index": np.arange(8, dtype=np.int32),
    }
    batch = mesh.to_global(plan.mesh, batch)
    found = []
    for _ in range(steps):
        state, metrics = train_step(state, batch, method.constants, 1.0)
        found.append(float(metrics["loss"]))
    return found


if __name__ == "__main__":
    found = {change.__name__: losses(change) for change in (transformer, cal)}
    print(json.dumps({"devices": jax.device_count(), **found}))
