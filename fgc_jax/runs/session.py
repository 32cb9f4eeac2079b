"""A training's access to its run directory: lock, checkpoints, metrics, requests to stop."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fgc_jax.runs import checkpoint, directory, stop
from fgc_jax.runs.writer import Writer


@dataclasses.dataclass(frozen=True)
class Session:
    """The open files of a training, and the requests to stop it.

    config: the run's resolved config. latest: the step of the newest checkpoint; None in a new run.
    stop_asked: step -> whether to save and stop now.
    """

    workdir: Path
    config: Mapping[str, Any]
    manager: Any
    writer: Writer
    stop_asked: Callable[[int], bool]
    latest: int | None


@contextlib.contextmanager
def opened(
    workdir: Path,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    wandb: str = "",
    check: Callable[[], None] = lambda: None,
) -> Iterator[Session]:
    """Creates a run directory or opens an existing one. At the end the context waits for the last
    checkpoint.

    facts: those of the data set, for `dataset.json`. wandb: the Weights & Biases project, or "".
    check: called when no other process can write there any more, and before anything is written.

    Raises:
        ValueError: another process is training there, or W&B cannot be used; and what `check`
            raises.
        checkpoint.CheckpointError: the last write failed.
    """
    with directory.locked(workdir):
        check()
        directory.begin(workdir, config, facts)
        with checkpoint.opened(workdir) as manager, stop.requests(manager) as asked:
            latest = manager.latest_step()
            writer = Writer(workdir, latest or 0, wandb)
            with contextlib.closing(writer):
                yield Session(
                    workdir=workdir,
                    config=config,
                    manager=manager,
                    writer=writer,
                    stop_asked=asked,
                    latest=latest,
                )
