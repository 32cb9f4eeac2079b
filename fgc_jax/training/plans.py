"""The plan of a run (settings, data set, network, devices), checked before anything is written."""

import dataclasses
from typing import Any

import jax
import numpy as np

from fgc_jax import config, data, mesh, models, trees
from fgc_jax.data import boxes, pipeline, splitting
from fgc_jax.data import dataset as datasets
from fgc_jax.evaluation import multiview
from fgc_jax.models import network as networks
from fgc_jax.training import inputs, schedules, trainable


@dataclasses.dataclass(frozen=True)
class Plan:
    """The fixed parts of a run. The network has shapes instead of arrays, so a plan is small."""

    settings: config.Settings
    dataset: datasets.Dataset
    network: networks.Network
    mesh: jax.sharding.Mesh

    @property
    def num_classes(self) -> int:
        return len(self.dataset.class_names)

    def key(self, *purpose: int) -> jax.Array:
        """The run's random key for a purpose, for example (phase index, 1)."""
        key = jax.random.key(self.settings.seed)
        for number in purpose:
            key = jax.random.fold_in(key, number)
        return key

    def labels(self, phase: config.Phase) -> trainable.Labels:
        """How each parameter trains in a phase: path -> label."""
        paths = trees.flatten(self.network.params)
        return trainable.of(phase, self.network.layers, paths, trees.flatten(self.network.stats))


def prepare(settings: config.Settings) -> Plan:
    """Loads the data and checks everything that a training needs.

    Raises:
        ValueError: missing or wrong data, an unknown part of the model, or a phase that cannot run.
    """
    plan = assemble(settings, load_data(settings))
    train = plan.dataset.splits["train"]
    for phase in settings.phases:
        schedules.build(phase, pipeline.steps_per_epoch(len(train), phase.batch_size))
        mesh.check_batch_size(f"phase {phase.name}: batch_size", phase.batch_size)
        if phase.accumulate > 1:
            part = phase.batch_size // phase.accumulate
            mesh.check_batch_size(f"phase {phase.name}: batch_size / accumulate", part)
        inputs.order(settings, plan.dataset, phase, seed=0)
    return plan


def load_data(settings: config.Settings) -> datasets.Dataset:
    """The data set with a train and a validation split; in a final run train contains both.

    Raises:
        ValueError: missing or wrong data, or no validation split and no val_fraction.
    """
    chosen = settings.data
    dataset = data.load(chosen.name, chosen.root, chosen.options)
    if "train" not in dataset.splits:
        raise ValueError(
            f"data set {dataset.name!r} has no train split, only {list(dataset.splits)}"
        )
    if "val" not in dataset.splits and not chosen.val_fraction:
        raise ValueError(
            f"data set {dataset.name!r} has no validation split: set config.data.val_fraction, the "
            "share of train that is used for model selection instead of the test split"
        )
    dataset = splitting.with_validation(dataset, chosen.val_fraction, chosen.split_seed)
    dataset = boxes.with_box_crops(
        dataset, chosen.box_crop, margin=chosen.box_margin, square=chosen.box_square
    )
    return datasets.with_validation_in_train(dataset) if settings.final else dataset


def assemble(settings: config.Settings, dataset: datasets.Dataset) -> Plan:
    """The plan for a data set, which needs only class names. Checks the network and the phases.
    Raises ValueError."""
    num_classes, own = len(dataset.class_names), settings.data
    network = networks.describe(settings.model, num_classes, mean=own.mean, std=own.std)
    plan = Plan(settings, dataset, network, mesh.make())
    for phase in settings.phases:
        plan.labels(phase)
        inputs.augmentation(settings, network, phase)
        check_crop(network, phase)
    multiview.of(network, settings.phases[-1], settings.views)
    mesh.check_batch_size("eval_batch_size", settings.eval_batch_size)
    return plan


def check_crop(network: networks.Network, phase: config.Phase) -> None:
    """Raises ValueError if the backbone does not accept images of this size, or the feature map of
    the head would have no positions."""
    try:
        maps = networks.map_shapes(network, phase.crop)
    except ValueError as error:
        raise ValueError(f"phase {phase.name}: crop={phase.crop}: {error}") from None
    model = network.settings
    streams = (("", model.backbone), ("b/", model.backbone_b))
    for (prefix, backbone), names in zip(streams, network.model.feature_maps, strict=False):
        for shape in (maps[prefix + name].shape for name in names):
            if 0 in shape:
                raise ValueError(
                    f"phase {phase.name}: crop={phase.crop} is too small for {backbone}: its "
                    f"feature map would have {shape[1]} x {shape[2]} positions"
                )


def initial_variables(plan: Plan) -> tuple[Any, Any, str]:
    """(params, stats, report): pretrained weights if any, the rest random, from the seed."""
    settings = plan.settings
    params, stats, report = models.initialise(
        settings.model,
        plan.num_classes,
        seed=plan.key(0),
        own_input=bool(settings.data.mean or settings.data.std),
    )
    return *jax.tree.map(np.asarray, (params, stats)), report


def reinitialised(plan: Plan, index: int, params: Any, stats: Any) -> tuple[Any, Any]:
    """(params, stats) after the re-initialisation of phase `index`, as given by its labels."""
    paths = trainable.fresh_paths(plan.labels(plan.settings.phases[index]), trees.flatten(stats))
    fresh = models.random_weights(
        plan.settings.model, plan.num_classes, seed=plan.key(index, 1), paths=paths
    )
    return tuple(
        trees.unflatten(
            {path: np.asarray(fresh.get(path, leaf)) for path, leaf in trees.flatten(tree).items()}
        )
        for tree in (params, stats)
    )
