"""The learning rate range test (Smith, arXiv:1506.01186): a short training of a copy of the state
in which the rate grows with each step, and the rates that its loss suggests.

The loss is smoothed by an exponential mean, applied forwards and then backwards. fastai's mean
(forwards only, with a memory of 50 steps) still falls long after the loss has begun to rise: for
the phases of the quickstart its "steepest" was at the minimum of the loss, close to divergence.
"""

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgc_jax import config, console, files, mesh, methods
from fgc_jax.plots import lr_finder as plots
from fgc_jax.plots import style
from fgc_jax.runs import checkpoint
from fgc_jax.training import phases, plans, restored

MEMORY = 0.05  # memory of the exponential mean, as a share of the steps
CAP = 1.2  # times the loss at the start: larger losses are set to this
DIVERGED = 4.0  # times the best loss so far, smoothed forwards: the sweep ends
LEAST_STEPS = 10


@dataclasses.dataclass(frozen=True)
class Curve:
    """A finished sweep: float64 [N] for the N steps with a finite loss."""

    phase: str
    rates: np.ndarray  # values for the phase's `lr`
    losses: np.ndarray
    smoothed: np.ndarray
    end: str  # why it ended


def growing(lowest: float, highest: float, steps: int) -> np.ndarray:
    """Learning rates f64 [steps] that grow exponentially from lowest to highest. Raises ValueError
    unless 0 < lowest < highest and there are at least LEAST_STEPS steps."""
    if not 0 < lowest < highest < math.inf:
        raise ValueError(
            f"lowest={lowest:g} and highest={highest:g}: 0 < lowest < highest is required"
        )
    if steps < LEAST_STEPS:
        raise ValueError(f"steps={steps} must be at least {LEAST_STEPS}")
    return lowest * (highest / lowest) ** (np.arange(steps) / (steps - 1))


def start(
    plan: plans.Plan, index: int, method: methods.Method, workdir: Path | None
) -> tuple[Any, Any, methods.Method, str]:
    """(params, stats, the method with its state, a text about their source) at the start of phase
    `index`, after its re-initialisation.

    Without a `workdir` these are the initial weights and the `method` as given. With one, they are
    from the checkpoint of that run from which its phase `index` starts.

    Raises:
        ValueError: the run has not reached this phase, or its parameters do not fit `plan`.
    """
    if index == 0 or workdir is None:
        params, stats, _ = plans.initial_variables(plan)
        params, stats = plans.reinitialised(plan, index, params, stats)
        return params, stats, method, "the initial weights"
    number = _step_before(plan, index, workdir)
    params, stats, state = restored.load_start(plan, index, workdir, number)
    return params, stats, dataclasses.replace(method, state=state), f"step {number} of {workdir}"


def sweep(
    plan: plans.Plan,
    index: int,
    method: methods.Method,
    task: methods.Task,
    variables: tuple[Any, Any],
    rates: np.ndarray,
) -> Curve:
    """Trains phase `index` with one step at each of `rates` [N], from a copy of the variables
    (params, stats).

    The step is that of the phase, with its groups, accumulation and SAM; only the learning rate is
    replaced by `rates`, which are values for `lr`. The sweep ends early when the loss is not
    finite, or when the smoothed loss is more than four times its best value.
    """
    settings = plan.settings
    params, stats = variables
    steps = len(rates)
    level = dataclasses.replace(
        settings.phases[index],
        lr=1.0, schedule="constant", schedule_options={}, warmup=config.Duration(""),
        average=config.NO_AVERAGE,
    )  # fmt: skip
    levels = (*settings.phases[:index], level, *settings.phases[index + 1 :])
    plan = dataclasses.replace(plan, settings=dataclasses.replace(settings, phases=levels))
    ready = phases.prepare(plan, index, method, task, steps_per_epoch=steps)
    state = ready.first_state(params, stats)
    keep = math.exp(-1 / (MEMORY * steps))
    losses, best, end = [], math.inf, "all steps are done"
    with ready.batches() as batches, console.progress(f"sweeping {level.name}", steps) as bar:
        for rate in rates:
            batch = mesh.to_global(plan.mesh, next(batches))
            state, metrics = ready.step(state, batch, method.constants, np.float32(rate))
            loss = float(metrics["loss"])
            if not math.isfinite(loss):
                end = f"the loss was {loss} at {rate:.2g}"
                break
            losses.append(loss)
            newest = exponential_mean(losses, keep)[-1]
            bar.set_postfix_str(f"lr {rate:.1e}, loss {newest:.3f}", refresh=False)
            bar.update()
            if newest > DIVERGED * best:
                end = f"the loss was {DIVERGED:g} times its best at {rate:.2g}"
                break
            best = min(best, newest)
    if not losses:
        raise ValueError(f"phase {level.name}: the loss is not finite before the first step")
    smoothed = smooth(losses, keep)
    if len(losses) == steps and np.argmin(smoothed) == steps - 1:
        end += ", but the loss still falls: raise the highest rate"
    return Curve(level.name, rates[: len(losses)], np.array(losses), smoothed, end)


