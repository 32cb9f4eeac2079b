"""Trains a recipe with several seeds and values: python scripts/sweep.py --config=... [...]."""

import argparse
import functools
import sys
from pathlib import Path

DESCRIPTION = """\
Trains every combination of seeds and grid values in a process and directory of its own, one after
another or one per accelerator. All keys and values are checked before the first run starts.
Finished runs are skipped and killed ones continue, so the same command goes on after any
interruption. Ends with a table: mean and standard deviation over the seeds, the best validation
accuracy first; also in DIR/results.csv and DIR/results.json."""

EXAMPLES = """\
examples:
  python scripts/sweep.py --config=configs/quickstart.py --workdir=runs/lr --seeds=0,1,2 \\
      --grid='phases[1].lr=3e-4,1e-3,3e-3' --config.data.threads=2
  python scripts/sweep.py --workdir=runs/lr --table

Options --config.KEY=VALUE hold for all runs. Commas inside brackets or quotes belong to a value:
--grid="data.augment=(),(('flip',{}),('erase',{}))"."""


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """(the flags, the changes --config.KEY=VALUE); exits with code 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="recipe, as for fgc_jax.main")
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
    arguments, changes = parser.parse_known_args(argv)
    strays = [change for change in changes if not change.startswith("--config.")]
    if strays:
        parser.error(f"unrecognized arguments: {' '.join(strays)}")
    if arguments.table and (arguments.config or arguments.seeds or arguments.grid or changes):
        parser.error("--table takes nothing but --workdir: DIR knows its runs")
    if not arguments.table and not arguments.config:
        parser.error("the following arguments are required: --config")
    if arguments.accelerators < 0:
        parser.error("--accelerators must not be negative")
    return arguments, changes


def run(arguments: argparse.Namespace, changes: list[str]) -> int:
    """Trains and prints; returns the number of failed runs. Raises ValueError on wrong input."""
    from fgc_jax.cli import recipe
    from fgc_jax.runs import directory
    from fgc_jax.sweeps import comparison, sweep

    folder, failed = arguments.workdir, {}
    if not arguments.table:
        read = functools.partial(recipe.read, arguments.config)
        base, jobs = sweep.plan(read, changes, seeds(arguments.seeds), arguments.grid or [], folder)
        environments = sweep.environments(arguments.accelerators)
        command = ["-m", "fgc_jax.main", f"--config={arguments.config}", *changes]
        with directory.locked(folder):
            sweep.note(folder, base, jobs)
            failed = sweep.run(jobs, folder, command, environments, _say)
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
    return len(failed)


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
    arguments, changes = parse(argv)
    # Recipes import each other from the folder that the command is called in, as under -m.
    sys.path.insert(0, "")
    from fgc_jax.sweeps import sweep

    try:
        return 1 if run(arguments, changes) else 0
    except sweep.Stopped as stopped:
        print(f"{stopped}; the same command continues the sweep", file=sys.stderr)
        return 143
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
