"""Checkpoints on disk. This is the only module that uses orbax.

`checkpoints/step_N/` contains `state` (parameters, batch-norm statistics, optimiser state, step)
and `meta` (JSON: the `Progress`). The newest checkpoint and the best one of each phase are kept. An
incomplete directory has another name and is never read.
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
    """A checkpoint could not be written. Earlier checkpoints are not changed."""


@dataclasses.dataclass(frozen=True)
class _LastAndBestOfPhases(checkpoint_managers.PreservationPolicy):
    """Keeps the newest checkpoint and the best one of each phase among those with metrics."""

    def should_preserve(self, checkpoints, *, context):
        best: dict[int, int] = {}
        for index, info in enumerate(checkpoints):
            if info.metrics:
                phase = info.metrics["phase"]
                kept = best.get(phase)
                # Strictly better: the first of equals stays, like in early stopping.
                if kept is None or info.metrics["score"] > checkpoints[kept].metrics["score"]:
                    best[phase] = index
        newest = len(checkpoints) - 1
        return [index == newest or index in best.values() for index in range(len(checkpoints))]


def directory(workdir: Path) -> Path:
    """The folder of a run's checkpoints."""
    return Path(workdir).absolute() / "checkpoints"


def any_in(workdir: Path) -> bool:
    """Whether a run directory contains a complete checkpoint."""
    if not directory(workdir).is_dir():
        return False
    with _reader(workdir) as manager:
        return manager.latest_step() is not None


@contextlib.contextmanager
def opened(workdir: Path) -> Iterator[ocp.CheckpointManager]:
    """The checkpoint manager of a training. At the end the context waits for the last write.

    Raises:
        CheckpointError: the last write failed, and there was no other error before.
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
        # If a write failed, closing raises again the error that save or finish has raised.
        with contextlib.suppress(*WRITE_ERRORS):
            manager.close()


def save(
    manager: ocp.CheckpointManager,
    step: int,
    state: Any,
    progress: Progress,
    *,
    score: float | None = None,
) -> None:
    """Starts writing a checkpoint; `score` (greater is better) marks it as evaluated.

    Raises:
        CheckpointError: this write, or the one before it, failed.
    """
    needed, free = trees.num_bytes(state), shutil.disk_usage(manager.directory).free
    if needed > free:
        raise CheckpointError(
            f"no space left for the checkpoint of step {step} in {manager.directory}: it needs "
            f"{needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; earlier checkpoints are kept"
        )
    metrics = None if score is None else {"phase": progress.phase, "score": score}
    meta = ocp.args.JsonSave(dataclasses.asdict(progress))
    arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=meta)
    try:
        manager.save(step, args=arguments, metrics=metrics, force=True)
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
        ValueError: the checkpoint is damaged.
    """
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    with _damage_named(manager, step):
        return manager.restore(step, args=arguments).state


def check_layout(workdir: Path, step: int, state: Any) -> None:
    """Raises ValueError if the parts of a run's stored state are not those of `state`: another
    version of this package wrote them."""
    with _reader(workdir) as reader, _damage_named(reader, step):
        stored = reader.item_metadata(step).state
        stored = getattr(stored, "tree", stored)
    if _paths(stored) != _paths(state):
        raise ValueError(
            f"{directory(workdir) / f'{PREFIX}_{step}'} contains a training state with another "
            "layout, from another version of fgc_jax. Finish the run with that version, or start a "
            "new run in another --workdir. You can still evaluate this run and predict with it"
        )


def _paths(tree: Any) -> set[tuple[str, ...]]:
    """The paths of the leaves and of the empty nodes, which orbax compares too. A path is the same
    for a named tuple and for the dict that is stored of it."""

    def key(entry):
        return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))

    def is_leaf(node):
        return jax.tree.structure(node).num_nodes == 1

    found = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    return {tuple(map(key, path)) for path, _ in found}


def read_progress(manager: ocp.CheckpointManager, step: int) -> Progress:
    """The progress saved with the state of step `step`. Raises ValueError if it is damaged."""
    arguments = ocp.args.Composite(meta=ocp.args.JsonRestore())
    with _damage_named(manager, step):
        return parse(manager.restore(step, args=arguments).meta)


def load_progress(workdir: Path, step: int) -> Progress:
    """`read_progress` for a run directory."""
    with _reader(workdir) as manager:
        return read_progress(manager, step)


def find_step(workdir: Path, which: str) -> int:
    """The step of the checkpoint "last", of "best" (the best of the last evaluated phase), or of a
    step number.

    Raises:
        ValueError: there is no such checkpoint; the message lists those that exist.
    """
    if not directory(workdir).is_dir():
        raise ValueError(f"{workdir} contains no run: there is no folder {directory(workdir)}")
    with _reader(workdir) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise ValueError(f"{directory(workdir)} contains no complete checkpoint yet")
        if which == "last":
            return steps[-1]
        if which == "best":
            last = read_progress(manager, steps[-1])
            best = last.best or (last.history[-1].best if last.history else None)
            if best is None:
                raise ValueError(
                    f"no checkpoint in {workdir} has been evaluated yet; use --checkpoint=last"
                )
            if best.step not in steps:  # of a final run, which keeps only its newest state
                raise ValueError(
                    f"the checkpoints of the finished phases of {workdir} are deleted; use "
                    "--checkpoint=last"
                )
            return best.step
        if which.isdigit() and int(which) in steps:
            return int(which)
        raise ValueError(f"checkpoint {which!r} is not one of 'best', 'last', {steps}")


def load_variables(workdir: Path, step: int) -> tuple[Any, Any, Progress]:
    """(params, stats, progress) of a checkpoint, as NumPy trees, for any number of devices.

    They are the averaged ones if the result of the phase is its average.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    with _reader(workdir) as manager, _damage_named(manager, step):
        progress = read_progress(manager, step)
        names = ("params", "stats", *(["average"] if progress.averaged else []))
        state = _parts(manager, step, names)
        if "average" in state:
            state["params"] = trees.merge(state["params"], state["average"]["params"])
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
    """The parts of a stored state with these names, or {} if they have no leaves."""
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
    """Silences errors of the files that tensorstore is still writing when another file has failed.

    Each of them finds asyncio's loop closed, and Python would print dozens of tracebacks before the
    one useful message. This changes hooks of the process, so only commands may call it.
    """
    show = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = hook
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")


@contextlib.contextmanager
def _damage_named(manager: ocp.CheckpointManager, step: int) -> Iterator[None]:
    """Turns the errors of orbax and tensorstore about unreadable files into one ValueError."""
    try:
        yield
    except (*WRITE_ERRORS, KeyError, TypeError, AttributeError) as error:
        path = manager.directory / f"{PREFIX}_{step}"
        if isinstance(error, ValueError) and str(error).startswith(f"checkpoint {path}"):
            raise  # named already
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
    # The message of the system comes before the details: "... Failed to write ...: No space left
    # [...]".
    words = re.split(r"\s\[|\n", str(error))[0]
    cause = words.rsplit(": ", 1)[-1] or type(error).__name__
    which = "a checkpoint" if step is None else f"the checkpoint of step {step}"
    return (
        f"could not write {which} to {folder}: {cause} (is the disk full?); "
        "earlier checkpoints are kept"
    )
