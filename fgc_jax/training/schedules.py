"""Schedules: the learning rate and, if it is cycled, the momentum at each step of a phase.

A schedule is a function `(span, *, OPTIONS)`. It returns a function from the step of the phase to
the share of the learning rate, and a function from the step to the momentum, or None. Its options,
with their defaults, are the keys of a phase's `schedule_options`. Durations are texts: see `Span`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from fgc_jax import config
from fgc_jax.config import Duration
from fgc_jax.config.limits import Share, at_least, between

Curve = Callable[[jax.Array | int], jax.Array]  # step of the phase -> f32
Factor = Annotated[float, between(1e-6, 1)]  # a rate is multiplied by it
Momentum = Annotated[float, between(0, 0.9999)]
AtLeastOne = Annotated[float, at_least(1)]


UNCOUNTED = 10**9  # stands for the steps of an epoch before the images are counted


@dataclasses.dataclass(frozen=True)
class Span:
    """The steps of a phase, which convert durations to steps."""

    total: int  # steps
    per_epoch: int
    warmup: float = 0.0  # steps

    def steps(self, name: str, duration: Duration) -> float:
        """The duration in steps, not necessarily a whole number.

        Raises:
            ValueError: the duration is 0 or longer than the phase.
        """
        units = {"": 0, "step": 1, "epoch": self.per_epoch, "%": self.total / 100}
        steps = duration.number * units[duration.unit]
        if not 0 < steps <= self.total:
            epochs = f"{self.total // self.per_epoch} epochs"
            counted = f" of {self.per_epoch} steps" if self.per_epoch != UNCOUNTED else ""
            raise ValueError(
                f"{name}={duration!r} must be longer than 0 and at most as long as the "
                f"phase: {epochs}{counted}"
            )
        return steps


@dataclasses.dataclass(frozen=True)
class Schedule:
    """`rate(step)` and `momentum(step)`, f32 scalars; the step counts from the phase's start."""

    rate: Curve
    momentum: Curve | None  # None if it is constant


def constant(span: Span) -> tuple[Curve, None]:
    """The learning rate does not change."""
    return lambda step: jnp.float32(1), None


def cosine(span: Span, *, final: Share = 0.0) -> tuple[Curve, None]:
    """Half a cosine, from the full rate at the end of the warm-up to the share `final` at the end
    of the phase (SGDR without restarts, arXiv:1608.03983)."""

    def share(step):
        progress = (step - span.warmup) / max(span.total - span.warmup, 1)
        return _anneal(1.0, final, progress)

    return share, None


def one_cycle(
    span: Span,
    *,
    peak: Duration = "30 %",
    div: AtLeastOne = 25.0,
    final: AtLeastOne = 25000.0,
    momenta: tuple[()] | tuple[Momentum, Momentum] = (0.95, 0.85),
) -> tuple[Curve, Curve | None]:
    """Half a cosine from lr / div up to lr, which is reached after `peak`, then half a cosine down
    to lr / final at the last step. The momentum goes from the first of `momenta` to the second at
    the peak and back; it is constant if they are ().

    Super-convergence (arXiv:1708.07120) with fastai's cosines, at the same steps as in PyTorch.
    """
    if span.warmup:
        raise ValueError("warmup is not possible: the cycle itself begins with a rise")
    top = span.steps("peak", peak) - 1
    if top >= span.total - 1:
        raise ValueError(f"peak={peak!r} must end before the phase does")

    def cycle(start, middle, end):
        def value(step):
            rise = _anneal(start, middle, step / max(top, 1.0))
            fall = _anneal(middle, end, (step - top) / (span.total - 1 - top))
            return jnp.where(step <= top, rise, fall)

        return value

    share = cycle(1 / div, 1.0, 1 / final)
    return share, cycle(momenta[0], momenta[1], momenta[0]) if momenta else None


