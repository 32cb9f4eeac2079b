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

from fgc_jax import config, console, files, mesh, models, trees
from fgc_jax.data import augment, dataset, pipeline
from fgc_jax.models import classifier
from fgc_jax.training import experiment, step

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
    plan: experiment.Experiment,
    variables: Any,
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
    weights = _without_head(variables), _without_head(stats)
    facts, images = _facts(plan, phase, trees.fingerprint(weights)), plan.dataset.facts()["splits"]
    found, read = {}, []
    for name in names:
        split = plan.dataset.splits[name]
        about = {**facts, "split": images[name], "files": _files(plan, split)}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        if folder is None:
            found[name] = compute(plan, variables, stats, phase, split, f"embedding {name}")
            continue
        path = folder / f"{plan.settings.model.backbone}-{name}-{digest[:32]}.npz"
        found[name] = _stored(path)
        if found[name] is not None:
            read.append(name)
            continue
        found[name] = compute(plan, variables, stats, phase, split, f"embedding {name}")
        _store(path, found[name])
    return found, read


@dataclasses.dataclass(frozen=True)
class OnEmbeddings(experiment.Experiment):
    """A phase's experiment with an embedding in place of each image, through the head alone."""

    def transform(self, phase, *, train):
        """Nothing is left to do."""
        return pipeline.Ready(self.dataset.splits["train"].read.vectors.shape[1:])

    def augment(self, phase):
        """As it stands: neither changed nor normalised."""
        return lambda key, batch: batch

    def eval_step(self):
        """See `fgc_jax.training.step.make_eval_step`."""
        graphdef = models.evaluation_graphdef(self.model)
        return step.make_eval_step(graphdef=graphdef, mean=None, std=None, device_mesh=self.mesh)


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


def for_phase(
    plan: experiment.Experiment, phase: config.Phase, variables: Any, stats: Any
) -> experiment.Experiment:
    """`plan`, or with cache_features what stands in for it while the phase trains and validates."""
    if not phase.cache_features:
        return plan
    # Several processes compute together, so one that finds its files must not leave the others.
    folder = None if jax.process_count() > 1 else files.cache("embeddings")
    names = [name for name in ("train", "val") if name in plan.dataset.splits]
    found, _ = of_splits(plan, variables, stats, phase, names, folder)
    splits = {}
    for name, embedded in found.items():
        split = plan.dataset.splits[name]
        splits[name] = as_split(embedded, split.labels, split.names)
    fields = {
        field.name: getattr(plan, field.name) for field in dataclasses.fields(plan) if field.init
    }
    model = classifier.on_embeddings(plan.model)
    return OnEmbeddings(
        **fields | {"dataset": dataclasses.replace(plan.dataset, splits=splits), "model": model}
    )


def compute(
    plan: experiment.Experiment,
    variables: Any,
    stats: Any,
    phase: config.Phase,
    split: dataset.Split,
    title: str,
) -> Embedded:
    """The embeddings of a split, with a progress bar; variables and stats lie on the devices."""
    forward = _make_forward(plan)
    columns: dict[str, list[np.ndarray]] = {}
    total = pipeline.steps_per_epoch(len(split), plan.settings.eval_batch_size)
    with plan.eval_batches(split, phase) as batches, console.progress(title, total) as bar:
        for rows in _lagging(forward, variables, stats, batches, plan.mesh):
            bar.update()
            for name, values in rows.items():
                columns.setdefault(name, []).append(values)
    rows = {name: np.concatenate(parts) for name, parts in columns.items()}
    order = np.argsort(rows["index"], kind="stable")
    order = order[rows["index"][order] >= 0]  # padding has index -1
    rows = {name: values[order] for name, values in rows.items()}
    readable = rows["mask"] > 0
    return Embedded(
        vectors=rows["vectors"][readable],
        labels=rows["label"][readable],
        index=rows["index"][readable],
        unreadable=rows["index"][~readable],
    )


def _make_forward(plan):
    """Compiles (params, stats, images uint8 [B, H, W, 3]) -> vectors f32 [B, D]."""
    graphdef = models.evaluation_graphdef(plan.model)
    whole, cut = mesh.replicated(plan.mesh), mesh.sharded(plan.mesh)

    def forward(variables, stats, pixels):
        images = augment.normalise(pixels, plan.preprocess.mean, plan.preprocess.std)
        return models.apply(graphdef, variables, stats, lambda model: model.embed(images))[0]

    return jax.jit(forward, in_shardings=(whole, whole, cut), out_shardings=cut)


def _lagging(forward, variables, stats, batches, device_mesh) -> Iterator[dict[str, np.ndarray]]:
    """Rows of all batches; the device works on one while the next is read."""
    pending = None
    for batch in batches:
        on_device = mesh.to_global(device_mesh, batch)
        rows = {"vectors": forward(variables, stats, on_device.pop("image")), **on_device}
        if pending is not None:
            yield mesh.gather(pending)
        pending = rows
    if pending is not None:
        yield mesh.gather(pending)


def _without_head(tree: Mapping) -> dict:
    return {name: branch for name, branch in tree.items() if name != "head"}


def _facts(plan: experiment.Experiment, phase: config.Phase, weights: str) -> dict[str, Any]:
    """What the embeddings depend on, but for the images, as JSON values."""
    model, data = plan.settings.model, plan.settings.data
    return {
        "weights": weights,
        "backbones": [model.backbone, model.backbone_b, plan.model.feature_maps, model.dtype],
        "options": repr(sorted(model.backbone_options.items())),
        "rescale_b": repr(plan.model.rescale_b),
        "head": [model.head, repr(sorted(model.head_options.items()))],
        "transform": repr(plan.transform(phase, train=False)),
        "normalise": [plan.preprocess.mean, plan.preprocess.std],
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


def _files(plan: experiment.Experiment, split: dataset.Split) -> str:
    """A digest of names, sizes and times of the files that a split is read from."""
    paths = [
        os.path.join(reader.root, name) for reader in _readers(split.read) for name in reader.names
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
