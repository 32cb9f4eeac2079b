"""The compiled train step of one small phase, for tests that look at single steps."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from configs import common
from fgc_jax import averaging, config, experiment, mesh, optim, params, predict, schedules, step
from fgc_jax.data import dataset
from tests import tiny_run

FROZEN_BN = ((r".*/bn\d/.*", "bn", 0.0), (".*", "rest", 1.0))


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The compiled train step of one phase and the state before it, in NumPy."""

    before: step.TrainState
    train_step: Callable
    mesh: jax.sharding.Mesh

    def __call__(self, batch, *, number=0, steps=1):
        """(state, metrics) after `steps` steps, of which the first is global step `number`."""
        state = mesh.replicate(self.mesh, self.before.replace(step=np.int32(number)))
        for _ in range(steps):
            on_device = mesh.to_global(self.mesh, batch)
            state, metrics = self.train_step(state, on_device, {}, 1.0)
        return jax.tree.map(np.asarray, (state, metrics))

    def changed(self, after) -> set[str]:
        """Paths of the parameters and statistics that are not bit-equal to those before."""
        old, new = variables(self.before), variables(after)
        assert old.keys() == new.keys()
        return {path for path in old if old[path].tobytes() != new[path].tobytes()}


def make(*, head_options=(), augment=(), **phase) -> Trainer:
    """As a run makes it, for the first stage of a ResNet-18; noise on its weights, of which some
    begin as zero, keeps every gradient from being zero by construction."""
    recipe = tiny_run.recipe("unused")
    recipe.model.feature_map = "stage1"
    recipe.model.head_options = dict(head_options)
    recipe.data.augment = augment
    recipe.phases = (common.phase("test", resize=32, crop=32, **phase),)
    settings = config.parse(recipe)
    plan = experiment.assemble(settings, dataset.Dataset("none", tiny_run.CLASSES, {}))
    (parsed,) = settings.phases
    groups = plan.groups(parsed)
    schedule = schedules.build(parsed, 10)
    optimizer = optim.make(parsed, schedule, groups)
    method = plan.method(predict.load_run)
    train_step = step.make_train_step(
        graphdef=step.train_graphdef(plan.model, groups),
        method=method,
        optimizer=optimizer,
        rate=schedule.rate,
        phase_start=0,
        trained=groups.keys(),
        preprocess=plan.augment(parsed),
        key=plan.key(0, 2),
        device_mesh=plan.mesh,
        accumulate=parsed.accumulate,
        sam_rho=parsed.sam_rho,
        average=parsed.average,
    )
    weights, stats, _ = experiment.initial_variables(plan)
    rng = np.random.default_rng(0)
    noisy = {
        path: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32)
        for path, leaf in params.flatten(weights).items()
    }
    weights = params.unflatten(noisy)
    trainable, _ = params.select(weights, groups.keys())
    before = step.TrainState(
        step=np.int32(0),
        params=weights,
        stats=stats,
        opt_state=optimizer.init(trainable),
        method=method.state,
        average=jax.tree.map(np.copy, averaging.start(parsed.average, trainable, stats)),
    )
    return Trainer(before, train_step, plan.mesh)


def variables(state) -> dict[str, np.ndarray]:
    return params.flatten(state.params) | params.flatten(state.stats)


def batch_of(rows=6, seed=0, mask=None):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (rows, 32, 32, 3), np.uint8),
        "label": (np.arange(rows) % 3).astype(np.int32),
        "mask": np.ones(rows, np.float32) if mask is None else np.float32(mask),
        "index": np.arange(rows, dtype=np.int32),
    }
