"""Runs the project's commands as a user does, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A run that takes seconds: a small network from scratch on small generated birds.
SMALL = (
    "--config=configs/quickstart.py:tiny",
    "--config.model.backbone=resnet18",
    "--config.model.feature_map=stage1",  # the first sixth of it, which compiles soon
    "--config.phases[0].resize=36",
    "--config.phases[0].crop=32",
    "--config.phases[1].resize=36",
    "--config.phases[1].crop=32",
    "--config.log_every=1",
)


def start(*arguments: str, module="fgc_jax.main", env=None, **options) -> subprocess.Popen:
    """Starts `python -m fgc_jax.main ARGUMENTS` (or a script) from the repository's root."""
    target = ["-m", module] if not module.endswith(".py") else [module]
    return subprocess.Popen(
        [sys.executable, *target, *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(*arguments: str, code: int = 0, **options) -> tuple[str, str]:
    """Runs to the end and returns (stdout, stderr); fails unless the exit code is `code`."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return out, err


def devices(count: int) -> dict[str, str]:
    """Environment variables for so many devices on the CPU, which wait for each other long enough
    on a busy machine. Two sums over devices can wait for each other for ever if a device starts
    them in another order, or if no thread is left for the second one: so operations keep the order
    of the program, and the devices share NPROC threads, more than one for each."""
    flags = (
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    )
    return {"JAX_NUM_CPU_DEVICES": str(count), "NPROC": "64", "XLA_FLAGS": " ".join(flags)}


def logged(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
