"""The definition of a training method, and the facts that it is built from."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from flax import struct

from fgc_jax.models.backbone import Preprocess

AT = "config.method_options."  # precedes the names of options in errors


@struct.dataclass
class Report:
    """The results of a loss besides its value.

    outputs: of the network, a row for each image of the batch, for example {"logits": f32 [B, K]}.
    scalars: to log, f32 []. state: the method's state after the step; None if it has none.
    """

    outputs: dict[str, jax.Array]
    scalars: dict[str, jax.Array]
    state: Any = None


class Loss(Protocol):
    """`loss(model, batch, key, state, constants) -> (scalar loss, Report)`, traced inside the train
    step.

    `model` is the live module: `logits, out = model(images, rngs=...)`. A batch contains `image`
    f32 [B, H, W, 3] (augmented and normalised), `label` int32 [B] and `mask` f32 [B] (0 for images
    that could not be read). Mixed images also have `label_b` int32 [B] and `weight` f32 [B] in
    0..1, the share of `label`. `state` is the method's state before the step, `constants` are the
    method's own.
    """

    def __call__(
        self, model: Any, batch: dict[str, Any], key: jax.Array, state: Any, constants: Any
    ) -> tuple[jax.Array, Report]: ...


@dataclasses.dataclass(frozen=True)
class Method:
    """Losses with their state and constants.

    losses: usually one. Each takes its own optimiser step with the same batch, in this order.
    state: the initial pytree of values that the method learns or counts; it is checkpointed and
    kept from phase to phase. constants: a pytree of arrays that never change; they are an argument
    of the compiled step, not part of the program, and never checkpointed.
    """

    losses: tuple[Loss, ...]
    state: Any = dataclasses.field(default_factory=dict)
    constants: Any = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts about the run that a method is built from.

    class_counts: images of each class in the train split; () if no data are loaded. preprocess: the
    mean and std that images are normalised with. shapes: for each phase, names in the classifier's
    `out` such as "head/embedding" -> their shapes for one image of the phase's crop, and "image" ->
    the shape of the image; () if there is no classifier. load_run: run directory -> its best
    checkpoint as a `restored.Restored`, which was checked to accept the images of all phases; None
    if no method needs it.
    """

    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    preprocess: Preprocess
    shapes: tuple[Mapping[str, tuple[int, ...]], ...]
    load_run: Callable[[str], Any] | None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
