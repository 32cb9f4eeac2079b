"""Inference: from images to logits and named maps, compiled and on all devices. Everything that
runs a network without training it uses this module."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from fgc_jax import mesh, models
from fgc_jax.data import augment
from fgc_jax.models.network import Network

Forward = Callable[..., Any]  # images f32 [B, H, W, 3], normalised -> (logits, named maps)


Work = Callable[[Forward, jax.Array, dict], Any]  # see `compiled`


def compiled(
    network: Network, device_mesh: jax.sharding.Mesh, work: Work
) -> Callable[[Any, Any, dict], Any]:
    """Compiles (params, stats, batch) -> `work(forward, images, batch)`. The leaves of the result
    have a row for each image; like the batch, they are sharded over the devices.

    The batch contains `image` uint8 [B, H, W, 3]; `images` are these images, normalised. For a
    network of embeddings both are f32 [B, D]. `forward(images)` returns (logits, named maps);
    `forward(images, call=f)` returns `f(live module, images)`.
    """
    replicated, sharded = mesh.replicated(device_mesh), mesh.sharded(device_mesh)

    def infer(params, stats, batch):
        def forward(images, call=lambda model, images: model(images)):
            return models.apply(network.graphdef, params, stats, call, images)[0]

        images, facts = batch["image"], network.preprocess
        if facts is not None:
            images = augment.normalise(images, facts.mean, facts.std)
        return work(forward, images, batch)

    return jax.jit(infer, in_shardings=(replicated, replicated, sharded), out_shardings=sharded)


def rows(
    infer: Callable[[Any, Any, dict], dict[str, jax.Array]],
    params: Any,
    stats: Any,
    batches: Iterable[dict],
    device_mesh: jax.sharding.Mesh,
    num_images: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(the rows of `infer` for all readable images of a split, in the order of the split, with
    `index` and `label`; the positions of the unreadable images).

    `batches` are host batches with `image`, `label`, `mask` and `index` (-1 for padding, which is
    left out). The device computes one batch while the result of the one before is read.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for part in _lagging(infer, params, stats, batches, device_mesh):
        for name, values in part.items():
            columns.setdefault(name, []).append(values)
    found = {name: np.concatenate(parts) for name, parts in columns.items()}
    real = found["index"] >= 0
    if real.sum() != num_images or len(np.unique(found["index"][real])) != num_images:
        raise RuntimeError(f"evaluated {real.sum()} rows of a split of {num_images} images")
    order = np.argsort(np.where(real, found["index"], num_images), kind="stable")[:num_images]
    found = {name: values[order] for name, values in found.items()}
    read = found.pop("mask") > 0
    return {name: values[read] for name, values in found.items()}, found["index"][~read]


def _lagging(infer, params, stats, batches, device_mesh) -> Iterator[dict[str, np.ndarray]]:
    pending = None
    for batch in batches:
        on_device = mesh.to_global(device_mesh, batch)
        given = {name: on_device[name] for name in ("image", "label")}
        found = infer(params, stats, given)
        found |= {name: on_device[name] for name in ("index", "label", "mask")}
        if pending is not None:
            yield mesh.gather(pending)
        pending = found
    if pending is not None:
        yield mesh.gather(pending)
