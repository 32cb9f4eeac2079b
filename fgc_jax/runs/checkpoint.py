"""Checkpoints on disk: the only user of orbax.

`checkpoints/step_N/` holds `state` (parameters, batch-norm statistics, optimiser state, step) and
`meta` (JSON: the `Progress`). Kept are the newest one and each
phase's best. A half-written directory has another name and is never read.
"""

import contextlib
import dataclasses
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from fgc_jax import mesh, trees
from fgc_jax.runs.progress import Progress, parse

PREFIX = "step"
WRITE_ERRORS = (OSError, ValueError, RuntimeError)  # what orbax and tensorstore raise


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; earlier ones are untouched."""


@dataclasses.dataclass(frozen=True)
class _LastAndBestOfPhases(checkpoint_managers.PreservationPolicy):
    """Keeps the newest checkpoint and, of those with metrics, each phase's best."""

    def should_preserve(self, checkpoints, *, context):
        best: dict[int, int] = {}
        for index, info in enumerate(checkpoints):
            if info.metrics:
                phase = info.metrics["phase"]
                kept = best.get(phase)
                # Strictly better only: the first of equals stays, as early stopping counts.
                if kept is None or info.metrics["score"] > checkpoints[kept].metrics["score"]:
                    best[phase] = index
        newest = len(checkpoints) - 1
        return [index == newest or index in best.values() for index in range(len(checkpoints))]


def directory(workdir: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return Path(workdir).absolute() / "checkpoints"


def any_in(workdir: Path) -> bool:
    """Whether a run directory holds a finished checkpoint."""
    if not directory(workdir).is_dir():
        return False
    with _reader(workdir) as manager:
        return manager.latest_step() is not None


@contextlib.contextmanager
def opened(workdir: Path) -> Iterator[ocp.CheckpointManager]:
    """The manager that a training run saves with; leaving waits for the last write.

    Raises:
        CheckpointError: the last write failed, and nothing else went wrong before.
    """
    options = ocp.CheckpointManagerOptions(
        step_prefix=PREFIX,
        preservation_policy=_LastAndBestOfPhases(),
        best_fn=lambda metrics: metrics["score"],
        create=True,
    )
    if mesh.is_first_process():
        for half_written in directory(workdir).glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(half_written)
    manager = ocp.CheckpointManager(directory(workdir), options=options)
    try:
        yield manager
        finish(manager)
    finally:
        # Closing repeats the error of a write that failed, which save or finish has raised.
        with contextlib.suppress(*WRITE_ERRORS):
            manager.close()


def save(
    manager: ocp.CheckpointManager,
    step: int,
    state: Any,
    progress: Progress,
    *,
    score: float | None = None,
    wait: bool = False,
) -> None:
    """Starts writing a checkpoint; `score` (greater is better) marks it as evaluated.

    Raises:
        CheckpointError: this write, or the one before it, failed.
    """
    needed, free = trees.num_bytes(state), shutil.disk_usage(manager.directory).free
    if needed > free:
        raise CheckpointError(
            f"no space left for the checkpoint of step {step} in {manager.directory}: it takes "
            f"{needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; the ones before are kept"
        )
    metrics = None if score is None else {"phase": progress.phase, "score": score}
    meta = ocp.args.JsonSave(dataclasses.asdict(progress))
    arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=meta)
    try:
        manager.save(step, args=arguments, metrics=metrics, force=True)
        if wait:
            manager.wait_until_finished()
    except WRITE_ERRORS as error:
        raise CheckpointError(_reason(error, manager.directory, step)) from error


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits for the last write. Raises CheckpointError if it failed."""
    try:
        manager.wait_until_finished()
    except WRITE_ERRORS as error:
        raise CheckpointError(_reason(error, manager.directory, None)) from error


def restore(manager: ocp.CheckpointManager, step: int, state: Any) -> Any:
    """Reads a whole training state into the structure and shardings of `state`.

    Raises:
        ValueError: the checkpoint is damaged, or another version of this package wrote it.
    """
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    _check_layout(manager, step, target)
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    with _damage_named(manager, step):
        return manager.restore(step, args=arguments).state


def _check_layout(manager: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Raises ValueError if what is stored has other parts than `state`."""
    with _reader(Path(manager.directory).parent) as reader, _damage_named(manager, step):
        stored = reader.item_metadata(step).state
        stored = getattr(stored, "tree", stored)
    there, here = (
        {tuple(map(_key, path)) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (stored, state)
    )
    if there != here:
        raise ValueError(
            f"{manager.directory / f'{PREFIX}_{step}'} holds a training state of another layout: "
            "another version of fgc_jax wrote it. Finish the run with that version, or begin it "
            "anew in another --workdir; evaluation and prediction read this run as it is"
        )


def _key(entry: Any) -> str:
    """A step of a path, the same for a tuple with names and for the dict that is stored of it."""
    return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))


