"""A trained run used from outside: restored for evaluation, or as a function of images."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from PIL import Image

from fgc_jax import config, console, experiment, mesh, models, step, trees
from fgc_jax.data import dataset, images, pipeline
from fgc_jax.evaluation import metrics, multiview, views
from fgc_jax.runs import checkpoint, directory

Picture = str | os.PathLike | Image.Image | np.ndarray


@dataclasses.dataclass(frozen=True)
class Restored:
    """A run's fixed parts with the variables of one of its checkpoints, placed on the devices."""

    plan: experiment.Experiment  # its data set has class names, and no splits
    params: Any
    stats: Any
    phase: config.Phase  # the one that the checkpoint was saved in; gives the image size
    step: int
    seen: views.Views  # how its images are looked at

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.plan.dataset.class_names

    @property
    def transform(self) -> pipeline.Transform:
        return self.plan.eval_transform(self.phase, self.seen)


def load_run(
    workdir: str | Path,
    checkpoint_name: str = "best",
    *,
    batch_size: int | None = None,
    spec: str = "",
    average: str = "logits",
    logits: str = "auto",
) -> Restored:
    """Restores a checkpoint ("best", "last" or a step number) of a run; its data may be gone.

    `batch_size`, over all devices, is by default the run's own, made a multiple of the devices.
    spec: of the views (see `fgc_jax.evaluation.views`), by default the run's own; average: of their
    "logits" or "probabilities"; logits: "plain", "effect", or "auto" for those that the run's test
    scored.

    Raises:
        ValueError: no run, no such checkpoint, one that does not fit the run's model, a batch size
            that cannot be cut evenly over the devices, or views or logits that cannot be had.
    """
    if spec:
        views.parse(spec)
    workdir = Path(workdir).absolute()
    stored = directory.read_json(workdir / directory.CONFIG)
    settings = config.parse(ml_collections.ConfigDict(stored))
    if batch_size is None:
        batch_size = _up_to_multiple(settings.eval_batch_size, jax.device_count())
    elif batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    # Unreadable images are counted and named with the results, so nothing is hidden.
    settings = dataclasses.replace(
        settings,
        eval_batch_size=batch_size,
        data=dataclasses.replace(settings.data, on_bad_image="skip"),
    )
    facts = directory.read_json(workdir / directory.DATASET)
    classes = dataset.Dataset(facts["name"], tuple(facts["class_names"]), {}, facts["notes"])
    plan = experiment.assemble(settings, classes)
    if logits == "auto":
        logits = directory.chosen_logits(workdir)
    number = checkpoint.find_step(workdir, checkpoint_name)
    variables, stats, meta = checkpoint.load_variables(workdir, number)
    phase = settings.phases[meta["phase"]]
    seen = multiview.of(plan, phase, spec, average=average, logits=logits)
    for expected, found in ((plan.params, variables), (plan.stats, stats)):
        check_fit(trees.flatten(expected), trees.flatten(found), number)
    variables, stats = mesh.replicate(plan.mesh, (variables, stats))
    return Restored(plan, variables, stats, phase, number, seen)


def load_split(run: Restored, workdir: str | Path, name: str, root: str = "") -> dataset.Split:
    """A split of the data set that the run was trained on, the very images that it had then.

    `root` says where the data lie now, if not where they did.

    Raises:
        ValueError: the data are missing, have no such split, or are not the same any more.
    """
    settings = run.plan.settings
    if root:
        data = dataclasses.replace(settings.data, root=root)
        settings = dataclasses.replace(settings, data=data)
    found = experiment.load_data(settings)
    if name not in found.splits:
        raise ValueError(
            f"data set {found.name!r} has no split {name!r}, only {', '.join(found.splits)}"
        )
    now, then = found.facts(), directory.read_json(Path(workdir) / directory.DATASET)
    if now["class_names"] != then["class_names"] or now["splits"][name] != then["splits"].get(name):
        raise ValueError(
            f"the {name} split of {found.name!r} at {settings.data.root!r} has other classes, "
            "images or labels than when the run was trained, so it may hold images that it was "
            "trained on; evaluate other images with --input"
        )
    return found.splits[name]


def evaluate_split(run: Restored, split: dataset.Split) -> metrics.Results:
    """Every image of a split once, with a progress bar; unreadable ones are left out and listed."""
    total = pipeline.steps_per_epoch(len(split), run.plan.settings.eval_batch_size)
    with (
        run.plan.eval_batches(split, run.phase, run.seen) as batches,
        console.progress("evaluating", total) as bar,
    ):

        def counted():
            for batch in batches:
                yield batch
                bar.update()

        eval_step = run.plan.eval_step(run.seen)
        return metrics.run(eval_step, run.params, run.stats, counted(), run.plan.mesh, len(split))


