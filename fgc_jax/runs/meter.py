"""Reads a phase's step metrics one step late, so that the device never waits for the host."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping

from fgc_jax.runs.writer import Writer


class NonFiniteLoss(RuntimeError):
    """Loss, gradient, weights or validation loss became NaN or infinite. The last checkpoint was
    saved before that."""


@dataclasses.dataclass
class Meter:
    """Logs metrics, measures speed, and stops a run whose loss is not finite.

    rate: step of the phase -> learning rate. `train_seconds` and `images` count train steps only:
    `restart_clock` leaves out compilation, validation and saving.
    """

    phase: str
    batch_size: int
    rate: Callable
    phase_start: int
    writer: Writer
    log_every: int
    text: str = ""
    train_seconds: float = 0.0
    images: int = 0
    _pending: tuple | None = None
    _losses: list[float] = dataclasses.field(default_factory=list)
    _clock: float | None = None

    def add(self, step: int, metrics: dict, scale: float) -> None:
        """Takes the metrics of the step just started, whose learning rate is the schedule's times
        `scale`, and reads those of the step before."""
        self.flush()
        self._pending = (step, metrics, scale)

    def flush(self) -> None:
        """Reads the metrics of the last step. Raises NonFiniteLoss."""
        if self._pending is None:
            return
        (step, metrics, scale), self._pending = self._pending, None
        values = {name: float(value) for name, value in metrics.items()}
        self.check(step, values)
        now = time.perf_counter()
        if self._clock is not None:
            self.train_seconds += now - self._clock
            self.images += self.batch_size
        self._clock = now
        self._losses.append(values["loss"])
        self.text = f"loss {values['loss']:.3f}"
        if self.train_seconds:
            self.text += f", {self.images / self.train_seconds:.0f} images/s"
        if step % self.log_every == 0:
            learning_rate = scale * self.rate(step - 1 - self.phase_start)
            self.writer.scalars(step, {**values, "learning_rate": learning_rate})

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """Raises NonFiniteLoss if one of the values is not finite."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise NonFiniteLoss(
                    f"{name} is {value} at step {step} in phase {self.phase!r}; the last "
                    "checkpoint before it is kept. Try a lower lr, warmup or clip_norm."
                )

    def epoch_loss(self) -> float:
        """Mean training loss since the last call (or since the run continued)."""
        losses, self._losses = self._losses, []
        return sum(losses) / len(losses)

    def restart_clock(self) -> None:
        """Does not count the time since the last step."""
        self._clock = None
