"""From a phase's settings and labels to its optimiser, in optax."""

import dataclasses

import jax
import optax

from fgc_jax import config, trees
from fgc_jax.training import schedules
from fgc_jax.training.trainable import Labels

FROZEN = "frozen"


def describe(phase: config.Phase) -> str:
    """Optimiser, learning rates and schedule of a phase in a few words."""
    text = f"{phase.optimizer} {schedules.peak(phase):g}"
    if phase.lr_batch:
        text += f" ({phase.lr:g} at batch {phase.lr_batch})"
    if phase.layer_decay != 1:
        text += f" x {phase.layer_decay:g} a layer"
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
    """The phase's optimiser, for a learning rate of 1, over any part of the parameter tree.

    Its updates are what a step adds for each unit of the learning rate: negative, each times the
    factor of its label, decoupled weight decay included; zero for what is frozen. A step consists
    of so many `updates`, one for each loss of the method; a cycled momentum depends on the step
    since `init`.

    Clipping stands first: a step gives it the trained parameters only, so the norm is theirs.
    Weight decay follows PyTorch: added to the gradient with sgd and adam, decoupled with adamw.
    With lamb (arXiv:1904.00962) it is part of the direction whose norm is made the parameter's;
    what does not decay keeps Adam's step there.
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
        """`transformation(momentum)`, of the phase's constant or of the schedule's value."""
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
    """Whether a leaf decays where `decay_norm_and_bias` is False: norms, biases and the scales of
    residual branches are vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)
