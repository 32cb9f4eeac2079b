"""Training losses of a small vision transformer; as a program, on however many devices there are.

python -m tests.transformer_losses
"""

import json

import jax
import numpy as np

from configs import common
from fgc_jax import config, experiment, mesh, models, optim, phases, predict, schedules
from fgc_jax.data import dataset
from tests import small_networks, tiny_run


def losses(steps: int = 3) -> list[float]:
    """With drop path, remat and flips."""
    models.BACKBONES["vit"] = small_networks.SMALL["vit"]
    recipe = tiny_run.recipe("unused")
    recipe.model.update(backbone="vit", drop_path=0.5, remat=True)
    recipe.eval_batch_size = 8
    recipe.phases = (common.phase("all", batch_size=8, resize=32, crop=32, lr=0.1),)
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
        "mask": np.ones(8, np.float32),
        "index": np.arange(8, dtype=np.int32),
    }
    batch = mesh.to_global(plan.mesh, batch)
    found = []
    for _ in range(steps):
        state, metrics = train_step(state, batch, method.constants, 1.0)
        found.append(float(metrics["loss"]))
    return found


if __name__ == "__main__":
    print(json.dumps({"devices": jax.device_count(), "losses": losses()}))
