"""Embeddings: one vector for each image from a frozen backbone, computed once and stored on disk.

A file contains one split. Its name is a digest of everything that its content depends on: weights,
images, how they are read and transformed, and this code. So a file is never out of date. It is
written completely or not at all.
"""

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fgc_jax import config, console, files, trees
from fgc_jax.data import dataset, pipeline
from fgc_jax.evaluation import inference
from fgc_jax.models import network as networks
from fgc_jax.training import inputs, plans

# Folders and files of fgc_jax whose code computes the vectors.
SOURCES = ("data", "models", "evaluation/inference.py", "training/inputs.py")


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The readable images of a split: vectors f32 [N, D], labels int32 [N], index int32 [N]
    (positions in the split); and unreadable int32 [M], the positions of the other images."""

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
    """(the embeddings of each named split; the names of those that were read from `folder`). If
    `folder` is None, nothing is read or stored.

    Images are transformed as in evaluation, at the size of `phase`. The parameters of the
    classifier's head have no influence.

    Raises:
        ValueError: an image cannot be read and config.data.on_bad_image is "raise".
    """
    weights = _without_head(params), _without_head(stats)
    facts, images = _facts(plan, phase, trees.fingerprint(weights)), plan.dataset.facts()["splits"]
    infer = inference.compiled(plan.network, plan.mesh, _embed)
    found, read = {}, []
    for name in names:
        split, title = plan.dataset.splits[name], f"embedding {name}"
        about = {**facts, "split": images[name], "files": _files(plan, split)}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        path = folder and folder / f"{plan.settings.model.backbone}-{name}-{digest[:32]}.npz"
        if path and (stored := _stored(path)):
            found[name] = stored
            read.append(name)
            continue
        found[name] = compute(infer, plan, (params, stats), phase, split, title)
        if path:
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
    """The inputs of a phase with cache_features: embeddings instead of images for train and val,
    and a network that consists of the head."""
    # Several processes compute embeddings together, so none may skip this because it has a file.
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
    infer: Callable,
    plan: plans.Plan,
    variables: tuple[Any, Any],
    phase: config.Phase,
    split: dataset.Split,
    title: str,
) -> Embedded:
    """The embeddings of a split, with a progress bar. `infer` is `_embed`, compiled; variables:
    (params, stats) on the devices."""
    settings = plan.settings
    total = pipeline.steps_per_epoch(len(split), settings.eval_batch_size)
    transform = inputs.eval_transform(settings.data, phase)
    with inputs.eval_batches(settings, split, transform) as batches:
        with console.counted(batches, title, total) as counted:
            rows, unreadable = inference.rows(infer, *variables, counted, plan.mesh, len(split))
    return Embedded(rows["vectors"], rows["label"], rows["index"], unreadable)


def _embed(forward, images, batch):
    return {"vectors": forward(images, call=lambda model, images: model.embed(images))}


def _without_head(tree: Mapping) -> dict:
    return {name: branch for name, branch in tree.items() if name != "head"}


def _facts(plan: plans.Plan, phase: config.Phase, weights: str) -> dict[str, Any]:
    """Everything that the embeddings depend on, except the images, as JSON values."""
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
    sources = [Path(__file__)]
    for name in SOURCES:
        sources += [root / name] if name.endswith(".py") else (root / name).rglob("*.py")
    for path in sorted(sources):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(plan: plans.Plan, split: dataset.Split) -> str:
    """A digest of the names, sizes and times of a split's files."""
    paths = [
        os.path.join(files.root, name) for files in _readers(split.read) for name in files.names
    ]
    root = Path(plan.settings.data.root)
    if not paths and plan.settings.data.root:  # archives, records: all files in the folder
        paths = [str(path) for path in (root.rglob("*") if root.is_dir() else [root])]
    digest = hashlib.sha256()
    for path in sorted(paths):
        try:
            facts = os.stat(path)
        except OSError:  # missing: reading it will raise an error
            continue
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _readers(value: Any) -> Iterator[dataset.Files]:
    if isinstance(value, dataset.Files):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _readers(getattr(value, field.name))


def _stored(path: Path) -> Embedded | None:
    """The content of a file of `_store`; None if it is missing or damaged."""
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
