"""The compiled train step of one small phase, for tests that look at single steps."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from configs import common
from fgc_jax import mesh, trees
from fgc_jax.data import dataset
from fgc_jax.training import classification, phases, plans, rules, step
from tests import tiny_run

FROZEN_BN = ((r".*/bn\d/.*", "bn", 0.0), (".*", "rest", 1.0))


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The compiled train step of one phase, what it is given each time, and the state before it, in
    NumPy."""

    before: step.TrainState
    train_step: Callable
    constants: dict
    mesh: jax.sharding.Mesh

    def __call__(self, batch, *, number=0, steps=1):
        """(state, metrics) after `steps` steps, of which the first is global step `number`."""
        *_, last = self.each([batch] * steps, number=number)
        return jax.tree.map(np.asarray, last)

    def each(self, batches: Iterable, *, number=0) -> Iterator:
        """(state, metrics) after each batch; a state lives until the next."""
        state = mesh.replicate(self.mesh, self.before.replace(step=np.int32(number)))
        for batch in batches:
            on_device = mesh.to_global(self.mesh, batch)
            state, metrics = self.train_step(state, on_device, self.constants, 1.0)
            yield state, metrics

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
    return of(recipe, noise=0.1)


def of(recipe, *, noise: float = 0.0) -> Trainer:
    """The trainer of a recipe of one phase, with three classes and no data."""
    settings = rules.parse(recipe)
    plan = plans.assemble(settings, dataset.Dataset("none", tiny_run.CLASSES, {}))
    method = phases.method_of(plan)
    ready = phases.prepare(plan, 0, method, classification.task(plan), steps_per_epoch=10)
    weights, stats, _ = plans.initial_variables(plan)
    rng = np.random.default_rng(0)
    noisy = {
        path: leaf + rng.normal(0, noise, leaf.shape).astype(np.float32)
        for path, leaf in trees.flatten(weights).items()
    }
    before = ready.first_state(trees.unflatten(noisy), stats)
    return Trainer(jax.tree.map(np.asarray, before), ready.step, method.constants, plan.mesh)


def variables(state) -> dict[str, np.ndarray]:
    return trees.flatten(state.params) | trees.flatten(state.stats)


def batch_of(rows=6, seed=0, mask=None):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (rows, 32, 32, 3), np.uint8),
        "label": (np.arange(rows) % 3).astype(np.int32),
        "mask": np.ones(rows, np.float32) if mask is None else np.float32(mask),
        "index": np.arange(rows, dtype=np.int32),
    }
