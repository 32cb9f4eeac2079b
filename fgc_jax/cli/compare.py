"""Compares finished runs: python scripts/compare.py WORKDIR... [--output=FILE.png]."""

import argparse
import sys
from pathlib import Path

from fgc_jax.cli import command

DESCRIPTION = """\
Prints a table of finished runs, the best validation top-1 first, and draws test top-1 against cost.
Unfinished runs and other directories are named below the table."""

EXAMPLES = """\
examples:
  python scripts/compare.py runs/resnet50 runs/vit
  python scripts/compare.py runs/lr/runs/* --output=lr.png --cost=seconds"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdirs", type=Path, nargs="+", metavar="WORKDIR", help="run directories")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.png", help="draw accuracy against cost into this file"
    )
    parser.add_argument(
        "--cost",
        choices=("gflops", "params", "seconds"),
        default="gflops",
        help="horizontal axis of the picture: a forward pass, the parameters, or the training time "
        "(default: gflops)",
    )
    arguments = parser.parse_args(argv)
    if arguments.output and arguments.output.suffix.lower() != ".png":
        parser.error(f"--output={arguments.output} must end in .png")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Prints and draws. Raises ValueError if no directory holds a finished run."""
    from fgc_jax.plots import style
    from fgc_jax.sweeps import comparison

    rows, messages = comparison.load(arguments.workdirs)
    if not rows:
        raise ValueError("no finished run to compare\n  " + "\n  ".join(messages))
    print(comparison.runs_table(rows))
    if messages:
        print("\nleft out:\n  " + "\n  ".join(messages))
    if arguments.output:
        style.save(comparison.figure(rows, arguments.cost), arguments.output)
        print(f"\nwritten to {arguments.output}")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = parse(argv)
    return command.run(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
