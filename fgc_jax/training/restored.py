"""A run restored from its directory: one of its checkpoints on the devices, ready to be used."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import ml_collections

from fgc_jax import config, console, mesh, trees
from fgc_jax.data import dataset, pipeline
from fgc_jax.evaluation import metrics, multiview, views
from fgc_jax.runs import checkpoint, directory
from fgc_jax.training import experiment, rules


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
    settings = rules.parse(ml_collections.ConfigDict(stored))
    if batch_size is None:
        batch_size = up_to_multiple(settings.eval_batch_size, jax.device_count())
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


def up_to_multiple(number: int, of: int) -> int:
    """The smallest multiple of `of` that is not below `number`."""
    return -(-number // of) * of
