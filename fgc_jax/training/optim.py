"""The optax optimiser of a phase, made from its settings and labels."""

import dataclasses

import jax
import optax

from fgc_jax import config, trees
from fgc_jax.training import schedules
from fgc_jax.training.trainable import Labels

FROZEN = "frozen"


def describe(phase: config.Phase) -> str:
    """A short text: optimiser, learning rates and schedule of a phase."""
    text = f"{phase.optimizer} {schedules.peak(phase):g}"
    if phase.lr_batch:
        text += f" ({phase.lr:g} at batch {phase.lr_batch})"
    if phase.layer_decay != 1:
        text += f" x {phase.layer_decay:g} per layer"
    if phase.lr_thirds:
        text += f" x {', '.join(f'{third:.3g}' for third in phase.lr_thirds)} by thirds"
    if phase.head_lr != 1:
        text += f", head x {phase.head_lr:g}"
    if phase.warmup:
        text += f", warm-up {phase.warmup}"
    return text if phase.schedule == "constant" else f"{text}, {phase.schedule}"


def make(
    phase: config.Phase, schedule: schedules.Schedule, labels: Labels, updates: int = 1
) -> optax.GradientTransformation:
    """The phase's optimiser, for a learning rate of 1 and any part of the parameter tree.

    A step adds its updates, times the learning rate, to the parameters. The updates contain the
    sign, the factor of each label and decoupled weight decay; those of frozen parameters are zero.
    `updates`: the number of updates in a step, one for each loss of the method; a cycled momentum
    depends on the number of steps since `init`.

    Clipping is first. A step passes only the trained parameters, so the norm is theirs. Weight
    decay is that of PyTorch: added to the gradient with sgd and adam, decoupled with adamw. With
    lamb (arXiv:1904.00962) it is part of the update, which is then scaled to the norm of the
    parameter; parameters without weight decay get Adam's update.
    """
    kinds = list(
        dict.fromkeys(
            (each.group, each.factor, each.own) for each in labels.values() if each.trains
        )
    )
    transforms = {FROZEN: optax.set_to_zero()}
    for number, (_, factor, own) in enumerate(kinds):
        settings = dataclasses.replace(phase, **dict(own))
        direction = _direction(settings, schedule, updates)
        transforms[str(number)] = optax.chain(*direction, optax.scale(-factor))
    names = {
        path: str(kinds.index((each.group, each.factor, each.own))) if each.trains else FROZEN
        for path, each in labels.items()
    }

    def name_leaves(tree):
        return trees.unflatten({path: names[path] for path in trees.flatten(tree)})

    clip = [optax.clip_by_global_norm(phase.clip_norm)] if phase.clip_norm else []
    return optax.chain(*clip, optax.multi_transform(transforms, name_leaves))


def _direction(
    phase: config.Phase, schedule: schedules.Schedule, updates: int
) -> list[optax.GradientTransformation]:
    def with_momentum(transformation):
        """`transformation(momentum)`, with the phase's constant or the schedule's value."""
        if schedule.momentum is None:
            return transformation(phase.momentum)
        return optax.inject_hyperparams(transformation)(
            lambda count: schedule.momentum(count // updates)
        )

    mask = None if phase.decay_norm_and_bias else _decays
    decay = [optax.add_decayed_weights(phase.weight_decay, mask)] if phase.weight_decay else []
    if phase.optimizer == "sgd":
        if not phase.momentum and schedule.momentum is None:
            return decay
        return [*decay, with_momentum(lambda m: optax.trace(m, nesterov=phase.nesterov))]
    epsilon = 1e-6 if phase.optimizer == "lamb" else 1e-8
    adam = with_momentum(lambda m: optax.scale_by_adam(b1=m, b2=phase.beta2, eps=epsilon))
    if phase.optimizer == "adam":
        return [*decay, adam]
    if phase.optimizer == "adamw":
        return [adam, *decay]
    ratio = optax.scale_by_trust_ratio()
    return [adam, *decay, ratio if mask is None else optax.masked(ratio, mask)]


def _decays(tree):
    """Whether a leaf decays if `decay_norm_and_bias` is False: norms, biases and the scales of
    residual branches are vectors and do not decay."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)
