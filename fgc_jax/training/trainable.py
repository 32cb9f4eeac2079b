"""Who trains how in a phase: one label for each parameter, from which all else follows.

The label says which group's settings hold, how fast the parameter learns, and whether the phase
draws it anew. The optimiser, what is differentiated, what is re-initialised and the overview all
read this one tree.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fgc_jax import config, trees
from fgc_jax.models import lora

# Specs that stand for leaves of every layer: biases alone (BitFit, arXiv 2106.10199), or LoRA's.
LEAVES = {"bias": ("bias",), "lora": lora.LEAVES}
Layers = Mapping[str, tuple[str, ...]]  # layer name -> path prefixes, input to output


@dataclasses.dataclass(frozen=True)
class Label:
    """How one parameter trains.

    group: of the phase's `groups`. factor: learning rate multiplier; 0 for a frozen parameter.
    fresh: whether the phase draws it anew at its start. own: what the group sets otherwise than the
    phase, as ("weight_decay", 0.0).
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

    A parameter trains if its layer is un-frozen by `phase.train` (or it is a batch-norm scale or
    bias, and the phase says train_bn_while_frozen), unless its group's multiplier is 0. The factor
    is the group's times layer_decay ** (number of layers behind, where the head is the last one),
    as in BEiT (arXiv:2106.08254), or times that of lr_thirds for the third of the layers that the
    parameter lies in, from the input, the head counting to the last (the discriminative rates of
    ULMFiT, arXiv:1801.06146; fastai's third group is the head alone); and times head_lr in the
    head. What trains in the layers that `phase.reinit` names is fresh.

    Raises:
        ValueError: a rule or layer spec matches nothing, nothing is left to train, a rate has no
            effect, or a layer to re-initialise does not train.
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
        # A batch norm that trains alone does not make its layer one that trains.
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
    _check_effects(at, phase, trained_paths(labels))
    return labels


def trained_paths(labels: Labels) -> set[str]:
    """The paths of what trains."""
    return {path for path, label in labels.items() if label.trains}


def fresh_paths(labels: Labels, stats: Collection[str]) -> set[str]:
    """The paths of the parameters and, among `stats`, of the statistics that are drawn anew."""
    fresh = {path for path, label in labels.items() if label.fresh}
    modules = {path.rsplit("/", 1)[0] for path in fresh}
    return fresh | {path for path in stats if path.rsplit("/", 1)[0] in modules}


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
    """path -> learning rate multiplier by the place of its layer, the head's own included."""
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
    """Raises ValueError where nothing trains, or a rate is of what does not train."""
    if not trained:
        raise ValueError(f"{at}: train={phase.train!r} with these groups trains nothing")
    head = [is_head(path) for path in trained]
    for key, value, useless, why in (
        ("layer_decay", phase.layer_decay, all(head), "trains the head alone"),
        ("lr_thirds", phase.lr_thirds, all(head), "trains the head alone"),
        ("head_lr", phase.head_lr, not any(head), "and these groups leave the head frozen"),
    ):
        if useless and value not in (1, ()):
            raise ValueError(f"{at}: {key}={value} has no effect where train={phase.train!r} {why}")
