"""The two sides of a benchmark: separate processes that take turns and answer in lines of JSON."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fgc_jax.cli import command, run_flags

PROC = os.path.isdir("/proc/self/task")  # Linux


class Side:
    """A process of `script --worker=SPEC` that answers each line with a line of JSON."""

    def __init__(self, script: str, spec: Mapping, *flags: str):
        self.process = subprocess.Popen(
            [sys.executable, script, *flags, f"--worker={json.dumps(spec)}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise ValueError(f"a timed process ended with code {self.process.wait()}")
        return json.loads(line)

    def turn(self, kind: str) -> dict:
        """Runs `kind` once: `seconds` of wall time and `cpu` seconds of processor time, including
        loader processes."""
        self.process.stdin.write(kind + "\n")
        self.process.stdin.flush()
        return self._answer()

    def peak(self) -> int:
        """The peak of its memory so far, in bytes: device memory, or resident memory on a CPU."""
        return self.turn("peak")["peak"]


def answer(start: Callable[[], tuple[Mapping[str, Callable[[], None]], Mapping]]) -> None:
    """The timed process: calls `start` for ({kind: function to time}, facts to report first), then
    runs one kind for each line that it reads. A kind `peak` replaces resident memory."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # All output of libraries goes to stderr.

    def say(**values):
        print(json.dumps(values), file=answers, flush=True)

    runs, facts = start()
    say(**facts)
    for line in sys.stdin:
        if line.strip() == "peak":
            say(peak=runs.get("peak", _peak)())
            continue
        begin, cpu = time.perf_counter(), _cpu()
        runs[line.strip()]()
        say(seconds=time.perf_counter() - begin, cpu=_cpu() - cpu)


def number(parser: argparse.ArgumentParser, names: str, default: int | None, what: str) -> None:
    """Adds a flag, a whole number above 0; `names` are its names, separated by spaces."""
    shown = "" if default is None else f" (default: {default})"
    kind = {"type": run_flags.positive, "default": default, "metavar": "N"}
    parser.add_argument(*names.split(), **kind, help=f"{what}{shown}")


def main(arguments: argparse.Namespace, compare: Callable, start: Callable) -> int:
    """Runs `compare(arguments)` or, in a timed process, answers with `start(its SPEC)`. Returns the
    exit code."""
    if not arguments.worker:
        return command.run(compare, arguments)
    answer(lambda: start(json.loads(arguments.worker)))
    return 0


def jax_device() -> tuple[str, Callable[[], int]]:
    """(name, peak in bytes) of the device that JAX uses."""
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        return "cpu", _peak
    return device.device_kind, lambda: device.memory_stats()["peak_bytes_in_use"]


def first_phase(recipe: Any, classes: int) -> tuple[Any, Mapping]:
    """(phase 0 of a recipe from `phases.prepare`, a batch of random images on the devices). It
    needs no data set."""
    import numpy as np

    from fgc_jax import mesh
    from fgc_jax.data import dataset
    from fgc_jax.training import classification, phases, plans, rules

    names = tuple(map(str, range(classes)))
    plan = plans.assemble(rules.parse(recipe), dataset.Dataset("none", names, {}))
    task = classification.task(plan)
    phase = phases.prepare(plan, 0, phases.method_of(plan), task, steps_per_epoch=100)
    rows, side = phase.phase.batch_size, phase.phase.crop
    batch = {
        "image": np.random.default_rng(0).integers(0, 256, (rows, side, side, 3), np.uint8),
        "label": np.arange(rows, dtype=np.int32) % classes,
        "mask": np.ones(rows, np.float32),
    }
    return phase, mesh.to_global(plan.mesh, batch)


def training(step: Callable, state: Any, batch: Mapping, constants: Any) -> Callable[[], None]:
    """A function that makes one train step each time, from the state of the step before."""
    import jax

    def run():
        nonlocal state
        state, metrics = step(state, batch, constants, 1.0)
        jax.block_until_ready((state, metrics))

    return run


def torch_device() -> tuple[str, Callable[[], int], str]:
    """(name, peak in bytes, `cuda` or `cpu`) of PyTorch's device. On GPUs it allows rounded factors
    in float32 products, like JAX."""
    import torch

    if not torch.cuda.is_available():
        return "cpu", _peak, "cpu"
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated, "cuda"


def same_device(both: list[Side]) -> str:
    """The device of all sides. Raises ValueError if they differ."""
    devices = [side.ready["device"] for side in both]
    if len(set(devices)) > 1:
        raise ValueError(f"the sides compute on different devices: {', '.join(devices)}")
    return devices[0]


def _processes() -> list[str]:
    """The /proc folders of this process and its living children, for example loader workers."""
    tasks = Path("/proc/self/task").glob("*/children")
    children = {pid for task in tasks for pid in task.read_text().split()}
    return ["/proc/self", *(f"/proc/{pid}" for pid in children)]


def _cpu() -> float:
    """Seconds of processor time so far, of this process and its living and ended children."""
    if not PROC:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system
    ticks = 0
    for folder in _processes():
        fields = Path(folder, "stat").read_text().rsplit(")", 1)[1].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _peak() -> int:
    """Peak of resident memory in bytes, the sum of this process and its living children."""
    if not PROC:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    lines = [
        line
        for folder in _processes()
        for line in Path(folder, "status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return sum(int(line.split()[1]) * 1024 for line in lines)


def ratio(turns: list[list[float]], first: int = 0, second: int = 1) -> str:
    """How many times faster the seconds in column `first` are: median (lowest..highest)."""
    ratios = [row[second] / row[first] for row in turns]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
