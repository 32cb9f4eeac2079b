"""From a phase's settings to what trains and how: layers, groups, optax."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from fgc_jax import config, trees
from fgc_jax.models import lora
from fgc_jax.training import schedules

# Specs that stand for leaves of every layer: biases alone (BitFit, arXiv 2106.10199), or LoRA's.
LEAVES = {"bias": ("bias",), "lora": lora.LEAVES}
Layers = Mapping[str, tuple[str, ...]]  # layer name -> path prefixes, input to output


def last_layers(spec: config.Layers, layers: Layers) -> tuple[str, ...]:
    """The layer names that `spec` stands for.

    N counts from the output; the classifier is not counted. "from layer4" takes every layer from
    the first whose name is `layer4` or lies below it.

    Raises:
        ValueError: N exceeds the number of layers, or no layer has that name.
    """
    names = tuple(layers)
    if spec.kind in ("", "head"):
        return ()
    if spec.kind == "all":
        return names
    if spec.kind == "last":
        if spec.count > len(names):
            raise ValueError(
                f"{spec!r}: the backbone has only {len(names)} layers: {', '.join(names)}"
            )
        return names[-spec.count :]
    for index, name in enumerate(names):
        if trees.is_under(name, spec.layer):
            return names[index:]
    raise ValueError(
        f"{spec!r}: the backbone has no layer {spec.layer!r}; it has {', '.join(names)}"
    )


def paths_of(spec: config.Layers, layers: Layers, paths) -> set[str]:
    """The parameter paths of the backbone layers `last_layers(spec)`, of all biases ("bias") or of
    LoRA's leaves ("lora")."""
    if spec.kind in LEAVES:
        return {path for path in paths if path.rpartition("/")[2] in LEAVES[spec.kind]}
    prefixes = [prefix for name in last_layers(spec, layers) for prefix in layers[name]]
    return {path for path in paths if any(trees.is_under(path, prefix) for prefix in prefixes)}


def is_head(path: str) -> bool:
    """Whether a parameter belongs to the classifier head."""
    return trees.is_under(path, "head")


def trained_groups(
    phase: config.Phase, layers: Layers, paths, bn_paths
) -> dict[str, tuple[str, float]]:
    """Trained parameter path -> (group, learning rate multiplier).

    A parameter trains if its layer is un-frozen by `phase.train` (or it is a batch-norm scale or
    bias, in `bn_paths`, and the phase says train_bn_while_frozen), unless its group's multiplier
    is 0. The multiplier is the group's times layer_decay ** (number of layers behind, where the
    head is the last one), as in BEiT (arXiv:2106.08254), or times that of lr_thirds for the third
    of the layers that the parameter lies in, from the input, the head counting to the last (the
    discriminative rates of ULMFiT, arXiv:1801.06146; fastai's third group is the head alone); and
    times head_lr in the head.

    Raises:
        ValueError: a rule or layer spec matches nothing, or nothing is left to train.
    """
    paths = list(paths)
    rules = [(pattern, (group, float(factor))) for pattern, group, factor in phase.groups]
    factors: dict[str, float] = {}
    for _, (group, factor) in rules:
        if factors.setdefault(group, factor) != factor:
            raise ValueError(f"phase {phase.name}: group {group!r} has two multipliers in groups")
    try:
        groups = trees.match_rules(rules, paths)
        open_paths = paths_of(phase.train, layers, paths)
    except ValueError as error:
        raise ValueError(f"phase {phase.name}: {error}") from None
    open_paths |= {path for path in paths if is_head(path)}
    if phase.train_bn_while_frozen:
        open_paths |= set(bn_paths)
    multiplier = _multiplier(phase, layers)
    trained = {
        path: (groups[path][0], groups[path][1] * multiplier(path))
        for path in paths
        if path in open_paths and groups[path][1] > 0
    }
    if not trained:
        raise ValueError(
            f"phase {phase.name}: train={phase.train!r} with these groups trains nothing"
        )
    head = [is_head(path) for path in trained]
    for key, value, useless, why in (
        ("layer_decay", phase.layer_decay, all(head), "trains the head alone"),
        ("lr_thirds", phase.lr_thirds, all(head), "trains the head alone"),
        ("head_lr", phase.head_lr, not any(head), "and these groups leave the head frozen"),
    ):
        if useless and value not in (1, ()):
            raise ValueError(
                f"phase {phase.name}: {key}={value} has no effect where train={phase.train!r} {why}"
            )
    return trained


def _multiplier(phase: config.Phase, layers: Layers) -> Callable[[str], float]:
    """path -> learning rate multiplier by the place of its layer, the head's own included."""
    places = {p: place for place, prefixes in enumerate(layers.values()) for p in prefixes}
    total = len(layers)

    def multiplier(path):
        place = min((n for p, n in places.items() if trees.is_under(path, p)), default=total)
        value = phase.layer_decay ** (total - place)
        if phase.lr_thirds:
            value *= phase.lr_thirds[min(3 * place // total, 2)]
        return value * phase.head_lr if is_head(path) else value

    return multiplier


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
    phase: config.Phase,
    schedule: schedules.Schedule,
    groups: Mapping[str, tuple[str, float]],
    updates: int = 1,
) -> optax.GradientTransformation:
    """The phase's optimiser over the tree of trained parameters, for a learning rate of 1.

    Its updates are what a step adds for each unit of the learning rate: negative, each times the
    multiplier of its parameter, decoupled weight decay included. A step consists of so many
    `updates`, one for each loss of the method; a cycled momentum depends on the step since `init`.

    Clipping stands first: since the tree holds trained parameters only, the norm is theirs.
    Weight decay follows PyTorch: added to the gradient with sgd and adam, decoupled with adamw.
    With lamb (arXiv:1904.00962) it is part of the direction whose norm is made the parameter's;
    what does not decay keeps Adam's step there.
    """
    clip = [optax.clip_by_global_norm(phase.clip_norm)] if phase.clip_norm else []
    factors = trees.unflatten({path: -factor for path, (_, factor) in groups.items()})
    scale = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors))
    return optax.chain(*clip, *_direction(phase, schedule, updates), scale)


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
