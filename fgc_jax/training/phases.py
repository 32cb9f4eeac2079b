"""Preparing a phase for training: its compiled step, its first state, its batches."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgc_jax import mesh, methods, trees
from fgc_jax.data import pipeline
from fgc_jax.models import network as networks
from fgc_jax.training import averaging, classification, inputs, optim, restored, schedules, step
from fgc_jax.training.plans import Plan, check_crop
from fgc_jax.training.trainable import trained_paths


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared(step.Setup):
    """A phase that is ready to train."""

    plan: Plan
    index: int
    method: methods.Method
    task: methods.Task
    steps_per_epoch: int

    @property
    def trained(self) -> set[str]:
        """The paths of the trained parameters."""
        return trained_paths(self.labels)

    def first_state(self, params: Any, stats: Any, begin: int = 0) -> step.TrainState:
        """The first state of the phase, at global step `begin`, on the devices. It also works under
        jax.eval_shape."""
        trained, _ = trees.select(params, self.trained)
        state = step.TrainState(
            step=jnp.int32(begin),
            params=params,
            stats=stats,
            opt_state=self.optimizer.init(trained),
            # Copies: a step donates each buffer, which is possible only once.
            average=jax.tree.map(jnp.copy, averaging.start(self.phase.average, trained, stats)),
            method=self.method.state,
        )
        return mesh.replicate(self.plan.mesh, state)

    def state_shapes(self) -> step.TrainState:
        """The shapes and shardings of the state, for restoring a checkpoint."""
        network, sharding = self.plan.network, mesh.replicated(self.plan.mesh)
        shapes = jax.eval_shape(self.first_state, network.params, network.stats)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
        )

    def batches(self, start_step: int = 0) -> pipeline.Batches:
        """The endless batches of training images, from step `start_step` of the phase on."""
        settings, phase, given = self.plan.settings, self.phase, self.inputs
        # Each phase has its own shuffle. The seed must be below 2**31.
        seed = int(np.random.SeedSequence((settings.seed, self.index)).generate_state(1)[0]) // 2
        return pipeline.train_batches(
            given.splits["train"],
            given.transform,
            inputs.reader(settings.data),
            batch_size=phase.batch_size,
            seed=seed,
            order=inputs.order(settings, self.plan.dataset, phase, seed),
            start_step=start_step,
        )

    @functools.cached_property
    def step(self) -> Callable:
        """The train step, see `step.make_train_step`; compiled when it is first called."""
        return step.make_train_step(self, self.method, self.task, self.plan.mesh)


def prepare(
    plan: Plan,
    index: int,
    method: methods.Method,
    task: methods.Task,
    *,
    start: int = 0,
    given: inputs.Inputs | None = None,
    steps_per_epoch: int | None = None,
) -> Prepared:
    """Prepares phase `index` of a plan, which begins at global step `start`.

    given: its inputs, by default images. steps_per_epoch: by default that of the train split.
    """
    settings, phase = plan.settings, plan.settings.phases[index]
    if given is None:
        given = inputs.of(settings, plan.dataset, plan.network, phase)
    if steps_per_epoch is None:
        images = len(plan.dataset.splits["train"])
        steps_per_epoch = pipeline.steps_per_epoch(images, phase.batch_size)
    schedule, labels = schedules.build(phase, steps_per_epoch), plan.labels(phase)
    return Prepared(
        plan=plan,
        index=index,
        method=method,
        task=task,
        steps_per_epoch=steps_per_epoch,
        phase=phase,
        inputs=given,
        labels=labels,
        optimizer=optim.make(phase, schedule, labels, len(method.losses)),
        rate=schedule.rate,
        start=start,
        key=plan.key(index, 2),
    )


def method_of(plan: Plan) -> methods.Method:
    """The plan's training method, with its constants on the devices.

    Raises:
        ValueError: an unknown option of the method, or a value that it does not allow.
    """
    settings = plan.settings

    def load_checked(workdir):
        run = restored.load_run(workdir)
        for phase in settings.phases:
            check_crop(run.plan.network, phase)
        return run

    train = plan.dataset.splits.get("train")
    counts = () if train is None else np.bincount(train.labels, minlength=plan.num_classes)
    facts = methods.Facts(
        class_names=plan.dataset.class_names,
        class_counts=tuple(int(count) for count in counts),
        preprocess=plan.network.preprocess,
        shapes=tuple(_shapes(plan, phase.crop) for phase in settings.phases),
        load_run=load_checked,
    )
    method = methods.build(settings.method, settings.method_options, facts)
    constants = mesh.replicate(plan.mesh, method.constants)
    return dataclasses.replace(method, constants=constants)


def task_of(plan: Plan) -> methods.Task:
    """How the plan's network is measured. So far every plan trains a classifier."""
    return classification.task(plan)


def _shapes(plan: Plan, crop: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the classifier's `out` for one image, and of the "image" itself."""
    maps = networks.map_shapes(plan.network, crop)
    return {name: leaf.shape[1:] for name, leaf in maps.items()} | {"image": (crop, crop, 3)}