def exponential_mean(losses: Sequence[float], keep: float) -> np.ndarray:
    """mean <- keep * mean + (1 - keep) * loss, corrected for its start at 0; float64 [N]."""
    mean, means = 0.0, []
    for number, loss in enumerate(losses, start=1):
        mean = keep * mean + (1 - keep) * loss
        means.append(mean / (1 - keep**number))
    return np.array(means)


def smooth(losses: Sequence[float], keep: float) -> np.ndarray:
    """The exponential mean in both directions, so that it has no delay; float64 [N].

    Losses are limited to CAP times those of the first tenth of the sweep: otherwise the mean
    backwards would spread the large last losses over the minimum.
    """
    losses = np.asarray(losses, np.float64)
    losses = np.minimum(losses, CAP * np.median(losses[: len(losses) // 10 + 1]))
    return exponential_mean(exponential_mean(losses, keep)[::-1], keep)[::-1]


def suggestions(curve: Curve) -> dict[str, float]:
    """The learning rates that the curve suggests, by name; {} if the loss never falls.

    "minimum": where the smoothed loss is lowest; "steepest": where it falls fastest over the
    logarithm of the rate; "minimum / 10": a tenth of the first.
    """
    smoothed, rates = curve.smoothed, curve.rates
    lowest = int(np.argmin(smoothed))
    if lowest < 2:
        return {}
    slopes = np.gradient(smoothed[: lowest + 1], np.log(rates[: lowest + 1]))
    best, steepest = float(rates[lowest]), float(rates[np.argmin(slopes)])
    return {"minimum": best, "steepest": steepest, "minimum / 10": best / 10}


def write(curve: Curve, folder: Path, title: str) -> tuple[Path, Path]:
    """Writes `lr_PHASE.png` and `lr_PHASE.csv` and returns their paths."""
    png, table = folder / f"lr_{curve.phase}.png", folder / f"lr_{curve.phase}.csv"
    style.save(plots.figure(curve, suggestions(curve), title), png)
    with files.whole(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "learning_rate", "loss", "smoothed_loss"))
        rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
        writer.writerows((number, *map(float, row)) for number, row in enumerate(rows))
    return png, table


def _step_before(plan: plans.Plan, index: int, workdir: Path) -> int:
    """The step of the checkpoint of the run from which phase `index` starts."""
    newest = checkpoint.find_step(workdir, "last")
    progress = checkpoint.load_progress(workdir, newest)
    finished, best = progress.history, plan.settings.phases[index].start_from == "best"
    if len(finished) >= index:
        if best:
            return finished[index - 1].best.step
        steps = sum(entry.steps for entry in finished[:index])
        return checkpoint.find_step(workdir, str(steps))
    if progress.phase == index - 1 and (progress.best or not best):  # not at its end yet
        return progress.best.step if best else newest
    raise ValueError(
        f"{workdir}: phase {plan.settings.phases[index].name!r} starts from the phase "
        f"before it, which this run has not trained yet"
    )
