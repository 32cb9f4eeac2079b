"""Weights & Biases with clu's writer interface. This is the only module that imports wandb.

The id of the W&B run is stored in the run directory, so a continued run continues its curves. After
a kill some steps are logged again: W&B drops these values, which are the same as before.
"""

import contextlib
import html
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from clu import metric_writers

from fgc_jax import files

RUN = "wandb_run"  # file with the id


class WandbWriter(metric_writers.MetricWriter):
    """Writes to the run of `directory` in the W&B project `project`; its files go to
    `directory`/wandb. With WANDB_MODE=offline they stay there until `wandb sync`."""

    def __init__(self, directory: Path, project: str):
        """Raises ValueError if W&B cannot be reached or there is no login."""
        import wandb

        self._wandb = wandb
        with _errors_named(wandb):
            self._run = wandb.init(
                project=project,
                id=_run_id(directory / RUN),
                name=directory.name,
                dir=directory,
                resume="allow",
                settings=wandb.Settings(console="off"),  # do not upload the progress bar
            )

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._run.log({name: float(value) for name, value in scalars.items()}, step=step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        pictures = {
            name: [self._wandb.Image(np.asarray(image)) for image in batch]
            for name, batch in images.items()
        }
        self._run.log(pictures, step=step)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        pages = {
            name: self._wandb.Html(f"<pre>{html.escape(text)}</pre>")
            for name, text in texts.items()
        }
        self._run.log(pages, step=step)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        self._run.config.update(dict(hparams), allow_val_change=True)

    def _refuse(self, *values, **options) -> None:
        raise NotImplementedError

    write_summaries = write_videos = write_audios = write_histograms = _refuse

    def flush(self) -> None:
        """Does nothing: W&B sends its data itself."""

    def close(self) -> None:
        self._run.finish()


def login() -> None:
    """Raises ValueError if runs are sent to W&B and it cannot be reached or there is no login."""
    import wandb

    if os.environ.get("WANDB_MODE", "online") == "online":
        with _errors_named(wandb):
            wandb.login(verify=True)


@contextlib.contextmanager
def _errors_named(wandb: Any) -> Iterator[None]:
    try:
        yield
    except wandb.Error as error:
        raise ValueError(
            f"Weights & Biases: {error}; run `wandb login`, or set WANDB_MODE=offline to write "
            "files only"
        ) from None


def _run_id(path: Path) -> str:
    """The id in the file, or a new one that is written to it."""
    if not path.exists():
        with files.whole(path) as temporary:
            temporary.write_text(secrets.token_hex(4))
    return path.read_text()
