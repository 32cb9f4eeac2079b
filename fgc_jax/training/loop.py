"""Training one phase: the loop, validation after each epoch, early stopping, checkpoints."""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fgc_jax import config, console, mesh, methods, trees
from fgc_jax.runs import checkpoint, override, stop
from fgc_jax.runs.meter import Meter
from fgc_jax.runs.progress import Progress
from fgc_jax.runs.session import Session
from fgc_jax.training import averaging, embeddings, phases, schedules, step
from fgc_jax.training.plans import Plan

STATISTICS_BATCHES = 50  # after these, running means of momentum 0.9 no longer depend on the start


@dataclasses.dataclass
class Run:
    """A run during its training."""

    plan: Plan
    method: methods.Method  # its constants are on the devices
    task: methods.Task
    session: Session
    progress: Progress

    @property
    def phase(self) -> config.Phase:
        return self.plan.settings.phases[self.progress.phase]

    @property
    def epochs(self) -> int:
        """How many epochs the phase trains. A final run may end before its schedule does."""
        return self.progress.epochs_of_phases[self.progress.phase]


def train_phase(live: Run, begin: int, variables: list | None) -> None:
    """Trains from global step `begin` to the end of the phase, and validates after each epoch.

    variables: [params, stats] at the start of a phase; the list is emptied, so that the host keeps
    no copy of the network. None: continue from the checkpoint of step `begin`.
    """
    plan, phase, progress, session = live.plan, live.phase, live.progress, live.session
    start = progress.phase_start
    ready = phases.prepare(plan, progress.phase, live.method, live.task, start=start)
    if variables is None:
        state = checkpoint.restore(session.manager, begin, ready.state_shapes())
    else:
        state = ready.first_state(*variables, begin)
        variables.clear()
    started, seconds_before = time.perf_counter(), progress.seconds
    if phase.cache_features:
        given = embeddings.inputs_of(plan, phase, state.params, state.stats)
        ready = phases.prepare(
            plan, progress.phase, live.method, live.task, start=start, given=given
        )
    validate = _validation(live, ready)
    split = plan.dataset.splits["train"]
    total = live.epochs * ready.steps_per_epoch
    done = begin - start
    meter = Meter(
        phase.name, phase.batch_size, ready.rate, start, session.writer, plan.settings.log_every
    )
    speed_before = progress.train_seconds, progress.train_images
    title = f"{phase.name} {progress.phase + 1}/{len(plan.settings.phases)}"
    if done == 0:
        _read_override(live)
    with ready.batches(done) as batches, console.progress(title, total, done) as bar:
        while not progress.finished:
            batch = next(batches)
            if done == 0 and not phase.cache_features:
                session.writer.images(begin, {f"{phase.name}_train_images": batch["image"][:8]})
            _note_bad_images(progress, split, batch["index"][batch["mask"] == 0])
            batch, scale = mesh.to_global(plan.mesh, batch), progress.lr_scale(phase.lr)
            state, values = ready.step(state, batch, live.method.constants, np.float32(scale))
            done += 1
            meter.add(start + done, values, scale)
            bar.set_postfix_str(meter.text, refresh=False)
            bar.update()
            stopping = session.stop_asked(start + done)
            epoch_ends = done % ready.steps_per_epoch == 0
            due = done % plan.settings.checkpoint_every == 0
            if not (epoch_ends or stopping or due):
                continue
            meter.flush()  # raises if the loss is not finite, before anything is saved
            val = {}
            if epoch_ends:
                state, val = validate(state)
            for values in val.values():
                meter.check(start + done, values)
            progress.train_seconds = speed_before[0] + meter.train_seconds
            progress.train_images = speed_before[1] + meter.images
            progress.seconds = seconds_before + time.perf_counter() - started
            score = _finish_epoch(live, state, val, meter.epoch_loss()) if epoch_ends else None
            checkpoint.save(session.manager, start + done, state, progress, score=score)
            meter.restart_clock()
            if stopping:
                checkpoint.finish(session.manager)
                raise stop.Stopped(f"stopped at step {start + done}")