def read_progress(manager: ocp.CheckpointManager, step: int) -> Progress:
    """What was saved beside the state of step `step`. Raises ValueError if damaged."""
    arguments = ocp.args.Composite(meta=ocp.args.JsonRestore())
    with _damage_named(manager, step):
        return parse(manager.restore(step, args=arguments).meta)


def load_progress(workdir: Path, step: int) -> Progress:
    """As `read_progress`, of a run directory."""
    with _reader(workdir) as manager:
        return read_progress(manager, step)


def find_step(workdir: Path, which: str) -> int:
    """The step of checkpoint "last", "best" (the last evaluated phase's best) or a step number.

    Raises:
        ValueError: there is no such checkpoint; the message lists those that exist.
    """
    if not directory(workdir).is_dir():
        raise ValueError(f"{workdir} holds no run: there is no folder {directory(workdir)}")
    with _reader(workdir) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise ValueError(f"{directory(workdir)} holds no finished checkpoint yet")
        if which == "last":
            return steps[-1]
        if which == "best":
            last = read_progress(manager, steps[-1])
            best = last.best or (last.history[-1].best if last.history else None)
            if best is None:
                raise ValueError(
                    f"no checkpoint in {workdir} is evaluated yet; use --checkpoint=last"
                )
            if best.step not in steps:  # of a final run, which keeps only its newest state
                raise ValueError(
                    f"the result of the finished phases of {workdir} is no longer kept; use "
                    "--checkpoint=last"
                )
            return best.step
        if which.isdigit() and int(which) in steps:
            return int(which)
        raise ValueError(f"checkpoint {which!r} is not one of 'best', 'last', {steps}")


def load_variables(workdir: Path, step: int) -> tuple[Any, Any, Progress]:
    """(params, stats, progress) of a checkpoint, NumPy trees whatever devices it was written on.

    They are the averaged ones where the phase's result is its average.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    with _reader(workdir) as manager, _damage_named(manager, step):
        progress = read_progress(manager, step)
        names = ("params", "stats", *(["average"] if progress.averaged else []))
        state = _parts(manager, step, names)
        if "average" in state:
            state["params"] = trees.replaced(state["params"], state["average"]["params"])
            state["stats"] = state["average"].get("stats", {})
        return state["params"], state.get("stats", {}), progress


def load_method(workdir: Path, step: int) -> Any:
    """The training method's state in a checkpoint, a NumPy tree; {} if it has none.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    with _reader(workdir) as manager, _damage_named(manager, step):
        return _parts(manager, step, ("method",)).get("method", {})


def _parts(manager: ocp.CheckpointManager, step: int, names: tuple[str, ...]) -> dict[str, Any]:
    """The parts of a stored state that have these names and any leaves."""
    stored = manager.item_metadata(step).state
    stored = getattr(stored, "tree", stored)
    wanted = {key: stored[key] for key in names if key in stored}
    if not jax.tree.leaves(wanted):
        return {}
    item = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), wanted)
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    return manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=True)
        ),
    ).state


def mute_leftover_writes() -> None:
    """Silences the files that tensorstore still has under way when one of their siblings fails.

    Each finds asyncio's loop closed, and Python would print some dozens of tracebacks over the one
    message that says what failed. It changes the process's hooks: for commands, not for libraries.
    """
    show = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = hook
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")


@contextlib.contextmanager
def _damage_named(manager: ocp.CheckpointManager, step: int) -> Iterator[None]:
    """Turns what orbax and tensorstore raise on unreadable files into one clear ValueError."""
    try:
        yield
    except (*WRITE_ERRORS, KeyError, TypeError, AttributeError) as error:
        path = manager.directory / f"{PREFIX}_{step}"
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"checkpoint {path} cannot be read: {first_line[:300]}") from error


def _reader(workdir: Path) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        directory(workdir),
        options=ocp.CheckpointManagerOptions(
            step_prefix=PREFIX, read_only=True, create=False, save_interval_steps=0
        ),
        item_names=("state", "meta"),
        item_handlers={
            "state": ocp.PyTreeCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        },
    )


def _reason(error: Exception, folder: Any, step: int | None) -> str:
    # The system's words stand before the details: "... Failed to write ...: No space left [...]".
    words = re.split(r"\s\[|\n", str(error))[0]
    cause = words.rsplit(": ", 1)[-1] or type(error).__name__
    which = "a checkpoint" if step is None else f"the checkpoint of step {step}"
    return (
        f"could not write {which} to {folder}: {cause} (is the disk full?); "
        "the checkpoints written before are kept"
    )
