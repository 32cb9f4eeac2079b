"""How each parameter trains in a phase: one label for each parameter.

The label contains the group, whose settings apply, the learning rate multiplier, and whether the
phase re-initialises the parameter. The optimiser, the differentiated subset, the re-initialisation
and the overview all read these labels.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fgc_jax import config, trees
from fgc_jax.models import lora

# Specs for certain leaves of every layer: only biases (BitFit, arXiv 2106.10199), or LoRA's.
LEAVES = {"bias": ("bias",), "lora": lora.LEAVES}
Layers = Mapping[str, tuple[str, ...]]  # layer name -> path prefixes, input to output


@dataclasses.dataclass(frozen=True)
class Label:
    """How one parameter trains.

    group: name in the phase's `groups`. factor: learning rate multiplier; 0 for a frozen parameter.
    fresh: whether the phase re-initialises it at its start. own: the settings of the phase that the
    group changes, for example ("weight_decay", 0.0).
    """

    group: str
    factor: float = 0.0
    fresh: bool = False
    own: tuple[tuple[str, Any], ...] = ()

    @property
    def trains(self) -> bool:
        return self.factor > 0


Labels = Mapping[str, Label]  # parameter path -> label, of all parameters


def of(
    phase: config.Phase, layers: Layers, paths: Collection[str], stats: Collection[str]
) -> Labels:
    """The labels of all parameters in a phase; `stats` are the paths of batch-norm statistics.

    A parameter trains if `phase.train` un-freezes its layer (or if it is a batch-norm scale or bias
    and the phase has train_bn_while_frozen), unless the multiplier of its group is 0.

    Its factor is a product. The first term is the multiplier of the group. The second one is
    layer_decay ** (number of later layers, with the head as the last one), as in BEiT
    (arXiv:2106.08254); or it is that of lr_thirds for the parameter's third of the layers, first
    that of the input (the discriminative rates of ULMFiT, arXiv:1801.06146; the head belongs to the
    last third, whereas fastai's third group is only the head). In the head, head_lr is the third.

    Trained parameters in the layers of `phase.reinit` are fresh.

    Raises:
        ValueError: a rule or layer spec matches nothing, no parameter trains, a rate has no effect,
            or a layer that should be re-initialised does not train.
    """
    at = f"phase {phase.name}"
    paths = list(paths)
    rules = [
        (pattern, Label(group, float(factor), own=tuple(own[0].items()) if own else ()))
        for pattern, group, factor, *own in phase.groups
    ]
    first: dict[str, Label] = {}
    for _, label in rules:
        if first.setdefault(label.group, label) != label:
            raise ValueError(
                f"{at}: group {label.group!r} has two multipliers or settings in groups"
            )
    try:
        groups = trees.match_rules(rules, paths)
        unfrozen = paths_of(phase.train, layers, paths) | {path for path in paths if is_head(path)}
        fresh_layers = last_layers(phase.reinit, layers)
    except ValueError as error:
        raise ValueError(f"{at}: {error}") from None
    norms = {f"{path.rsplit('/', 1)[0]}/{leaf}" for path in stats for leaf in ("scale", "bias")}
    trained = unfrozen | (norms if phase.train_bn_while_frozen else set())
    fresh: set[str] = set()
    for layer in fresh_layers:
        # A layer in which only a batch norm trains does not count as trained.
        found = {
            path
            for path in unfrozen
            if groups[path].trains and any(trees.is_under(path, p) for p in layers[layer])
        }
        if not found:
            raise ValueError(
                f"{at}: reinit={phase.reinit!r} would re-initialise {layer}, "
                f"which train={phase.train!r} leaves frozen"
            )
        fresh |= found
    factor = factors(phase, layers)
    labels = {
        path: dataclasses.replace(
            label,
            factor=label.factor * factor(path) if path in trained else 0.0,
            fresh=path in fresh,
        )
        for path, label in groups.items()
    }
    for group in {label.group for label in labels.values() if label.own}:
        if not any(each.trains for each in labels.values() if each.group == group):
            raise ValueError(f"{at}: the settings of group {group!r} have no effect: it is frozen")
    _check_effects(at, phase, trained_paths(labels))
    return labels


def trained_paths(labels: Labels) -> set[str]:
    """The paths of the trained parameters."""
    return {path for path, label in labels.items() if label.trains}


def fresh_paths(labels: Labels, stats: Collection[str]) -> set[str]:
    """The paths of the re-initialised parameters and, among `stats`, of their statistics."""
    fresh = {path for path, label in labels.items() if label.fresh}
    modules = {path.rsplit("/", 1)[0] for path in fresh}
    return fresh | {path for path in stats if path.rsplit("/", 1)[0] in modules}


def last_layers(spec: config.Layers, layers: Layers) -> tuple[str, ...]:
    """The names of the layers that `spec` selects.

    N counts from the output; the classifier is not counted. "from layer4" selects the first layer
    that is `layer4` or below it, and all later layers.

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


def paths_of(spec: config.Layers, layers: Layers, paths: Collection[str]) -> set[str]:
    """The parameter paths of the backbone layers `last_layers(spec)`, of all biases ("bias") or of
    LoRA's leaves ("lora")."""
    if spec.kind in LEAVES:
        return {path for path in paths if path.rpartition("/")[2] in LEAVES[spec.kind]}
    prefixes = [prefix for name in last_layers(spec, layers) for prefix in layers[name]]
    return {path for path in paths if any(trees.is_under(path, prefix) for prefix in prefixes)}


def is_head(path: str) -> bool:
    """Whether a parameter belongs to the classifier head."""
    return trees.is_under(path, "head")


def factors(phase: config.Phase, layers: Layers) -> Callable[[str], float]:
    """The function path -> learning rate multiplier of its layer or of the head."""
    places = {p: place for place, prefixes in enumerate(layers.values()) for p in prefixes}
    total = len(layers)

    def factor(path):
        place = min((n for p, n in places.items() if trees.is_under(path, p)), default=total)
        value = phase.layer_decay ** (total - place)
        if phase.lr_thirds:
            value *= phase.lr_thirds[min(3 * place // total, 2)]
        return value * phase.head_lr if is_head(path) else value

    return factor


def _check_effects(at: str, phase: config.Phase, trained: set[str]) -> None:
    """Raises ValueError if nothing trains, or if a rate applies only to frozen parameters."""
    if not trained:
        raise ValueError(f"{at}: train={phase.train!r} with these groups trains nothing")
    head = [is_head(path) for path in trained]
    for key, value, useless, why in (
        ("layer_decay", phase.layer_decay, all(head), "trains only the head"),
        ("lr_thirds", phase.lr_thirds, all(head), "trains only the head"),
        ("head_lr", phase.head_lr, not any(head), "and these groups keep the head frozen"),
    ):
        if useless and value not in (1, ()):
            raise ValueError(f"{at}: {key}={value} has no effect: train={phase.train!r} {why}")
