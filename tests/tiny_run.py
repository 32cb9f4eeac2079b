"""A run directory for tests: a small network with random weights, as if it had been trained."""

from pathlib import Path

import jax
import numpy as np
import pytest

from configs import common
from fgc_jax import config
from fgc_jax.runs import checkpoint, directory
from fgc_jax.runs.progress import Progress
from fgc_jax.runs.results import Best
from fgc_jax.training import plans, rules
from tests import data_files

CLASSES = ("gull", "tern", "wren")
PHASE_0, BEST, LAST = 3, 7, 9  # steps


def recipe(root: Path):
    recipe = common.get_config()
    recipe.model.backbone = "resnet18"
    recipe.data.update(name="folder", root=str(root), val_fraction=0.25, threads=2)
    recipe.phases = (
        common.phase("small", train="head", batch_size=6, resize=32, crop=32),
        common.phase("large", train="head", batch_size=6, resize=72, crop=64),
    )
    recipe.eval_batch_size = 4
    return recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """As the fixture `tiny`, with the whole network, which other programs know."""
    return write_both(tmp_path_factory.mktemp("tiny"))


def write_images(folder: Path, **options) -> Path:
    """24 images of three classes to train on and 15 to test."""
    return data_files.write_folder(
        folder, classes=CLASSES, splits={"train": 8, "test": 5}, **options
    )


def write_both(folder: Path, **model) -> Path:
    """Writes `data` (images) and `run` (the run directory) into a folder; returns the folder."""
    settings = recipe(write_images(folder / "data", size=(60, 50)))
    settings.model.update(model)
    write(folder / "run", settings)
    return folder


def write(workdir: Path, settings) -> None:
    """The run directory of a recipe of two phases: three checkpoints, the classifier's weights of
    each drawn anew."""
    plan = plans.prepare(rules.parse(settings))
    variables, stats, _ = plans.initial_variables(plan)
    workdir.mkdir()
    directory.begin(workdir, config.resolved(settings), plan.dataset.facts())
    best = Best(BEST, 1, 0.5, None)
    with checkpoint.opened(workdir) as manager:
        for number, phase, score in ((PHASE_0, 0, 0.1), (BEST, 1, 0.5), (LAST, 1, 0.4)):
            checkpoint.save(
                manager,
                number,
                {"params": shaken(variables, number), "stats": stats, "opt_state": {}},
                Progress(phase=phase, best=best if phase else None),
                score=score,
            )


def shaken(tree, seed: int):
    """The classifier's weights drawn anew and large, so that predictions vary."""
    rng = np.random.default_rng(seed)
    head = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), tree["head"])
    return {**tree, "head": head}
