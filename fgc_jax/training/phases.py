"""What training a phase starts with: its compiled step, its first state, its batches."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fgc_jax import config, mesh, methods, trees
from fgc_jax.data import pipeline
from fgc_jax.training import averaging, experiment, step


def train_step(
    plan: experiment.Experiment,
    index: int,
    method: methods.Method,
    groups: Mapping[str, tuple[str, float]],
    *,
    optimizer: optax.GradientTransformation,
    rate: Callable,
    phase_start: int = 0,
    average: config.Average = config.NO_AVERAGE,
) -> Callable:
    """The compiled step of phase `index`; see `step.make_train_step`."""
    phase = plan.settings.phases[index]
    return step.make_train_step(
        graphdef=step.train_graphdef(plan.model, groups),
        method=method,
        optimizer=optimizer,
        rate=rate,
        phase_start=phase_start,
        trained=groups.keys(),
        preprocess=plan.augment(phase),
        key=plan.key(index, 2),
        device_mesh=plan.mesh,
        accumulate=phase.accumulate,
        sam_rho=phase.sam_rho,
        average=average,
    )


def first_state(
    plan: experiment.Experiment,
    method: methods.Method,
    groups: Mapping[str, tuple[str, float]],
    optimizer: optax.GradientTransformation,
    variables: Any,
    stats: Any,
    *,
    begin: int = 0,
    average: config.Average = config.NO_AVERAGE,
) -> step.TrainState:
    """The state that a phase starts with at global step `begin`, on the devices."""
    trainable, _ = trees.select(variables, groups.keys())
    state = step.TrainState(
        step=jnp.int32(begin),
        params=variables,
        stats=stats,
        opt_state=optimizer.init(trainable),
        # Copies: a step gives each buffer away once.
        average=jax.tree.map(jnp.copy, averaging.start(average, trainable, stats)),
        method=method.state,
    )
    return mesh.replicate(plan.mesh, state)


def train_batches(plan: experiment.Experiment, index: int, start_step: int = 0) -> pipeline.Batches:
    """The batches of training images of phase `index` from its step `start_step` on, endless."""
    settings, phase = plan.settings, plan.settings.phases[index]
    seed = _data_seed(settings.seed, index)
    return pipeline.train_batches(
        plan.dataset.splits["train"],
        plan.transform(phase, train=True),
        batch_size=phase.batch_size,
        seed=seed,
        order=plan.order(phase, seed),
        start_step=start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=settings.data.threads,
        workers=settings.data.workers,
        on_bad_image=settings.data.on_bad_image,
    )


def _data_seed(seed: int, phase: int) -> int:
    """Each phase shuffles anew; below 2**31, whatever the run's seed."""
    return int(np.random.SeedSequence((seed, phase)).generate_state(1)[0]) // 2
