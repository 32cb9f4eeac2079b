"""The inputs of a phase's network: how images are read, cropped and augmented, in which order."""

import dataclasses
from collections.abc import Callable, Mapping

import jax

from fgc_jax import config
from fgc_jax.data import augment, pipeline, sampling
from fgc_jax.data import dataset as datasets
from fgc_jax.evaluation.views import RAW, Views
from fgc_jax.models.network import Network

CROPS = ("crop", "resized_crop")  # augmentations that crop on the device


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The images of a phase, and how they become the input of the network.

    transform, eval_transform: on the host, for training and for other images. augment: on the
    device, (key, batch) -> the batch for the loss; pure.
    """

    splits: Mapping[str, datasets.Split]
    network: Network
    transform: pipeline.Transform | pipeline.Ready
    eval_transform: pipeline.Transform | pipeline.Ready
    augment: Callable[[jax.Array, dict], dict]


def of(
    settings: config.Settings,
    dataset: datasets.Dataset,
    network: Network,
    phase: config.Phase,
    views: Views = RAW,
) -> Inputs:
    """The inputs of a phase that reads images; `views`: the views of the other splits."""
    return Inputs(
        splits=dataset.splits,
        network=network,
        transform=host_transform(settings.data, phase, train=True),
        eval_transform=eval_transform(settings.data, phase, views),
        augment=augmentation(settings, network, phase),
    )


def host_transform(
    data: config.DataSettings, phase: config.Phase, *, train: bool
) -> pipeline.Transform:
    """How a phase's images are resized and cropped on the host. If an augmentation crops train
    images on the device, the host sends squares of `resize` pixels."""
    on_device = train and any(name in CROPS for name, _ in augment.checked(data.augment))
    return pipeline.Transform(
        resize=phase.resize,
        mode=data.resize_mode,
        crop=phase.resize if on_device else phase.crop,
        random_crop=train and data.random_crop,
        interpolation=data.interpolation,
    )


def eval_transform(
    data: config.DataSettings, phase: config.Phase, views: Views = RAW
) -> pipeline.Transform:
    """How images are resized and cropped on the host for an evaluation in these views."""
    transform = host_transform(data, phase, train=False)
    return dataclasses.replace(transform, crop=phase.resize) if views.placed else transform


def augmentation(
    settings: config.Settings, network: Network, phase: config.Phase
) -> Callable[[jax.Array, dict], dict]:
    """The function (key, batch on the device) -> augmented, normalised batch; pure.

    Raises:
        ValueError: an unknown augmentation or option of one.
    """
    facts = network.preprocess
    filled = {
        **dict.fromkeys(CROPS, {"size": phase.crop}),
        "erase": {"fill": tuple(255 * part for part in facts.mean)},  # 0 after normalising
    }
    ops = []
    for name, options in augment.checked(settings.data.augment):
        if name in CROPS and "size" in options:
            raise ValueError(
                f"config.data.augment: leave out the size of {name!r}, it is the phase's crop"
            )
        ops.append((name, {**filled.get(name, {}), **options}))
    change = augment.build(ops)

    def augmented(key, batch):
        batch = change(key, batch)
        return {**batch, "image": augment.normalise(batch["image"], facts.mean, facts.std)}

    return augmented


def order(
    settings: config.Settings, dataset: datasets.Dataset, phase: config.Phase, seed: int
) -> Callable[[int], int] | None:
    """The order of the train images in a phase; None for a shuffle. See data.sampling.order."""
    return sampling.order(
        settings.data.sampling,
        dataset.splits["train"].labels,
        dataset.class_names,
        batch_size=phase.batch_size,
        seed=seed,
        where=f"phase {phase.name}: data.sampling",
    )


def eval_batches(settings: config.Settings, split: datasets.Split, transform) -> pipeline.Batches:
    """Every image of a split once, as this process's host batches."""
    return pipeline.eval_batches(
        split, transform, reader(settings.data), batch_size=settings.eval_batch_size
    )


def reader(data: config.DataSettings) -> pipeline.Reader:
    """How this process reads its share of each batch."""
    return pipeline.Reader(
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=data.threads,
        workers=data.workers,
        on_bad_image=data.on_bad_image,
    )
