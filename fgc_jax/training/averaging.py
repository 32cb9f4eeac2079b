"""Averages of the weights along a phase: exponential (EMA) and stochastic weight averaging (SWA).

EMA: average <- d average + (1 - d) weights after each step, with d = min(decay, (1 + t) / (10 + t))
at step t of the phase, so that a short phase forgets where it began (TensorFlow's
ExponentialMovingAverage with num_updates); batch-norm statistics likewise. SWA (Izmailov et al.,
arXiv:1803.05407): the mean of the weights after each of the last N epochs, whose batch-norm
statistics are then estimated anew; before these epochs it is the newest weights.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fgc_jax import config


def start(average: config.Average, trainable: Any, stats: Any) -> dict[str, Any]:
    """What the phase's `average` starts with; {} for none."""
    return {"params": trainable, "stats": stats} if average else {}


def after_step(
    average: config.Average, kept: Any, trainable: Any, stats: Any, done: jax.Array
) -> Any:
    """The average after a train step, of which `done` (int32 []) came before in this phase."""
    if average.kind != "ema":
        return kept
    decay = jnp.minimum(average.decay, (1.0 + done) / (10.0 + done))
    newest = {"params": trainable, "stats": stats}
    return jax.tree.map(lambda old, new: new + decay * (old - new), kept, newest)


def swa_count(phase: config.Phase, epoch: int) -> int:
    """How many weights the mean holds after `epoch` (from 1): 1 until the last N epochs begin."""
    return max(epoch - phase.epochs + phase.average.epochs, 1)


def differs(phase: config.Phase, epoch: int) -> bool:
    """Whether after `epoch` (from 1) the average is another than the newest weights."""
    return phase.average.kind != "swa" or swa_count(phase, epoch) > 1


@jax.jit
def mean_of_weights(kept: Any, trainable: Any, count: jax.Array) -> Any:
    """Mean of `count` weights, of which `kept` holds that of all but the last, `trainable`."""
    return jax.tree.map(
        lambda old, new: jnp.where(count == 1, new, old + (new - old) / count), kept, trainable
    )


def is_result(phase: config.Phase) -> bool:
    """Whether the phase's averaged weights are what it gives: if they are what it monitors."""
    return phase.monitor.source == "val_average"