def _validation(live: Run, ready: phases.Prepared) -> Callable:
    """The function state -> (state with this epoch in its average; metrics of the weights ("val")
    and of their average ("val_average"), or {} without a validation split)."""
    plan, phase, progress = live.plan, live.phase, live.progress
    evaluate = live.task.evaluator(ready.inputs)
    statistics = _statistics(ready) if phase.average.kind == "swa" else None

    def metrics_of(params, stats):
        found, unreadable = evaluate("val", params, stats)
        _note_bad_images(progress, plan.dataset.splits["val"], unreadable)
        return found

    def validate(state):
        if statistics is not None:
            state = _with_swa(live, ready, state, statistics)
        if "val" not in plan.dataset.splits:
            return state, {}
        val = {"val": metrics_of(state.params, state.stats)}
        if phase.average:
            val["val_average"] = val["val"]
        if phase.average and averaging.differs(phase, progress.epoch + 1):
            params = trees.merge(state.params, state.average["params"])
            val["val_average"] = metrics_of(params, state.average["stats"])
        return state, val

    return validate


def _with_swa(live: Run, ready: phases.Prepared, state: step.TrainState, statistics: Callable):
    """The state after adding this epoch's weights to the mean of SWA."""
    count = averaging.swa_count(live.phase, live.progress.epoch + 1)
    trained, _ = trees.select(state.params, ready.trained)
    mean = averaging.mean_of_weights(state.average["params"], trained, np.float32(count))
    stats = jax.tree.map(jnp.copy, state.stats)
    if count > 1:
        stats = statistics(trees.merge(state.params, mean), stats)
    return state.replace(average={"params": mean, "stats": stats})


def _statistics(ready: phases.Prepared) -> Callable:
    """The function (params, stats) -> batch-norm statistics for averaged weights, computed from
    training batches; frozen statistics do not change."""
    plan = ready.plan
    key = plan.key(ready.index, 3)
    statistics_step = step.make_statistics_step(ready, key, plan.mesh)

    def estimate(params, stats):
        scales = {f"{path.rsplit('/', 1)[0]}/scale" for path in trees.flatten(stats)}
        if not scales & ready.trained:
            return stats
        with ready.batches() as batches:
            for number in range(STATISTICS_BATCHES):
                batch = mesh.to_global(plan.mesh, next(batches))
                stats = statistics_step(params, stats, batch, number)
        return stats

    return estimate


def _finish_epoch(live: Run, state: step.TrainState, val: dict, train_loss: float) -> float | None:
    """Compares the epoch with the best one, and decides about the learning rate and early stopping.
    Returns the score of the epoch (greater is better)."""
    progress, phase, number = live.progress, live.phase, int(state.step)
    metric, chosen = phase.monitor.metric, val.get(phase.monitor.source)
    sign = -1 if live.task.monitors[metric] == "lower" else 1
    score = sign * chosen[metric] if chosen else None
    better = progress.end_epoch(number, score, chosen)
    stopping = bool(phase.patience) and bool(val) and progress.stale >= phase.patience
    if stopping or progress.epoch == live.epochs:
        progress.close_phase(phase.name, number)
    text = f"{phase.name} epoch {progress.epoch:>3}/{live.epochs}  train loss {train_loss:.4f}"
    for title, values in val.items():
        named = {f"{title}_{key}": value for key, value in values.items()}
        live.session.writer.scalars(number, named)
        title = title.replace("_", " ")
        text += "".join(f"  {title} {part}" for part in live.task.line(values))
    console.say(text + ("  best" if better else ""))
    if stopping:
        console.say(f"early stop: {phase.patience} epochs without a better {phase.monitor}")
    elif not progress.finished:
        _set_learning_rate(live, better)
    return score


def _set_learning_rate(live: Run, better: bool) -> None:
    """After an epoch: applies the schedule "plateau", and a rate set by hand."""
    progress, phase = live.progress, live.phase
    if phase.schedule == "plateau" and progress.end_plateau_epoch(
        better, **schedules.options(phase)
    ):
        console.say(f"plateau: {_rate_in_words(live)}")
    _read_override(live)


def _read_override(live: Run) -> None:
    """Applies `override.json`; a wrong file is reported and changes nothing."""
    progress, phase = live.progress, live.phase
    names = [each.name for each in live.plan.settings.phases]
    workdir = live.session.workdir
    rate = override.agreed(workdir, names, phase.name, phase.lr, progress.lr_override)
    if progress.follow(rate):
        console.say(f"{override.FILE}: {_rate_in_words(live)}")


def _rate_in_words(live: Run) -> str:
    rate = schedules.peak(live.phase) * live.progress.lr_scale(live.phase.lr)
    return f"the highest learning rate of the schedule is now {rate:g}"


def _note_bad_images(progress: Progress, split, positions) -> None:
    for position in positions:
        name = split.names[int(position)]
        if name not in progress.bad_images:
            progress.bad_images.append(name)
            console.say(f"skipped an unreadable image: {name}")
