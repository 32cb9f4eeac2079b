"""The learning rate range test (Smith, arXiv:1506.01186): a short training of a copy of the state
in which the rate grows from step to step, and what its loss says about the rate to choose.

The smoothed loss is an exponential mean run over the sweep forwards and then backwards. fastai's,
forwards only and with a memory of 50 steps, falls on long after the loss itself has turned: it put
"steepest" of the quickstart's phases at the bottom of the valley, close to divergence.
"""

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from fgc_jax import config, console, mesh, methods, trees
from fgc_jax.plots import style
from fgc_jax.runs import checkpoint
from fgc_jax.training import experiment, optim, phases, restored, schedules

MEMORY = 0.05  # of the exponential mean, as a share of the sweep's steps
CAP = 1.2  # times the loss at the start: what is worse than that all counts alike
DIVERGED = 4.0  # times the best loss so far, smoothed forwards
LEAST_STEPS = 10
DPI = 150


@dataclasses.dataclass(frozen=True)
class Curve:
    """A finished sweep: float64 [N] each, of the steps whose loss was finite."""

    phase: str
    rates: np.ndarray  # as the phase's `lr` states them
    losses: np.ndarray
    smoothed: np.ndarray
    end: str  # why it ended


def check(lowest: float, highest: float, steps: int) -> None:
    """Raises ValueError unless 0 < lowest < highest and there are enough steps."""
    if not 0 < lowest < highest < math.inf:
        raise ValueError(
            f"--lowest={lowest:g} and --highest={highest:g}: 0 < lowest < highest must hold"
        )
    if steps < LEAST_STEPS:
        raise ValueError(f"--steps={steps} must be at least {LEAST_STEPS}")


def chosen_phases(settings: config.Settings, name: str) -> list[int]:
    """The number of the phase of that name; of all phases for "". Raises ValueError."""
    names = [phase.name for phase in settings.phases]
    if name not in ("", *names):
        raise ValueError(f"--phase={name!r} is unknown; {console.choices(name, names)}")
    return [index for index, each in enumerate(names) if name in ("", each)]


def start(plan: experiment.Experiment, index: int, workdir: Path | None) -> tuple[Any, Any, str]:
    """(params, stats, where from) that phase `index` begins with, what it re-initialises included.

    Without a `workdir` these are the run's initial weights. With one, the checkpoint of that run
    which its phase `index` continues.

    Raises:
        ValueError: the run has not got so far, or its parameters are not those of `plan`.
    """
    if index == 0 or workdir is None:
        variables, stats, _ = experiment.initial_variables(plan)
        source = "the initial weights"
    else:
        number = _step_before(plan, index, workdir)
        variables, stats, _ = checkpoint.load_variables(workdir, number)
        for expected, found in ((plan.params, variables), (plan.stats, stats)):
            restored.check_fit(trees.flatten(expected), trees.flatten(found), number)
        source = f"step {number} of {workdir}"
    if plan.settings.phases[index].reinit:
        variables, stats = experiment.reinitialised(plan, index, variables, stats)
    return variables, stats, source


def sweep(
    plan: experiment.Experiment,
    index: int,
    method: methods.Method,
    variables: Any,
    stats: Any,
    *,
    lowest: float,
    highest: float,
    steps: int,
) -> Curve:
    """Trains phase `index` for up to `steps` steps from a copy of the given variables.

    The step is the phase's own - groups with their multipliers, accumulation, SAM - except that
    the learning rate grows exponentially from `lowest` to `highest`, both as `lr` states them.
    It ends early when the smoothed loss is more than four times its best, or is not finite.
    """
    phase = plan.settings.phases[index]
    rates = lowest * (highest / lowest) ** (np.arange(steps) / (steps - 1))
    level = dataclasses.replace(
        phase, lr=1.0, schedule="constant", schedule_options={}, warmup=config.Duration("")
    )
    schedule = schedules.build(level, steps_per_epoch=steps)
    groups = plan.groups(phase)
    optimizer = optim.make(level, schedule, groups, len(method.losses))
    train_step = phases.train_step(
        plan,
        index,
        method,
        groups,
        optimizer=optimizer,
        rate=lambda done: schedule.rate(done) * jnp.float32(rates)[done],
    )
    state = phases.first_state(plan, method, groups, optimizer, variables, stats)
    keep = math.exp(-1 / (MEMORY * steps))
    losses, best, end = [], math.inf, "all steps were taken"
    with (
        phases.train_batches(plan, index) as batches,
        console.progress(f"sweeping {phase.name}", steps) as bar,
    ):
        for rate in rates:
            batch = mesh.to_global(plan.mesh, next(batches))
            state, metrics = train_step(state, batch, method.constants, np.float32(1))
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
        raise ValueError(f"phase {phase.name}: the loss is not finite before the first step")
    smoothed = smooth(losses, keep)
    if len(losses) == steps and np.argmin(smoothed) == steps - 1:
        end += ", the loss still falling: raise --highest"
    return Curve(phase.name, rates[: len(losses)], np.array(losses), smoothed, end)


