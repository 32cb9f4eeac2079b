"""Real runs of a small network that a test watches step by step.

What validation measures can be scripted where a test is about what follows from it.
"""

import contextlib
import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import common
from fgc_jax import methods, train, trees
from fgc_jax.evaluation import metrics
from fgc_jax.methods import plain
from fgc_jax.runs import checkpoint, stop
from fgc_jax.runs.results import Results
from fgc_jax.training import step
from tests import tiny_run

STEPS = 3  # an epoch: 18 training images in batches of 6
TEST_IMAGES = 15
MEASURED = ()


@dataclasses.dataclass(frozen=True)
class Watched:
    """What one run's train steps saw: per phase its first state, its last one, its batches."""

    workdir: Path
    results: Results
    starts: list[step.TrainState]
    ends: list[step.TrainState]
    batches: list[list[np.ndarray]]  # positions in the split
    evaluated: list[int]  # number of images in each evaluation
    traced: int  # number of programs for evaluation


@functools.wraps(plain.make)
def make_counting(*arguments, **options) -> methods.Method:
    """The plain method, whose state is how many steps it has trained."""
    method = plain.make(*arguments, **options)
    (loss,) = method.losses

    def counted(model, batch, key, state, constants):
        value, report = loss(model, batch, key, state, constants)
        return value, report.replace(state={"steps": state["steps"] + 1})

    return dataclasses.replace(method, losses=(counted,), state={"steps": np.int32(0)})


@contextlib.contextmanager
def scripted(values):
    """Replaces loss and top-1 of the evaluations, in order, by `values`, MEASURED leaves them; and
    the plain method by one with a state."""
    values, real = iter(values), metrics.summarise

    def summarise(results, num_classes):
        loss_and_top1 = zip(("loss", "top1"), next(values, MEASURED), strict=False)
        return dataclasses.replace(real(results, num_classes), **dict(loss_and_top1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "summarise", summarise)
        patch.setitem(methods.METHODS, "plain", methods.Entry(make_counting, mixed=True))
        yield


def watched_run(recipe, workdir, values) -> Watched:
    starts, ends, batches, evaluated, traced = [], [], [], [], []
    real, real_evaluation, real_scored = step.make_train_step, metrics.run, metrics.scored

    def make_train_step(*arguments):
        train_step, seen = real(*arguments), []
        batches.append(seen)

        def watch(state, batch, constants, scale):
            if not seen:
                starts.append(jax.tree.map(np.array, state))
                ends.append(None)
            seen.append(np.asarray(batch["index"]))
            state, found = train_step(state, batch, constants, scale)
            ends[-1] = jax.tree.map(np.array, state)
            return state, found

        return watch

    def evaluation(*arguments):
        found = real_evaluation(*arguments)
        evaluated.append(len(found.label))
        return found

    def scored(*arguments):
        traced.append(arguments)
        return real_scored(*arguments)

    with scripted(values), pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "make_train_step", make_train_step)
        patch.setattr(metrics, "run", evaluation)
        patch.setattr(metrics, "scored", scored)
        results = train.run(recipe, workdir)
    return Watched(workdir, results, starts, ends, batches, evaluated, len(traced))


def variables(tree_pair) -> dict[str, np.ndarray]:
    return trees.flatten(tree_pair[0]) | trees.flatten(tree_pair[1])


def of_state(state) -> dict[str, np.ndarray]:
    return variables((state.params, state.stats))


def stored(workdir, number) -> dict[str, np.ndarray]:
    return variables(checkpoint.load_variables(workdir, number))


def fingerprint(workdir) -> str:
    """sha256 of the whole last state."""
    with checkpoint.opened(workdir) as manager:
        return trees.fingerprint(manager.restore(manager.latest_step()).state)


def stopped(recipe, workdir, *moments) -> None:
    """Trains a run that is stopped after each of these steps."""

    @contextlib.contextmanager
    def requests(manager):
        yield lambda number: number in moments

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stop, "requests", requests)
        for moment in moments:
            with pytest.raises(stop.Stopped, match=f"step {moment}$"):
                train.run(recipe, workdir)


def differing(first, second) -> set[str]:
    assert first.keys() == second.keys()
    return {path for path in first if first[path].tobytes() != second[path].tobytes()}


def make_recipe(root, *phases):
    recipe = tiny_run.recipe(root)
    recipe.model.feature_map = "stage1"
    recipe.model.head_options = {"dropout": 0.2}
    recipe.phases = tuple(
        common.phase(**{"batch_size": 6, "resize": 36, "crop": 32, **phase}) for phase in phases
    )
    recipe.checkpoint_every = 2
    recipe.log_every = 1
    return recipe
