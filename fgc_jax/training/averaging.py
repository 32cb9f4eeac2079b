"""Averages of the weights in a phase: exponential (EMA) and stochastic weight averaging (SWA).

EMA: average <- d average + (1 - d) weights after each step, with d = min(decay, (1 + t) / (10 + t))
at step t of the phase, so that the first weights lose their influence also in a short phase
(TensorFlow's ExponentialMovingAverage with num_updates). Batch-norm statistics are averaged in the
same way. SWA (Izmailov et al., arXiv:1803.05407): the mean of the weights after each of the last N
epochs, for which the batch-norm statistics are computed again; before these epochs it is the newest
weights.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fgc_jax import config


def start(average: config.Average, trainable: Any, stats: Any) -> dict[str, Any]:
    """The first value of the phase's `average`; {} for none."""
    return {"params": trainable, "stats": stats} if average else {}


def after_step(
    average: config.Average, kept: Any, trainable: Any, stats: Any, done: jax.Array
) -> Any:
    """The average after a train step; `done` (int32 []) is the number of earlier steps in this
    phase."""
    if average.kind != "ema":
        return kept
    decay = jnp.minimum(average.decay, (1.0 + done) / (10.0 + done))
    newest = {"params": trainable, "stats": stats}
    return jax.tree.map(lambda old, new: new + decay * (old - new), kept, newest)


def swa_count(phase: config.Phase, epoch: int) -> int:
    """The number of weights in the mean after `epoch` (from 1): 1 before the last N epochs."""
    return max(epoch - phase.epochs + phase.average.epochs, 1)


def differs(phase: config.Phase, epoch: int) -> bool:
    """Whether the average after `epoch` (from 1) differs from the newest weights."""
    return phase.average.kind != "swa" or swa_count(phase, epoch) > 1


@jax.jit
def mean_of_weights(kept: Any, trainable: Any, count: jax.Array) -> Any:
    """The mean of `count` weights: `kept` is the mean of the others, `trainable` is the last."""
    return jax.tree.map(
        lambda old, new: jnp.where(count == 1, new, old + (new - old) / count), kept, trainable
    )


def is_result(phase: config.Phase) -> bool:
    """Whether the averaged weights are the result of the phase, which is so if it monitors them."""
    return phase.monitor.source == "val_average"
