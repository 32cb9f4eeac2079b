"""Training one phase: the loop, validation after each epoch, early stopping, checkpoints."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgc_jax import config, console, mesh, methods, trees
from fgc_jax.data import pipeline
from fgc_jax.evaluation import metrics
from fgc_jax.evaluation.views import RAW, Views
from fgc_jax.runs import checkpoint, override, stop
from fgc_jax.runs.meter import Meter
from fgc_jax.runs.progress import Progress
from fgc_jax.runs.writer import Writer
from fgc_jax.training import averaging, embeddings, experiment, optim, phases, schedules, step


@dataclasses.dataclass
class Run:
    """The open handles of a run and its progress."""

    experiment: experiment.Experiment
    method: methods.Method  # its constants lie on the devices
    config: dict  # resolved, as config.json
    workdir: Path
    manager: Any
    writer: Writer
    stop_asked: Callable[[int], bool]
    eval_step: Callable
    forward_gflops: float
    progress: Progress
    start: tuple | None  # (params, stats, where from) of a phase about to begin
    statistics_step: Callable | None = None  # of this phase, compiled when first needed
    val_inputs: tuple | None = None  # (experiment, eval_step) of this phase's validation

    @property
    def phase(self) -> config.Phase:
        return self.experiment.settings.phases[self.progress.phase]

    @property
    def epochs(self) -> int:
        """How many epochs the phase trains; a final run may end before its schedule does."""
        return self.progress.epochs_of_phases[self.progress.phase]


STATISTICS_BATCHES = 50  # after which running means of momentum 0.9 have forgotten their start


def every(step_number: int, n: int, total: int) -> bool:
    """Whether something done each n steps is due after `step_number` of `total` steps."""
    return step_number % n == 0 or step_number == total


def train_phase(live: Run, begin: int) -> None:
    """Trains from global step `begin` to the phase's end, evaluating after each epoch."""
    plan, phase, progress = live.experiment, live.phase, live.progress
    split = plan.dataset.splits["train"]
    steps_per_epoch = pipeline.steps_per_epoch(len(split), phase.batch_size)
    total = live.epochs * steps_per_epoch
    live.statistics_step = None
    groups = plan.groups(phase)
    schedule = schedules.build(phase, steps_per_epoch)
    optimizer = optim.make(phase, schedule, groups, len(live.method.losses))
    state = _state(live, optimizer, groups, begin)
    started, seconds_before = time.perf_counter(), progress.seconds
    plan = embeddings.for_phase(plan, phase, state.params, state.stats)
    live.val_inputs = plan, plan.eval_step() if phase.cache_features else live.eval_step
    train_step = phases.train_step(
        plan,
        progress.phase,
        live.method,
        groups,
        optimizer=optimizer,
        rate=schedule.rate,
        phase_start=progress.phase_start,
        average=phase.average,
    )
    done = begin - progress.phase_start
    meter = Meter(
        phase.name,
        phase.batch_size,
        schedule.rate,
        progress.phase_start,
        live.writer,
        plan.settings.log_every,
    )
    speed_before = progress.train_seconds, progress.train_images
    title = f"{phase.name} {progress.phase + 1}/{len(plan.settings.phases)}"
    if done == 0:
        _read_override(live)
    images = phases.train_batches(plan, progress.phase, done)
    with images as batches, console.progress(title, total, done) as bar:
        while not progress.finished:
            batch = next(batches)
            if done == 0 and not phase.cache_features:
                live.writer.images(begin, {f"{phase.name}_train_images": batch["image"][:8]})
            _note_bad_images(progress, split, batch["index"][batch["mask"] == 0])
            batch, scale = mesh.to_global(plan.mesh, batch), progress.lr_scale(phase.lr)
            state, values = train_step(state, batch, live.method.constants, np.float32(scale))
            done += 1
            meter.add(progress.phase_start + done, values, scale)
            bar.set_postfix_str(meter.text, refresh=False)
            bar.update()
            stopping = live.stop_asked(progress.phase_start + done)
            epoch_ends = done % steps_per_epoch == 0
            due = every(done, plan.settings.checkpoint_every, total)
            if not (epoch_ends or stopping or due):
                continue
            meter.flush()  # nothing is saved whose loss was not finite
            val = {}
            if epoch_ends:
                state = _with_swa(live, state, groups)
                val = _validate(live, state)
            for values in val.values():
                meter.check(progress.phase_start + done, values)
            progress.train_seconds = speed_before[0] + meter.train_seconds
            progress.train_images = speed_before[1] + meter.images
            progress.seconds = seconds_before + time.perf_counter() - started
            score = _finish_epoch(live, state, val, meter.epoch_loss()) if epoch_ends else None
            _save(live, state, score)
            meter.restart_clock()
            if stopping:
                checkpoint.finish(live.manager)
                raise stop.Stopped(f"stopped at step {progress.phase_start + done}")


def _with_swa(live: Run, state: step.TrainState, groups) -> step.TrainState:
    """The state with this epoch's weights in the mean of SWA, if the phase keeps one."""
    phase = live.phase
    if phase.average.kind != "swa":
        return state
    count = averaging.swa_count(phase, live.progress.epoch + 1)
    trainable, _ = trees.select(state.params, groups.keys())
    mean = averaging.mean_of_weights(state.average["params"], trainable, np.float32(count))
    stats = jax.tree.map(jnp.copy, state.stats)
    if count > 1:
        stats = _estimated_statistics(live, groups, trees.replaced(state.params, mean), stats)
    return state.replace(average={"params": mean, "stats": stats})