def exponential_mean(losses: Sequence[float], keep: float) -> np.ndarray:
    """mean <- keep mean + (1 - keep) loss, corrected for its start at 0; float64 [N]."""
    mean, means = 0.0, []
    for number, loss in enumerate(losses, start=1):
        mean = keep * mean + (1 - keep) * loss
        means.append(mean / (1 - keep**number))
    return np.array(means)


def smooth(losses: Sequence[float], keep: float) -> np.ndarray:
    """The exponential mean in both directions, so that it lags in none; float64 [N].

    Losses are cut off at CAP times those of the sweep's first tenth: backwards, the last ones
    before the end would drown the valley.
    """
    losses = np.asarray(losses, np.float64)
    losses = np.minimum(losses, CAP * np.median(losses[: len(losses) // 10 + 1]))
    return exponential_mean(exponential_mean(losses, keep)[::-1], keep)[::-1]


def suggestions(curve: Curve) -> dict[str, float]:
    """Learning rates that the curve suggests, by name; {} where the loss never falls.

    "minimum": where the smoothed loss is lowest, "steepest": where it falls fastest by the
    logarithm of the rate, "minimum / 10": a tenth of the first.
    """
    smoothed, rates = curve.smoothed, curve.rates
    lowest = int(np.argmin(smoothed))
    if lowest < 2:
        return {}
    slopes = np.gradient(smoothed[: lowest + 1], np.log(rates[: lowest + 1]))
    best, steepest = float(rates[lowest]), float(rates[np.argmin(slopes)])
    return {"minimum": best, "steepest": steepest, "minimum / 10": best / 10}


def figure(curve: Curve, title: str) -> Figure:
    """Both losses over the learning rate, the suggestions marked."""
    picture = Figure((7.5, 4.5), dpi=DPI)
    axes = picture.add_subplot()
    axes.plot(curve.rates, curve.losses, color="#9fb0c0", linewidth=1, label="loss")
    axes.plot(curve.rates, curve.smoothed, color=style.INK, linewidth=1.8, label="smoothed")
    colours = (style.HIT, "#0969da", style.ERROR)
    for (name, rate), color in zip(suggestions(curve).items(), colours, strict=False):
        height = np.interp(math.log(rate), np.log(curve.rates), curve.smoothed)
        axes.plot(rate, height, "o", color=color, label=f"{name}: {rate:.2g}", zorder=3)
        axes.axvline(rate, color=color, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    # The last steps of a sweep lie orders of magnitude above all that matters.
    low, high = float(curve.losses.min()), float(curve.smoothed.max())
    margin = 0.1 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("learning rate", color=style.INK)
    axes.set_ylabel("training loss", color=style.INK)
    axes.set_title(title, fontsize=11, color=style.INK, loc="left", parse_math=False)
    axes.legend(frameon=False, fontsize=9)
    axes.grid(color="#eaeef2")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return picture


def write(curve: Curve, folder: Path, title: str) -> tuple[Path, Path]:
    """Writes `lr_PHASE.png` and `lr_PHASE.csv` and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    png, table = folder / f"lr_{curve.phase}.png", folder / f"lr_{curve.phase}.csv"
    style.save(figure(curve, title), png)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "learning_rate", "loss", "smoothed_loss"))
        rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
        writer.writerows((number, *map(float, row)) for number, row in enumerate(rows))
    return png, table


def _step_before(plan: experiment.Experiment, index: int, workdir: Path) -> int:
    """The step of the run's checkpoint that phase `index` starts from."""
    newest = checkpoint.find_step(workdir, "last")
    meta = checkpoint.load_meta(workdir, newest)
    finished, best = meta["history"], plan.settings.phases[index].start_from == "best"
    if len(finished) >= index:
        if best:
            return finished[index - 1]["best"]["step"]
        steps = sum(entry["steps"] for entry in finished[:index])
        return checkpoint.find_step(workdir, str(steps))
    if meta["phase"] == index - 1 and (meta["best"] or not best):  # not at its end yet
        return meta["best"]["step"] if best else newest
    raise ValueError(
        f"--from={workdir}: phase {plan.settings.phases[index].name!r} starts from the phase "
        f"before it, which that run has not trained yet"
    )
