"""Trains a recipe with several seeds and values, each in a process and directory of its own.

The runs follow one another, or there is one per accelerator. All keys and values are checked before
the first run starts. Finished runs are skipped and killed ones continue, so the same command goes
on after any interruption. Ends with a table: mean and standard deviation over the seeds, the best
validation accuracy first; also in DIR/results.csv and DIR/results.json. Changes
--config.KEY=VALUE hold for all runs. Commas inside brackets or quotes belong to a value:
--grid="data.augment=(),(('flip',{}),('erase',{}))".

Examples:
    fgc sweep --config=quickstart --workdir=runs/lr --seeds=0,1,2 \\
        --grid='phases[1].lr=3e-4,1e-3,3e-3' --config.data.threads=2
    fgc sweep --workdir=runs/lr --table
"""

import argparse
import functools
import sys
from pathlib import Path

from fgc_jax.cli import command, recipe


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 where they are wrong."""
    parser = command.parser(__doc__)
    recipe.add(parser, required=False)
    parser.add_argument(
        "--workdir", type=Path, required=True, metavar="DIR", help="directory of the sweep"
    )
    parser.add_argument("--seeds", metavar="N,N", help="seeds of the runs (default: 0)")
    parser.add_argument(
        "--grid",
        action="append",
        metavar="KEY=VALUE,VALUE",
        help="values of a key of the recipe; several --grid are combined",
    )
    parser.add_argument(
        "--accelerators",
        type=int,
        default=0,
        metavar="N",
        help="run N processes at a time, each with one GPU of its own "
        "(default: one process, which uses all devices)",
    )
    parser.add_argument("--table", action="store_true", help="print the table of DIR only")
    arguments = recipe.parse(parser, argv)
    given = (arguments.config, arguments.seeds, arguments.grid, arguments.changes)
    if arguments.table and any(given):
        parser.error("--table takes nothing but --workdir: DIR knows its runs")
    if not arguments.table and not arguments.config:
        parser.error("the following arguments are required: --config")
    if arguments.accelerators < 0:
        parser.error("--accelerators must not be negative")
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Trains and prints; returns 1 if a run failed. Raises ValueError on wrong input."""
    from fgc_jax.runs import directory
    from fgc_jax.sweeps import comparison, sweep

    folder, changes, failed = arguments.workdir, arguments.changes, {}
    if not arguments.table:
        read = functools.partial(recipe.read, arguments.config)
        base, jobs = sweep.plan(read, changes, seeds(arguments.seeds), arguments.grid or [], folder)
        environments = sweep.environments(arguments.accelerators)
        training = ["-m", "fgc_jax.main", f"--config={arguments.config}", *changes]
        with directory.locked(folder):
            sweep.note(folder, base, jobs)
            failed = sweep.run(jobs, folder, training, environments, _say)
    jobs = sweep.noted(folder)
    if not jobs:
        raise ValueError(f"{folder} is no sweep: it holds no {comparison.SWEEP}")
    rows = sweep.table(jobs, folder)
    comparison.write_seeds(rows, folder)
    _say(
        f"\n{comparison.seeds_table(rows)}\n\nsorted by validation top-1; {folder / 'results.csv'}"
    )
    for name, text in failed.items():
        print(f"failed: {name}: {text}", file=sys.stderr)
    return min(len(failed), 1)


def seeds(text: str | None) -> list[int]:
    """The numbers of --seeds, 0 for none; raises ValueError."""
    try:
        found = [int(part) for part in (text or "0").split(",")]
    except ValueError:
        raise ValueError(f"--seeds={text}: whole numbers with commas between are needed") from None
    if len(set(found)) < len(found):
        raise ValueError(f"--seeds={text}: a seed stands there twice")
    return found


def _say(text: str) -> None:
    print(text, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return command.run(run, parse(argv))