class Predictor:
    """Class probabilities of single images by a trained run: `predictor(["a.jpg", "b.png"])`.

    `class_names` are the columns; `views`, `average` and `logits` are those of `load_run`. For one
    process (with any number of devices).
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        views: str = "",
        average: str = "logits",
        logits: str = "auto",
        checkpoint: str = "best",
        batch_size: int | None = None,
    ):
        self.run = load_run(
            workdir,
            checkpoint,
            batch_size=batch_size,
            spec=views,
            average=average,
            logits=logits,
        )
        self.class_names = self.run.class_names
        self._forward = _make_forward(self.run)

    def __call__(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Probabilities f32 [N, K], in the order of `pictures`: image files, PIL images, or
        uint8 RGB arrays [H, W, 3], each of any size.

        Raises:
            ValueError: a picture is missing, damaged, or of another kind; the message names it.
        """
        rows = [np.zeros((0, len(self.class_names)), np.float32)]
        for row in self.each(pictures):
            if isinstance(row, ValueError):
                raise row
            rows.append(row[None])
        return np.concatenate(rows)

    def each(self, pictures: Sequence[Picture]) -> Iterator[np.ndarray | ValueError]:
        """For each picture in turn its probabilities f32 [K], or the error that names it and says
        why it cannot be read.

        Raises:
            ValueError: `pictures` is no list of them.
        """
        if isinstance(pictures, (str, os.PathLike, Image.Image)):
            raise ValueError(f"a list of images is needed, not {pictures!r} alone")
        size = self._batch_size(len(pictures))
        running = None
        with futures.ThreadPoolExecutor(self.run.plan.settings.data.threads) as pool:
            for start in range(0, len(pictures), size):
                chunk = range(start, min(start + size, len(pictures)))
                batch = list(pool.map(lambda index: self._prepare(index, pictures[index]), chunk))
                # The device works on one batch while the next one is decoded.
                if running is not None:
                    yield from _rows(*running)
                running = batch, self._dispatch(batch, size)
        if running is not None:
            yield from _rows(*running)

    def _batch_size(self, number: int) -> int:
        """The run's, or for fewer images the next power of two: then they are quick, and few
        programs are compiled."""
        power = 1 << max(0, number - 1).bit_length()
        most = self.run.plan.settings.eval_batch_size
        return min(most, _up_to_multiple(power, jax.device_count()))

    def _prepare(self, index: int, picture: Picture) -> np.ndarray | ValueError:
        try:
            pixels = as_array(picture, f"image {index}")
        except ValueError as error:
            return error
        return pipeline.transform_image(self.run.transform, pixels)

    def _dispatch(self, batch: list[np.ndarray | ValueError], size: int) -> jax.Array:
        """Starts the network on `size` images: the batch, black where there is none to show."""
        side = self.run.transform.crop
        padded = np.zeros((size, side, side, 3), np.uint8)
        for row, pixels in enumerate(batch):
            if not isinstance(pixels, ValueError):
                padded[row] = pixels
        on_device = mesh.to_global(self.run.plan.mesh, {"image": padded})["image"]
        return self._forward(self.run.params, self.run.stats, on_device)


def _rows(batch: list, probabilities: jax.Array) -> Iterator[np.ndarray | ValueError]:
    for pixels, row in zip(batch, np.asarray(probabilities), strict=False):  # padding comes last
        yield pixels if isinstance(pixels, ValueError) else row


def as_array(picture: Picture, name: str) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a file, PIL image or array, read as in training.

    Raises:
        ValueError: naming the file, or `name` where there is none.
    """
    if isinstance(picture, (str, os.PathLike)):
        return images.decode(picture)
    if isinstance(picture, Image.Image):
        if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
            raise ValueError(f"{name}: a PIL image of mode {picture.mode!r} has no known range")
        return np.array(picture.convert("RGB"))
    if not isinstance(picture, np.ndarray):
        kind = type(picture).__name__
        raise ValueError(f"{name}: a path, a PIL image or a NumPy array is needed, not {kind}")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(
            f"{name}: an array must be uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}"
        )
    return picture


def _make_forward(run: Restored) -> Callable:
    """Compiles (params, stats, images uint8 [B, H, W, 3]) -> probabilities f32 [B, K]."""
    facts = run.plan.preprocess
    score = step.scorer(
        graphdef=models.evaluation_graphdef(run.plan.model),
        mean=facts.mean,
        std=facts.std,
        seen=run.seen,
    )

    def forward(variables, stats, pixels):
        return jax.nn.softmax(score(variables, stats, pixels))

    whole, cut = mesh.replicated(run.plan.mesh), mesh.sharded(run.plan.mesh)
    return jax.jit(forward, in_shardings=(whole, whole, cut), out_shardings=cut)


def check_fit(expected: dict, found: dict, number: int) -> None:
    """Raises ValueError unless the flat trees hold the same paths with the same shapes."""
    wanted = {path: tuple(leaf.shape) for path, leaf in expected.items()}
    there = {path: tuple(leaf.shape) for path, leaf in found.items()}
    differing = [
        path for path in sorted(wanted.keys() | there.keys()) if wanted.get(path) != there.get(path)
    ]
    if differing:
        raise ValueError(
            f"the checkpoint of step {number} does not fit the config's model: "
            f"{len(differing)} arrays are missing or of another shape, first {differing[:5]}"
        )


def _up_to_multiple(number: int, of: int) -> int:
    return -(-number // of) * of
