"""Sweeps: one recipe with several seeds and values; each run has its own process.

A sweep directory contains `config.json` (the recipe without the grid), `sweep.json` (the runs of
the sweep), `runs/NAME`, `logs/NAME.log`, and the table as `results.csv` and `results.json`.
"""

import dataclasses
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from fgc_jax import config, files
from fgc_jax.runs import directory, results, stop
from fgc_jax.sweeps import comparison
from fgc_jax.training import rules


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str  # of its directory
    combination: str  # the part of the name for the grid; "" without a grid
    grid: Mapping[str, str]  # key -> value, as on the command line
    seed: int

    @property
    def changes(self) -> list[str]:
        values = {**self.grid, "seed": str(self.seed)}
        return [f"--config.{key}={value}" for key, value in values.items()]


def parse_axis(text: str) -> tuple[str, list[str]]:
    """ "KEY=A,B" -> (key, values). Commas inside brackets and quotes belong to a value.

    Raises:
        ValueError: no key, no value, or a value twice.
    """
    key, separator, rest = text.partition("=")
    if not separator or not re.fullmatch(r"[\w.\[\]]+", key):
        raise ValueError(f"--grid={text} must be KEY=VALUE,VALUE,..., as in phases[1].lr=1e-3,3e-3")
    if key == "seed":
        raise ValueError("--grid=seed=...: give the seeds as --seeds=0,1,2")
    values, depth, quote = [""], 0, ""
    for letter in rest:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += not quote and ((letter in "([{") - (letter in ")]}"))
        if letter == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += letter
    if len(set(values)) < len(values):
        raise ValueError(f"--grid={text}: a value is given twice")
    return key, values


def plan(
    read: Callable[[Sequence[str]], ml_collections.ConfigDict],
    changes: Sequence[str],
    seeds: Sequence[int],
    grid: Sequence[str],
    folder: Path,
) -> tuple[dict, list[Job]]:
    """(the recipe without the grid as plain values, a job for each seed and combination of values).

    `read` returns the recipe with changes `--config.KEY=VALUE`. Seeds vary slowest, so that each
    combination soon has a first result.

    Raises:
        ValueError: a key or value that the recipe does not allow, two equal runs, or a directory
            that contains something else.
    """
    axes = [parse_axis(text) for text in grid]
    keys = [key for key, _ in axes]
    given = {change.partition("=")[0].removeprefix("--config.") for change in changes}
    twice = sorted({key for key in keys if keys.count(key) > 1} | given & {*keys, "seed"})
    if twice:
        raise ValueError(f"keys given twice: {', '.join(twice)} (give seeds as --seeds=0,1,2)")
    base = config.resolved(read(changes))
    directory.check(folder, base)
    jobs: list[Job] = []
    same: dict[str, str] = {}
    for seed in seeds:
        for values in itertools.product(*(values for _, values in axes)):
            chosen = dict(zip(keys, values, strict=True))
            combination = ",".join(f"{_file_name(k)}={_file_name(v)}" for k, v in chosen.items())
            combination = _cut(combination, 200)  # the name of a directory has at most 255 bytes
            name = ",".join(filter(None, (combination, f"seed={seed}")))
            job = Job(name, combination, chosen, seed)
            settings = read([*changes, *job.changes])
            rules.parse(settings)
            resolved = config.resolved(settings)
            other = same.setdefault(json.dumps(resolved, sort_keys=True), name)
            if other != name:
                raise ValueError(f"two runs of the grid are equal: {other} and {name}")
            if twins := [each.grid for each in jobs if each.name == name]:
                raise ValueError(f"{twins[0]} and {chosen} would use the same directory {name}")
            directory.check(folder / "runs" / name, resolved)
            jobs.append(job)
    return base, jobs


def note(folder: Path, base: Mapping, jobs: Sequence[Job]) -> None:
    """Writes the list of the runs of the sweep. Earlier runs stay in the list."""
    files.write_json(folder / directory.CONFIG, base)
    known = {job.name: job for job in (*noted(folder), *jobs)}
    entries = [dataclasses.asdict(job) for job in known.values()]
    files.write_json(folder / comparison.SWEEP, {"runs": entries})


