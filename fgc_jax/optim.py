"""From a phase's settings to what trains and how: layers, groups, optax."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from fgc_jax import config, params, schedules

Layers = Mapping[str, tuple[str, ...]]  # layer name -> path prefixes, input to output


def last_layers(spec: str, layers: Layers) -> tuple[str, ...]:
    """The layer names that "", "head", "last N", "from LAYER" or "all" stands for.

    N counts from the output; the classifier is not counted. "from layer4" takes every layer from
    the first whose name is `layer4` or lies below it.

    Raises:
        ValueError: N exceeds the number of layers, or no layer has that name.
    """
    names = tuple(layers)
    if spec in ("", "head"):
        return ()
    if spec == "all":
        return names
    word, value = spec.split(" ", 1)
    if word == "last":
        if int(value) > len(names):
            raise ValueError(
                f"{spec!r}: the backbone has only {len(names)} layers: {', '.join(names)}"
            )
        return names[-int(value) :]
    for index, name in enumerate(names):
        if params.is_under(name, value):
            return names[index:]
    raise ValueError(f"{spec!r}: the backbone has no layer {value!r}; it has {', '.join(names)}")


def paths_of(spec: str, layers: Layers, paths) -> set[str]:
    """The backbone parameter paths of `last_layers(spec)`."""
    prefixes = [prefix for name in last_layers(spec, layers) for prefix in layers[name]]
    return {path for path in paths if any(params.is_under(path, prefix) for prefix in prefixes)}


def is_head(path: str) -> bool:
    """Whether a parameter belongs to the classifier head."""
    return params.is_under(path, "head")


def trained_groups(
    phase: config.Phase, layers: Layers, paths, bn_paths
) -> dict[str, tuple[str, float]]:
    """Trained parameter path -> (group, learning rate multiplier).

    A parameter trains if its layer is un-frozen by `phase.train` (or it is a batch-norm scale or
    bias, in `bn_paths`, and the phase says train_bn_while_frozen), unless its group's multiplier
    is 0. The multiplier is the group's times layer_decay ** (number of layers behind, where the
    head is the last one), as in BEiT (arXiv 2106.08254).

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
        groups = params.match_rules(rules, paths)
        open_paths = paths_of(phase.train, layers, paths)
    except ValueError as error:
        raise ValueError(f"phase {phase.name}: {error}") from None
    open_paths |= {path for path in paths if is_head(path)}
    if phase.train_bn_while_frozen:
        open_paths |= set(bn_paths)
    decay = _layer_decay(phase.layer_decay, layers)
    trained = {
        path: (groups[path][0], groups[path][1] * decay(path))
        for path in paths
        if path in open_paths and groups[path][1] > 0
    }
    if not trained:
        raise ValueError(
            f"phase {phase.name}: train={phase.train!r} with these groups trains nothing"
        )
    if phase.layer_decay != 1 and all(map(is_head, trained)):
        raise ValueError(
            f"phase {phase.name}: layer_decay={phase.layer_decay:g} has no effect where "
            f"train={phase.train!r} trains the head alone"
        )
    return trained


def _layer_decay(decay: float, layers: Layers) -> Callable[[str], float]:
    """path -> learning rate multiplier by the depth of its layer; 1 for the head."""
    behind = {
        prefix: len(layers) - index
        for index, prefixes in enumerate(layers.values())
        for prefix in prefixes
    }

    def factor(path):
        return decay ** max((n for p, n in behind.items() if params.is_under(path, p)), default=0)

    return factor


def make(
    phase: config.Phase, schedule: schedules.Schedule, groups: Mapping[str, tuple[str, float]]
) -> optax.GradientTransformation:
    """The phase's optimiser over the tree of trained parameters, for a learning rate of 1.

    Its updates are what a step adds for each unit of the learning rate: negative, each times the
    multiplier of its parameter, decoupled weight decay included. The step of the phase that a
    cycled momentum depends on is the number of updates since `init`.

    Clipping stands first: since the tree holds trained parameters only, the norm is theirs.
    Weight decay follows PyTorch: added to the gradient with sgd and adam, decoupled with adamw.
    """
    clip = [optax.clip_by_global_norm(phase.clip_norm)] if phase.clip_norm else []
    factors = params.unflatten({path: -factor for path, (_, factor) in groups.items()})
    scale = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors))
    return optax.chain(*clip, *_direction(phase), scale)


def _direction(phase: config.Phase) -> list[optax.GradientTransformation]:
    decay = [optax.add_decayed_weights(phase.weight_decay)] if phase.weight_decay else []
    if phase.optimizer == "sgd":
        return [*decay, optax.trace(phase.momentum)] if phase.momentum else decay
    adam = optax.scale_by_adam(b1=phase.momentum)
    return [adam, *decay] if phase.optimizer == "adamw" else [*decay, adam]
