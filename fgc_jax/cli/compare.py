"""Prints a table of finished runs and draws their accuracy against their cost.

The table is sorted by validation top-1. Unfinished runs and other directories are listed below it.
The picture shows test top-1.

Examples:
    fgc compare runs/resnet50 runs/vit
    fgc compare runs/lr/runs/* --output=lr.png --cost=seconds
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    parser.add_argument("workdirs", type=Path, nargs="+", metavar="WORKDIR", help="run directories")
    parser.add_argument(
        "--output",
        type=run_flags.png,
        metavar="FILE.png",
        help="draw accuracy against cost into this file",
    )
    parser.add_argument(
        "--cost",
        choices=("gflops", "params", "seconds"),
        default="gflops",
        help="horizontal axis of the picture: GFLOP of a forward pass, number of parameters, or "
        "training time (default: gflops)",
    )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Prints and draws. Raises ValueError if no directory contains a finished run."""
    from fgc_jax.plots import style
    from fgc_jax.sweeps import comparison

    rows, messages = comparison.load(arguments.workdirs)
    if not rows:
        raise ValueError("no finished run to compare\n  " + "\n  ".join(messages))
    print(comparison.runs_table(rows))
    if messages:
        print("\nnot in the table:\n  " + "\n  ".join(messages))
    if arguments.output:
        style.save(comparison.figure(rows, arguments.cost), arguments.output)
        print(f"\nwritten to {arguments.output}")


main = command.main(parse, run)