def noted(folder: Path) -> list[Job]:
    """The runs that `note` has written; [] if there is no list."""
    path = folder / comparison.SWEEP
    if not path.exists():
        return []
    stored = files.read_json(path)
    try:
        return [results.parse(Job, entry) for entry in stored["runs"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or from another version: {error}") from None


def run(
    jobs: Sequence[Job],
    folder: Path,
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Trains the unfinished runs, one at a time in each environment (extra variables).

    `command` is followed by `--workdir` and the changes of the run. Ctrl-C and SIGTERM are sent on
    to the runs, which save a checkpoint; a second signal kills them. If another process still
    trains a run, for example that of a killed sweep, this function waits for it.

    Returns:
        For each run that failed, its error.

    Raises:
        stop.Stopped: after a signal, when the runs have saved their checkpoints or ended.
    """
    waiting = [job for job in jobs if not results.finished(folder / "runs" / job.name)]
    say(f"{len(jobs)} runs, {len(jobs) - len(waiting)} of them finished before")
    running: dict[int, tuple[Job, subprocess.Popen, float]] = {}
    failed: dict[str, str] = {}
    took: list[float] = []
    told, asked = set(), set()
    with stop.signals(interrupt=False) as received:
        try:
            while running or (waiting and not received):
                for lane in set(range(len(environments))) - set(running):
                    job = None if received else _next(waiting, folder, told, say)
                    if job:
                        process = _start(job, folder, command, environments[lane])
                        running[lane] = job, process, time.monotonic()
                for lane, (job, process, began) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[lane]
                    took.append(time.monotonic() - began)
                    left = len(waiting) + len(running)
                    eta = left * statistics.mean(took) / len(environments)
                    text = _outcome(job, folder, process.returncode)
                    if process.returncode and not received:
                        failed[job.name] = text
                    done = len(jobs) - left
                    say(f"[{done}/{len(jobs)}] {job.name}: {text}; {_remaining(left, eta)}")
                for _, process, _ in running.values():
                    if len(received) > 1:
                        process.kill()
                    elif received and process.pid not in asked:
                        asked.add(process.pid)  # once: a second signal would end it without saving
                        process.terminate()
                time.sleep(0.1)
        finally:  # after an error here no run may continue unnoticed
            for _, process, _ in running.values():
                process.kill()
    if received:
        raise stop.Stopped(f"stopped; runs not started: {len(waiting)}")
    return failed


def table(jobs: Sequence[Job], folder: Path) -> list[dict[str, Any]]:
    """A row for each combination, sorted by validation top-1, never by the test split.

    Each measure is {"mean", "std"} over the seeds that finished; std uses n - 1 and is null for
    one seed.
    """
    rows = []
    for combination in dict.fromkeys(job.combination for job in jobs):
        members = [job for job in jobs if job.combination == combination]
        runs = []
        for job in members:
            found = results.finished(folder / "runs" / job.name)
            if found:
                runs.append({"name": job.name, "seed": job.seed, **comparison.measures(found)})
        rows.append(
            {
                "combination": combination or "(as it stands)",
                "grid": dict(members[0].grid),
                "planned": len(members),
                "runs": runs,
                **comparison.combine(runs),
            }
        )
    return sorted(rows, key=lambda row: -(row["val_top1"]["mean"] or -1.0))


def environments(accelerators: int) -> list[dict[str, str]]:
    """The environment variables of each process, one process for each accelerator; for 0 there is
    one process, which uses all devices.

    Raises:
        ValueError: CUDA_VISIBLE_DEVICES lists fewer accelerators.
    """
    if not accelerators:
        return [{}]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(accelerators)]
    if accelerators > len(names):
        raise ValueError(f"--accelerators={accelerators}, but CUDA_VISIBLE_DEVICES={visible}")
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names[:accelerators]]


def _file_name(text: str) -> str:
    """A readable name without characters that are special in shells, globs and file systems."""
    return _cut(re.sub(r"[^\w.+-]", "-", re.sub(r"[\[\]{}()'\" ]", "", text)) or "none", 80)


def _cut(name: str, length: int) -> str:
    """A long name shortened to its beginning and a checksum."""
    return name if len(name) <= length else f"{name[: length - 9]}-{zlib.crc32(name.encode()):08x}"


def _next(waiting: list[Job], folder: Path, told: set[str], say) -> Job | None:
    """Removes the first run that no other process trains from `waiting`, and returns it."""
    for job in list(waiting):
        if not directory.in_use(folder / "runs" / job.name):
            waiting.remove(job)
            return job
        if job.name not in told:
            told.add(job.name)
            say(f"{job.name}: waiting, because another process still trains it")
    return None


def _start(job: Job, folder: Path, command: Sequence[str], environment: Mapping[str, str]):
    log = folder / "logs" / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # The runs use this fgc_jax, whatever is installed or in the current folder (-P).
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    with log.open("a", encoding="utf-8") as output:
        return subprocess.Popen(
            [
                sys.executable,
                "-P",
                *command,
                f"--workdir={folder / 'runs' / job.name}",
                *job.changes,
            ],
            env={**os.environ, "PYTHONPATH": path, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Its own group: otherwise Ctrl-C in a terminal would reach it twice.
            start_new_session=True,
        )


def _outcome(job: Job, folder: Path, code: int) -> str:
    """One line about the end of a run."""
    log = folder / "logs" / f"{job.name}.log"
    if code == 0:
        found = comparison.measures(results.finished(folder / "runs" / job.name))
        top1 = ", ".join(
            f"{kind} {found[f'{kind}_top1']:.2f} %"
            for kind in ("val", "test")
            if found[f"{kind}_top1"] is not None
        )
        return f"{top1} ({found['seconds']:.0f} s)"
    if code in (143, -signal.SIGTERM):
        return f"stopped, see {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return f"{errors[-1] if errors else f'exit code {code}'} (see {log})"


def _remaining(left: int, seconds: float) -> str:
    if not left:
        return "none left"
    shown = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{left} left, about {shown}"
