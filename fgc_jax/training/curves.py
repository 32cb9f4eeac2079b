"""The learning rates of a plan's phases at each step, computed without training, for a plot."""

from typing import Any

import jax
import numpy as np

from fgc_jax import trees
from fgc_jax.data import pipeline
from fgc_jax.training import plans, schedules, trainable

POINTS = 1500  # points that are drawn for a phase
BAND = 4  # if a group has more rates than this, they are drawn as a band


def of_phases(plan: plans.Plan, train_images: int) -> list[dict[str, Any]]:
    """For each phase a dict with everything that is drawn: name, caption, first and last epoch, for
    each line the rates `[multipliers, points]` at `epochs` `[points]`, momenta `[points]` or None.
    """
    begin, found = 0, []
    for phase in plan.settings.phases:
        per_epoch = pipeline.steps_per_epoch(train_images, phase.batch_size)
        schedule = schedules.build(phase, per_epoch)
        total = phase.epochs * per_epoch
        steps = np.unique(np.linspace(0, total - 1, min(total, POINTS)).round().astype(np.int32))
        rate = np.asarray(jax.jit(jax.vmap(schedule.rate))(steps))
        momentum = None
        if schedule.momentum is not None:
            momentum = np.asarray(jax.jit(jax.vmap(schedule.momentum))(steps))
        found.append(
            {
                "name": phase.name,
                "caption": f"{phase.optimizer}, {phase.schedule}\n{phase.crop} px, batch "
                f"{phase.batch_size}",
                "borders": (begin, begin + phase.epochs),
                "epochs": begin + (steps + 0.5) / per_epoch,
                "rates": {label: np.outer(factors, rate) for label, factors in _lines(plan, phase)},
                "momentum": momentum,
                "constant_momentum": phase.momentum,
                "steps": total,
            }
        )
        begin += phase.epochs
    return found


def _lines(plan, phase) -> list[tuple[str, list[float]]]:
    """The lines of a phase: [(label, multipliers of the phase's rate), ...], the largest first. A
    group with more than BAND different multipliers is one line with all of them."""
    found: dict[str, dict[float, set[str]]] = {}
    for path, label in plan.labels(phase).items():
        if label.trains:
            found.setdefault(label.group, {}).setdefault(label.factor, set()).add(path)
    entries = []
    for group, factors in found.items():
        prefix = "" if group == "all" else f"{group}: "
        if len(factors) > BAND:
            paths = set().union(*factors.values())
            reach = _extent(plan.network.layers, paths)
            text = f"{reach} x {min(factors):.2g} to {max(factors):.3g}"
            entries.append((prefix + text, sorted(factors)))
            continue
        for factor, paths in factors.items():
            times = f" x {factor:.3g}" if factor != 1 else ""
            entries.append((prefix + _extent(plan.network.layers, paths) + times, [factor]))
    return sorted(entries, key=lambda entry: -max(entry[1]))


def _extent(layers, paths: set[str]) -> str:
    """The first and the last layer of some parameters, for example "layer1/0 to head"."""
    names = [
        name
        for name, prefixes in layers.items()
        if any(trees.is_under(path, prefix) for path in paths for prefix in prefixes)
    ]
    names += ["head"] * any(map(trainable.is_head, paths))
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