def step(
    span: Span, *, every: Duration = "", milestones: tuple[Duration, ...] = (), factor: Factor = 0.1
) -> tuple[Curve, None]:
    """The rate is multiplied by `factor` after each period `every`, or at each of `milestones`,
    both counted from the start of the phase."""
    if bool(every) == bool(milestones):
        raise ValueError("give either every='30 epochs' or milestones=('50 %', '75 %')")
    # Half a step more rounds to the nearest step, and makes the result robust to rounding errors.
    if every:
        length = max(span.steps("every", every), 1.0)
        return lambda step: jnp.float32(factor) ** jnp.floor((step + 0.5) / length), None
    borders = tuple(span.steps("milestones", milestone) for milestone in milestones)
    if list(borders) != sorted(set(borders)):
        raise ValueError(f"milestones={milestones!r} must be in ascending order")
    return (
        lambda step: (
            jnp.float32(factor) ** jnp.sum(step + 0.5 >= jnp.float32(borders), dtype=jnp.float32)
        ),
        None,
    )


def exponential(
    span: Span, *, factor: Factor = 0.9, every: Duration = "1 epochs"
) -> tuple[Curve, None]:
    """The rate is multiplied by `factor` in each period `every` after the warm-up, smoothly at each
    step (Counterfactual Attention Learning, arXiv:2108.08728, uses 0.9 and two epochs)."""
    length = span.steps("every", every)
    return lambda step: jnp.float32(factor) ** (jnp.maximum(step - span.warmup, 0.0) / length), None


def plateau(
    span: Span, *, factor: Factor = 0.1, patience: Annotated[int, at_least(0)] = 3
) -> tuple[Curve, None]:
    """The training loop multiplies the rate by `factor` when the phase's monitor has not improved
    for more than `patience` epochs. Here the rate is constant."""
    return constant(span)


SCHEDULES = {
    "constant": constant,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "step": step,
    "exponential": exponential,
    "plateau": plateau,
}


def options(phase: config.Phase) -> dict[str, Any]:
    """All options of a phase's schedule: those of the phase, else the defaults.

    Raises:
        ValueError: `schedule_options` has an unknown option or a wrong value.
    """
    at = f"phase {phase.name}: schedule {phase.schedule!r}: "
    return config.options(SCHEDULES[phase.schedule], phase.schedule_options, at)


def peak(phase: config.Phase) -> float:
    """The full learning rate of a phase: `lr`, or in proportion to the batch size if `lr_batch` is
    given (arXiv:1706.02677)."""
    return phase.lr * (phase.batch_size / phase.lr_batch if phase.lr_batch else 1)


def build(phase: config.Phase, steps_per_epoch: int) -> Schedule:
    """The schedule of a `config.Phase`: linear warm-up times the shape times `peak`.

    Raises:
        ValueError: an unknown option, a wrong value, or a duration that does not fit the phase.
    """
    span = Span(phase.epochs * steps_per_epoch, steps_per_epoch)
    chosen = options(phase)
    try:
        if phase.warmup:
            span = dataclasses.replace(span, warmup=span.steps("warmup", phase.warmup))
        share, momentum = SCHEDULES[phase.schedule](span, **chosen)
    except ValueError as error:
        raise ValueError(f"phase {phase.name}: schedule {phase.schedule!r}: {error}") from None
    if momentum is not None:
        low, high = sorted(chosen["momenta"])
        if not low <= phase.momentum <= high:
            raise ValueError(
                f"phase {phase.name}: momentum={phase.momentum:g} has no effect, because "
                f"{phase.schedule!r} changes it between {low:g} and {high:g}; "
                "schedule_options momenta=() keeps it constant"
            )
    full = peak(phase)

    def rate(step):
        rise = jnp.minimum((step + 1) / span.warmup, 1.0) if span.warmup else 1.0
        return jnp.float32(full) * rise * share(step)

    return Schedule(rate, momentum)


def _anneal(start: float, end: float, progress) -> jax.Array:
    """Half a cosine from start to end, while progress goes from 0 to 1."""
    # The square is precise near the end, where 1 + cos(pi) would be only a rounding error.
    share = jnp.cos(0.5 * math.pi * jnp.clip(progress, 0.0, 1.0)) ** 2
    return end + (start - end) * share
