"""Trains a recipe with several seeds and values, each in its own process and directory.

Runs are trained one after the other, or one on each accelerator. All keys and values are checked
before the first run starts. Finished runs are skipped and killed runs continue, so after any
interruption the same command continues the sweep. At the end it prints a table with mean and
standard deviation over the seeds, sorted by validation accuracy, and writes DIR/results.csv and
DIR/results.json. Changes --config.KEY=VALUE apply to all runs. Commas inside brackets or quotes
belong to a value: --grid="data.augment=(),(('flip',{}),('erase',{}))".

Examples:
    fgc sweep --config=quickstart --workdir=runs/lr --seeds=0,1,2 \\
        --grid='phases[1].lr=3e-4,1e-3,3e-3' --config.data.threads=2
    fgc sweep --workdir=runs/lr --table
"""

import argparse
import functools
import sys
from pathlib import Path

from fgc_jax.cli import command, recipe, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
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
        type=run_flags.at_least(0),
        default=0,
        metavar="N",
        help="train N runs at a time, each on its own GPU (default: one run on all devices)",
    )
    parser.add_argument("--table", action="store_true", help="only print the table of DIR")
    arguments = recipe.parse(parser, argv)
    given = (arguments.config, arguments.seeds, arguments.grid, arguments.changes)
    if arguments.table and any(given):
        parser.error("with --table give only --workdir: the sweep in it already has a list of runs")
    if not arguments.table and not arguments.config:
        parser.error("the following arguments are required: --config")
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Trains and prints; returns 1 if a run failed. Raises ValueError on wrong input."""
    from fgc_jax.runs import directory
    from fgc_jax.sweeps import comparison, sweep

    folder, changes, failed = arguments.workdir, arguments.changes, {}
    say = functools.partial(print, flush=True)
    if not arguments.table:
        read = functools.partial(recipe.read, arguments.config)
        seeds = run_flags.numbers("--seeds", arguments.seeds or "0")
        base, jobs = sweep.plan(read, changes, seeds, arguments.grid or [], folder)
        environments = sweep.environments(arguments.accelerators)
        training = ["-m", "fgc_jax.main", f"--config={arguments.config}", *changes]
        with directory.locked(folder):
            sweep.note(folder, base, jobs)
            failed = sweep.run(jobs, folder, training, environments, say)
    jobs = sweep.noted(folder)
    if not jobs:
        raise ValueError(f"{folder} is not a sweep: it has no {comparison.SWEEP}")
    rows = sweep.table(jobs, folder)
    comparison.write_seeds(rows, folder)
    say(f"\n{comparison.seeds_table(rows)}\n\nsorted by validation top-1; {folder / 'results.csv'}")
    for name, text in failed.items():
        print(f"failed: {name}: {text}", file=sys.stderr)
    return min(len(failed), 1)


main = command.main(parse, run)
