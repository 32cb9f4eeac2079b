"""The one way from images to what a network says of them: compiled, on all devices, mask-exact."""

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
    """Compiles (params, stats, batch) -> `work(forward, images, batch)`, whose leaves have a row
    for each image; the rows are sharded over the devices, as the batch is.

    The batch holds `image` uint8 [B, H, W, 3], which `images` are, normalised, or embeddings f32
    [B, D] where the network takes those. `forward(images)` gives (logits, named maps);
    `forward(images, call=f)` gives `f(live module, images)`.
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
    """(what `infer` says of each image of a split that could be read, in the split's order, with
    `index` and `label`; the positions of those that could not).

    `batches` are host batches with `image`, `label`, `mask` and `index` (-1 for padding, which is
    left out). One batch is in flight while the one before it is read back.
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
