"""Training one phase: the loop, validation after each epoch, early stopping, checkpoints."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgc_jax import (
    checkpoint,
    config,
    evaluate,
    experiment,
    logs,
    mesh,
    methods,
    optim,
    params,
    schedules,
    step,
    stop,
)
from fgc_jax.data import pipeline
from fgc_jax.meter import Meter
from fgc_jax.progress import Progress


@dataclasses.dataclass
class Run:
    """The open handles of a run and its progress."""

    experiment: experiment.Experiment
    method: methods.Method  # its constants lie on the devices
    config: dict  # resolved, as config.json
    workdir: Path
    manager: Any
    writer: logs.Writer
    stop_asked: Callable[[int], bool]
    eval_step: Callable
    forward_gflops: float
    progress: Progress
    start: tuple | None  # (params, stats, where from) of a phase about to begin

    @property
    def phase(self) -> config.Phase:
        return self.experiment.settings.phases[self.progress.phase]


def every(step_number: int, n: int, total: int) -> bool:
    """Whether something done each n steps is due after `step_number` of `total` steps."""
    return step_number % n == 0 or step_number == total


def train_phase(live: Run, begin: int) -> None:
    """Trains from global step `begin` to the phase's end, evaluating after each epoch."""
    plan, phase, progress = live.experiment, live.phase, live.progress
    split = plan.dataset.splits["train"]
    steps_per_epoch = pipeline.steps_per_epoch(len(split), phase.batch_size)
    total = phase.epochs * steps_per_epoch
    groups = plan.groups(phase)
    schedule = schedules.build(phase, steps_per_epoch)
    optimizer = optim.make(phase, schedule, groups)
    state = _state(live, optimizer, groups, begin)
    train_step = step.make_train_step(
        graphdef=step.train_graphdef(plan.model, groups),
        loss=live.method.loss,
        optimizer=optimizer,
        rate=schedule.rate,
        phase_start=progress.phase_start,
        trained=groups.keys(),
        preprocess=plan.augment(phase),
        key=plan.key(progress.phase, 2),
        device_mesh=plan.mesh,
    )
    settings = plan.settings
    batches = pipeline.train_batches(
        split,
        plan.transform(phase, train=True),
        batch_size=phase.batch_size,
        seed=_data_seed(settings.seed, progress.phase),
        start_step=begin - progress.phase_start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=settings.data.threads,
        workers=settings.data.workers,
        on_bad_image=settings.data.on_bad_image,
    )
    done = begin - progress.phase_start
    meter = Meter(
        phase.name,
        phase.batch_size,
        schedule.rate,
        progress.phase_start,
        live.writer,
        settings.log_every,
    )
    started, seconds_before = time.perf_counter(), progress.seconds
    speed_before = progress.train_seconds, progress.train_images
    title = f"{phase.name} {progress.phase + 1}/{len(settings.phases)}"
    with batches, logs.progress(title, total, done) as bar:
        while not progress.finished:
            batch = next(batches)
            if done == 0:
                live.writer.images(begin, {f"{phase.name}_train_images": batch["image"][:8]})
            _note_bad_images(progress, split, batch["index"][batch["mask"] == 0])
            on_device = mesh.to_global(plan.mesh, batch)
            state, metrics = train_step(state, on_device, live.method.constants, 1.0)
            done += 1
            meter.add(progress.phase_start + done, metrics)
            bar.set_postfix_str(meter.text, refresh=False)
            bar.update()
            stopping = live.stop_asked(progress.phase_start + done)
            epoch_ends = done % steps_per_epoch == 0
            if not (epoch_ends or stopping or every(done, settings.checkpoint_every, total)):
                continue
            meter.flush()  # nothing is saved whose loss was not finite
            val = evaluate_split(live, "val", state.params, state.stats)[0] if epoch_ends else None
            meter.check(progress.phase_start + done, val or {})
            progress.train_seconds = speed_before[0] + meter.train_seconds
            progress.train_images = speed_before[1] + meter.images
            progress.seconds = seconds_before + time.perf_counter() - started
            if epoch_ends:
                _finish_epoch(live, state, val, meter.epoch_loss())
            else:
                _save(live, state)
            meter.restart_clock()
            if stopping:
                checkpoint.finish(live.manager)
                raise stop.Stopped(f"stopped at step {progress.phase_start + done}")


def _finish_epoch(live: Run, state: step.TrainState, val: dict, train_loss: float) -> None:
    """Compares the epoch with the best one, decides on early stopping, saves."""
    progress, phase = live.progress, live.phase
    number = int(state.step)
    score = -val["loss"] if phase.monitor == "val_loss" else val["top1"]
    better = progress.end_epoch(number, score, val)
    stopping = bool(phase.patience) and progress.stale >= phase.patience
    if stopping or progress.epoch == phase.epochs:
        progress.close_phase(phase.name, number)
    live.writer.scalars(number, {f"val_{name}": value for name, value in val.items()})
    logs.say(
        f"{phase.name} epoch {progress.epoch:>3}/{phase.epochs}  train loss {train_loss:.4f}  "
        f"val loss {val['loss']:.4f}  val top-1 {val['top1']:.2f} %" + ("  best" if better else "")
    )
    if stopping:
        logs.say(f"stopping early: {phase.patience} epochs without a better {phase.monitor}")
    _save(live, state, score)


def evaluate_split(live: Run, split_name: str, variables, stats) -> tuple[dict, evaluate.Results]:
    """Metrics and per-image results of the variables on one split, at the phase's image size."""
    plan = live.experiment
    split = plan.dataset.splits[split_name]
    with plan.eval_batches(split, live.phase) as batches:
        results = evaluate.run(live.eval_step, variables, stats, batches, plan.mesh, len(split))
    if split_name != "test":
        _note_bad_images(live.progress, split, results.unreadable)
    return evaluate.summarise(results, plan.num_classes), results


def _state(live: Run, optimizer, groups, begin: int) -> step.TrainState:
    """The state to train from: newly built from `live.start`, or the checkpoint of `begin`."""
    plan = live.experiment
    if live.start is not None:
        variables, stats, _ = live.start
        live.start = None  # a copy of the network less in memory
        trainable, _ = params.select(variables, groups.keys())
        moments = optimizer.init(trainable)
        state = step.TrainState(jnp.int32(begin), variables, stats, moments, live.method.state)
        return mesh.replicate(plan.mesh, state)
    trainable, _ = params.select(plan.params, groups.keys())
    shapes = step.TrainState(
        jax.ShapeDtypeStruct((), jnp.int32),
        plan.params,
        plan.stats,
        jax.eval_shape(optimizer.init, trainable),
        live.method.state,
    )
    sharding = mesh.replicated(plan.mesh)
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )
    return checkpoint.restore(live.manager, begin, target)


def _save(live: Run, state: step.TrainState, score: float | None = None) -> None:
    checkpoint.save(
        live.manager,
        int(state.step),
        state,
        dataclasses.asdict(live.progress),
        phase=live.progress.phase,
        score=score,
    )


def _data_seed(seed: int, phase: int) -> int:
    """Each phase shuffles anew; below 2**31, whatever the run's seed."""
    return int(np.random.SeedSequence((seed, phase)).generate_state(1)[0]) // 2


def _note_bad_images(progress: Progress, split, positions) -> None:
    for position in positions:
        name = split.names[int(position)]
        if name not in progress.bad_images:
            progress.bad_images.append(name)
            logs.say(f"skipped an unreadable image: {name}")
