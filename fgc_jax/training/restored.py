"""A run restored from its directory: one of its checkpoints on the devices, ready for use."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import ml_collections

from fgc_jax import config, console, files, mesh, trees
from fgc_jax.config.views import AVERAGES
from fgc_jax.data import dataset, pipeline
from fgc_jax.evaluation import metrics, multiview
from fgc_jax.evaluation.views import Views
from fgc_jax.models.network import Network
from fgc_jax.runs import checkpoint, directory, results
from fgc_jax.training import inputs, plans, rules


@dataclasses.dataclass(frozen=True)
class Restored:
    """The plan of a run and the variables of one of its checkpoints, on the devices."""

    plan: plans.Plan  # its data set has class names, and no splits
    params: Any
    stats: Any
    phase: config.Phase  # the phase of the checkpoint, which determines the image size
    step: int
    views: Views  # of its images

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.plan.dataset.class_names

    @property
    def transform(self) -> pipeline.Transform:
        return inputs.eval_transform(self.plan.settings.data, self.phase, self.views)


def load_run(
    workdir: str | Path,
    checkpoint_name: str = "best",
    *,
    batch_size: int | None = None,
    views: str = "",
    average: str = AVERAGES[0],
    logits: str = "auto",
) -> Restored:
    """Restores a checkpoint ("best", "last" or a step number) of a run, without its data.

    batch_size: over all devices; by default the run's, rounded up to a multiple of the devices.
    views: see `fgc_jax.config.views`; by default the run's. average: the mean over the views is one
    of "logits" or "probabilities". logits: "plain", "effect", or "auto" for those
    of the run's test.

    Raises:
        ValueError: no run, no such checkpoint, a checkpoint that does not fit the run's model, a
            batch size that cannot be split evenly over the devices, or impossible views or logits.
    """
    spec = config.ViewSpec.parse(views) if views else None
    workdir = Path(workdir).absolute()
    stored = files.read_json(workdir / directory.CONFIG)
    settings = rules.parse(ml_collections.ConfigDict(stored))
    if batch_size is None:
        batch_size = up_to_multiple(settings.eval_batch_size, jax.device_count())
    elif batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    # Unreadable images are counted and listed with the results.
    settings = dataclasses.replace(
        settings,
        eval_batch_size=batch_size,
        data=dataclasses.replace(settings.data, on_bad_image="skip"),
    )
    facts = directory.read_dataset(workdir)
    classes = dataset.Dataset(facts["name"], tuple(facts["class_names"]), {}, facts["notes"])
    plan = plans.assemble(settings, classes)
    if logits == "auto":
        logits = results.chosen_logits(workdir)
    number = checkpoint.find_step(workdir, checkpoint_name)
    params, stats, progress = checkpoint.load_variables(workdir, number)
    phase = settings.phases[progress.phase]
    spec = spec or settings.views
    made = multiview.of(plan.network, phase, spec, average=average, logits=logits)
    check_fit(plan.network, params, stats, number)
    params, stats = mesh.replicate(plan.mesh, (params, stats))
    return Restored(plan=plan, params=params, stats=stats, phase=phase, step=number, views=made)


def load_split(run: Restored, workdir: str | Path, name: str, root: str = "") -> dataset.Split:
    """A split of the data set that the run was trained on, checked to have the same images.

    root: the folder of the data if they were moved; "" for that of the training.

    Raises:
        ValueError: the data are missing, have no such split, or have changed.
    """
    settings = with_data_root(run.plan.settings, root)
    found = plans.load_data(settings)
    if name not in found.splits:
        raise ValueError(
            f"data set {found.name!r} has no split {name!r}, only {', '.join(found.splits)}"
        )
    now, then = found.facts(), directory.read_dataset(Path(workdir))
    if now["class_names"] != then["class_names"] or now["splits"][name] != then["splits"].get(name):
        raise ValueError(
            f"the {name} split of {found.name!r} at {settings.data.root!r} has other classes, "
            "images or labels than when the run was trained, so it may contain training images; "
            "evaluate other images with --input"
        )
    return found.splits[name]


def with_data_root(settings: config.Settings, root: str) -> config.Settings:
    """The settings with the data in the folder `root`; "" changes nothing."""
    data = dataclasses.replace(settings.data, root=root or settings.data.root)
    return dataclasses.replace(settings, data=data)


def evaluate_split(run: Restored, split: dataset.Split) -> metrics.Rows:
    """Evaluates every image of a split once, with a progress bar. Unreadable images are left out
    and listed."""
    settings = run.plan.settings
    total = pipeline.steps_per_epoch(len(split), settings.eval_batch_size)
    infer = metrics.compiled(run.plan.network, run.plan.mesh, run.views)
    with inputs.eval_batches(settings, split, run.transform) as batches:
        with console.counted(batches, "evaluating", total) as counted:
            return metrics.run(infer, run.params, run.stats, counted, run.plan.mesh, len(split))


def load_start(plan: plans.Plan, index: int, workdir: Path, number: int) -> tuple[Any, Any, Any]:
    """What phase `index` starts from: (params, stats, the method's state) of the checkpoint of step
    `number`, after the re-initialisation of the phase.

    Raises:
        ValueError: the checkpoint does not fit the plan's network.
    """
    params, stats, _ = checkpoint.load_variables(workdir, number)
    check_fit(plan.network, params, stats, number)
    params, stats = plans.reinitialised(plan, index, params, stats)
    return params, stats, checkpoint.load_method(workdir, number)


def check_fit(network: Network, params: Any, stats: Any, number: int) -> None:
    """Raises ValueError unless the variables of step `number` have the network's paths and
    shapes."""
    wanted, there = (
        {(path, leaf.shape) for tree in pair for path, leaf in trees.flatten(tree).items()}
        for pair in ((network.params, network.stats), (params, stats))
    )
    differing = sorted({path for path, _ in wanted ^ there})
    if differing:
        raise ValueError(
            f"the checkpoint of step {number} does not fit the config's model: {len(differing)} "
            f"arrays are missing or have another shape, first {differing[:5]}"
        )


def up_to_multiple(number: int, of: int) -> int:
    """The smallest multiple of `of` that is at least `number`."""
    return -(-number // of) * of
