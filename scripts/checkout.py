"""Runs the commands of this checkout, even if another release of fgc_jax is installed."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(script: str) -> None:
    """Runs the command with the name of the file `script`, and exits with its exit code."""
    sys.path.insert(0, str(ROOT))
    from fgc_jax.cli import program

    sys.exit(program.main([Path(script).stem, *sys.argv[1:]]))