def _estimated_statistics(live: Run, groups, variables, stats):
    """The batch-norm statistics of averaged weights, from training batches like those that the
    weights' own come from; frozen ones stay."""
    plan, phase = live.experiment, live.phase
    if not any(f"{path.rsplit('/', 1)[0]}/scale" in groups for path in trees.flatten(stats)):
        return stats
    if live.statistics_step is None:
        live.statistics_step = step.make_statistics_step(
            graphdef=step.train_graphdef(plan.model, groups),
            preprocess=plan.augment(phase),
            key=plan.key(live.progress.phase, 3),
            device_mesh=plan.mesh,
        )
    with phases.train_batches(plan, live.progress.phase) as batches:
        for number in range(STATISTICS_BATCHES):
            batch = mesh.to_global(plan.mesh, next(batches))
            stats = live.statistics_step(variables, stats, batch, number)
    return stats


def _validate(live: Run, state: step.TrainState) -> dict[str, dict[str, float]]:
    """Metrics on the validation split of the weights ("val") and their average ("val_average")."""
    if "val" not in live.experiment.dataset.splits:
        return {}
    val = {"val": evaluate_split(live, "val", state.params, state.stats)[0]}
    if not live.phase.average:
        return val
    if averaging.differs(live.phase, live.progress.epoch + 1):
        variables = trees.replaced(state.params, state.average["params"])
        found, _ = evaluate_split(live, "val", variables, state.average["stats"])
        return {**val, "val_average": found}
    return {**val, "val_average": val["val"]}


def _finish_epoch(live: Run, state: step.TrainState, val: dict, train_loss: float) -> float | None:
    """Compares the epoch with the best one, decides on learning rate and early stopping; its score
    (greater is better)."""
    progress, phase, number = live.progress, live.phase, int(state.step)
    chosen = val.get(phase.monitor.source, {})
    score = phase.monitor.sign * chosen[phase.monitor.metric] if chosen else None
    better = progress.end_epoch(number, score, chosen)
    stopping = bool(phase.patience) and bool(val) and progress.stale >= phase.patience
    if stopping or progress.epoch == live.epochs:
        progress.close_phase(phase.name, number)
    text = f"{phase.name} epoch {progress.epoch:>3}/{live.epochs}  train loss {train_loss:.4f}"
    for title, values in val.items():
        live.writer.scalars(number, {f"{title}_{key}": value for key, value in values.items()})
        title = title.replace("_", " ")
        text += f"  {title} loss {values['loss']:.4f}  {title} top-1 {values['top1']:.2f} %"
    console.say(text + ("  best" if better else ""))
    if stopping:
        console.say(f"stopping early: {phase.patience} epochs without a better {phase.monitor}")
    elif not progress.finished:
        _set_learning_rate(live, better)
    return score


def _set_learning_rate(live: Run, better: bool) -> None:
    """After an epoch: the schedule "plateau", and what was set by hand."""
    progress, phase = live.progress, live.phase
    if phase.schedule == "plateau" and progress.end_plateau_epoch(
        better, **schedules.options(phase)
    ):
        console.say(f"plateau: {_rate_in_words(live)}")
    _read_override(live)


def _read_override(live: Run) -> None:
    """Follows `override.json`; a wrong one is reported and changes nothing."""
    progress, phase = live.progress, live.phase
    names = [each.name for each in live.experiment.settings.phases]
    rate = progress.lr_override
    if jax.process_index() == 0:
        try:
            rate = override.read(live.workdir, names, phase.name, phase.lr)
        except ValueError as error:
            console.say(f"not followed: {error}")
    # Read by one process, or others might see the file just before or after it is edited.
    rate = mesh.of_first_process(math.nan if rate is None else rate)
    rate = None if math.isnan(rate) else rate
    if progress.follow(rate):
        console.say(f"{override.FILE}: {_rate_in_words(live)}")


def _rate_in_words(live: Run) -> str:
    rate = schedules.peak(live.phase) * live.progress.lr_scale(live.phase.lr)
    return f"the schedule's learning rate is now {rate:g} at its highest"


def evaluate_split(
    live: Run, split_name: str, variables, stats, seen: Views | None = None
) -> tuple[dict, metrics.Results]:
    """Metrics and per-image results of the variables on one split, at the phase's image size.

    seen: the views of a test; None where the phase validates, which it does with raw images.
    """
    plan, eval_step = live.val_inputs if seen is None else (live.experiment, live.eval_step)
    if seen is not None and not (seen.is_raw and seen.logits == "plain"):
        eval_step = plan.eval_step(seen)
    split = plan.dataset.splits[split_name]
    with plan.eval_batches(split, live.phase, seen or RAW) as batches:
        results = metrics.run(eval_step, variables, stats, batches, plan.mesh, len(split))
    if split_name != "test":
        _note_bad_images(live.progress, split, results.unreadable)
    return metrics.summarise(results, plan.num_classes), results


def _state(live: Run, optimizer, groups, begin: int) -> step.TrainState:
    """The state to train from: newly built from `live.start`, or the checkpoint of `begin`."""
    plan, average = live.experiment, live.phase.average
    if live.start is not None:
        variables, stats, _ = live.start
        live.start = None  # a copy of the network less in memory
        return phases.first_state(
            plan, live.method, groups, optimizer, variables, stats, begin=begin, average=average
        )
    trainable, _ = trees.select(plan.params, groups.keys())
    shapes = step.TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        params=plan.params,
        stats=plan.stats,
        opt_state=jax.eval_shape(optimizer.init, trainable),
        average=averaging.start(average, trainable, plan.stats),
        method=live.method.state,
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


def _note_bad_images(progress: Progress, split, positions) -> None:
    for position in positions:
        name = split.names[int(position)]
        if name not in progress.bad_images:
            progress.bad_images.append(name)
            console.say(f"skipped an unreadable image: {name}")
