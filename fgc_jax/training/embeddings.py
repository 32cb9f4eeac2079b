"""Embeddings: one vector an image from a frozen backbone, computed once and kept on disk.

A file holds one split. Its name is a digest of everything that its content depends on - weights,
images, how they are read and transformed, this code - so that no file is ever out of date; it is
written whole or not at all.
"""

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fgc_jax import config, console, files, trees
from fgc_jax.data import dataset, pipeline
from fgc_jax.evaluation import inference
from fgc_jax.models import network as networks
from fgc_jax.training import inputs, plans

SOURCES = ("data", "models")  # folders of fgc_jax whose code makes the vectors


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A split's images that could be read: vectors f32 [N, D], labels int32 [N], index int32 [N]
    (position in the split), unreadable int32 [M] (positions)."""

    vectors: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    unreadable: np.ndarray


def of_splits(
    plan: plans.Plan,
    params: Any,
    stats: Any,
    phase: config.Phase,
    names: Collection[str],
    folder: Path | None,
) -> tuple[dict[str, Embedded], list[str]]:
    """(the embeddings of each named split, which of them came from `folder`; None keeps none).

    Images are transformed as in evaluation, at the size of `phase`. What the classifier's head
    has learned plays no part.

    Raises:
        ValueError: an image cannot be read and config.data.on_bad_image is "raise".
    """
    weights = _without_head(params), _without_head(stats)
    facts, images = _facts(plan, phase, trees.fingerprint(weights)), plan.dataset.facts()["splits"]
    found, read = {}, []
    for name in names:
        split = plan.dataset.splits[name]
        about = {**facts, "split": images[name], "files": _files(plan, split)}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        if folder is None:
            found[name] = compute(plan, params, stats, phase, split, f"embedding {name}")
            continue
        path = folder / f"{plan.settings.model.backbone}-{name}-{digest[:32]}.npz"
        found[name] = _stored(path)
        if found[name] is not None:
            read.append(name)
            continue
        found[name] = compute(plan, params, stats, phase, split, f"embedding {name}")
        _store(path, found[name])
    return found, read


@dataclasses.dataclass(frozen=True, eq=False)
class _Vectors:
    """The reader of a split of embeddings, float32 `[D]` each."""

    vectors: np.ndarray  # [N, D], all images of the split
    unreadable: frozenset[int]
    names: Sequence[str]

    def __call__(self, index):
        if index in self.unreadable:
            raise ValueError(f"{self.names[index]} could not be read")
        return self.vectors[index]


def as_split(embedded: Embedded, labels: np.ndarray, names: Sequence[str]) -> dataset.Split:
    """A split whose pictures are embeddings; `labels` and `names` of all its images."""
    vectors = np.zeros((len(labels), embedded.vectors.shape[1]), np.float32)
    vectors[embedded.index] = embedded.vectors
    unreadable = frozenset(int(position) for position in embedded.unreadable)
    return dataset.Split(labels, names, _Vectors(vectors, unreadable, names))


def inputs_of(plan: plans.Plan, phase: config.Phase, params: Any, stats: Any) -> inputs.Inputs:
    """The inputs of a phase with cache_features: an embedding in place of each image of the splits
    that train and validate, for the head alone."""
    # Several processes compute together, so one that finds its files must not leave the others.
    folder = None if jax.process_count() > 1 else files.cache("embeddings")
    names = [name for name in ("train", "val") if name in plan.dataset.splits]
    found, _ = of_splits(plan, params, stats, phase, names, folder)
    splits = {}
    for name, embedded in found.items():
        split = plan.dataset.splits[name]
        splits[name] = as_split(embedded, split.labels, split.names)
    ready = pipeline.Ready(found["train"].vectors.shape[1:])
    return inputs.Inputs(
        splits=splits,
        network=networks.of_embeddings(plan.network),
        transform=ready,
        eval_transform=ready,
        augment=lambda key, batch: batch,
    )


def compute(
    plan: plans.Plan, params: Any, stats: Any, phase: config.Phase, split: dataset.Split, title: str
) -> Embedded:
    """The embeddings of a split, with a progress bar; params and stats lie on the devices."""
    settings = plan.settings
    total = pipeline.steps_per_epoch(len(split), settings.eval_batch_size)
    transform = inputs.eval_transform(settings.data, phase)
    infer = inference.compiled(plan.network, plan.mesh, _embed)
    with (
        inputs.eval_batches(settings, split, transform) as batches,
        console.progress(title, total) as bar,
    ):
        counted = console.counted(batches, bar)
        rows, unreadable = inference.rows(infer, params, stats, counted, plan.mesh, len(split))
    return Embedded(rows["vectors"], rows["label"], rows["index"], unreadable)


def _embed(forward, images, batch):
    return {"vectors": forward(images, call=lambda model, images: model.embed(images))}


def _without_head(tree: Mapping) -> dict:
    return {name: branch for name, branch in tree.items() if name != "head"}


def _facts(plan: plans.Plan, phase: config.Phase, weights: str) -> dict[str, Any]:
    """What the embeddings depend on, but for the images, as JSON values."""
    model, data = plan.settings.model, plan.settings.data
    return {
        "weights": weights,
        "backbones": [
            model.backbone,
            model.backbone_b,
            plan.network.model.feature_maps,
            model.dtype,
        ],
        "options": repr(sorted(model.backbone_options.items())),
        "rescale_b": repr(plan.network.model.rescale_b),
        "head": [model.head, repr(sorted(model.head_options.items()))],
        "transform": repr(inputs.eval_transform(data, phase)),
        "normalise": [plan.network.preprocess.mean, plan.network.preprocess.std],
        "data": [data.name, repr(sorted(data.options.items()))],
        "boxes": [data.box_crop, data.box_margin, data.box_square],
        "code": _code(),
        "jax": [jax.__version__, jax.devices()[0].device_kind],
    }


def _code() -> str:
    """A digest of the files that read images and build networks."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    files = (path for name in SOURCES for path in (root / name).rglob("*.py"))
    for path in sorted([*files, Path(__file__)]):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(plan: plans.Plan, split: dataset.Split) -> str:
    """A digest of names, sizes and times of the files that a split is read from."""
    paths = [
        os.path.join(files.root, name) for files in _readers(split.read) for name in files.names
    ]
    root = Path(plan.settings.data.root)
    if not paths and plan.settings.data.root:  # archives, records: all files there are
        paths = [str(path) for path in (root.rglob("*") if root.is_dir() else [root])]
    digest = hashlib.sha256()
    for path in sorted(paths):
        try:
            facts = os.stat(path)
        except OSError:  # missing: reading it will say so
            continue
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _readers(value: Any) -> Iterator[dataset.Files]:
    """The readers of files that a split's reader is built on."""
    if isinstance(value, dataset.Files):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _readers(getattr(value, field.name))


def _stored(path: Path) -> Embedded | None:
    """What `_store` wrote; None if there is nothing, or it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Embedded(
                **{field.name: arrays[field.name] for field in dataclasses.fields(Embedded)}
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _store(path: Path, embedded: Embedded) -> None:
    with files.whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **dataclasses.asdict(embedded))
