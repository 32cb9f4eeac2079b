"""The logs of a run: TensorBoard and W&B through clu, and metrics.jsonl.

clu is imported inside functions: it imports TensorFlow, which takes seconds and hundreds of MB, and
only the process that writes needs it.
"""

import importlib.util
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fgc_jax import files, mesh
from fgc_jax.data.images import decode

METRICS_FILE = "metrics.jsonl"


class Writer:
    """Writes scalars, images and texts of a run, on the first process only.

    `wandb`: a Weights & Biases project that also gets them, "" for none. Raises ValueError if W&B
    cannot be used.
    """

    def __init__(self, workdir: Path, start_step: int, wandb: str = ""):
        self._events = self._lines = None
        if not mesh.is_first_process():
            return
        self._events = _event_writer(Path(workdir), wandb)
        path = Path(workdir) / METRICS_FILE
        _drop_lines_after(path, start_step)
        self._lines = path.open("a", encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes named numbers; metrics.jsonl gets {"step", ...} with null for NaN and inf."""
        if self._lines is None:
            return
        values = {name: float(value) for name, value in values.items()}
        self._events.write_scalars(step, values)
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **plain}) + "\n")
        self._lines.flush()

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes pictures: each uint8 [N, H, W, 3]."""
        if self._events is not None:
            self._events.write_images(step, images)

    def pictures(self, step: int, paths: Mapping[str, Path]) -> None:
        """Writes pictures from files."""
        if self._events is not None:
            self.images(step, {name: decode(path)[None] for name, path in paths.items()})

    def start(self, config: Mapping[str, Any], overview: str) -> None:
        """Writes the hyper-parameters and the parameter overview once, at the beginning."""
        if self._events is None:
            return
        self._events.write_hparams(_flat_scalars(config))
        self._events.write_texts(
            0,
            {
                "overview": f"```\n{overview}\n```",
                "config": f"```\n{json.dumps(config, indent=1)}\n```",
            },
        )

    def close(self) -> None:
        """Flushes and closes."""
        if self._events is not None:
            self._events.close()
            self._lines.close()


def check_wandb(project: str) -> None:
    """Raises ValueError if a Weights & Biases project is given, but the package is missing or there
    is no login."""
    found = importlib.util.find_spec("wandb") if project else None
    # W&B creates a folder "wandb" where it runs, which looks like a package without a file.
    if project and (found is None or found.origin is None):
        raise ValueError(
            f"config.wandb={project!r} needs the package wandb, which is not installed: "
            "pip install wandb, or set config.wandb=''"
        )
    if project and mesh.is_first_process():
        _quieten_tensorflow()
        from fgc_jax.runs import wandb_writer

        wandb_writer.login()


def _quieten_tensorflow() -> None:
    """Less output from TensorFlow, which clu imports."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def _event_writer(workdir: Path, wandb: str):
    _quieten_tensorflow()
    from clu import metric_writers

    writers = []
    if wandb:
        from fgc_jax.runs import wandb_writer

        writers.append(wandb_writer.WandbWriter(workdir, wandb))
    return metric_writers.AsyncMultiWriter([*writers, metric_writers.SummaryWriter(str(workdir))])


def _drop_lines_after(path: Path, step: int) -> None:
    """Removes the lines of a killed run after the checkpoint that it continues from."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue  # an incomplete line, written when the run was killed
    with files.whole(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _flat_scalars(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(_flat_scalars(value, f"{name}."))
        elif isinstance(value, (list, tuple)):
            flat.update(_flat_scalars(dict(enumerate(value)), f"{name}.") if value else {})
        else:
            flat[name] = value
    return flat
