"""Runs the commands of this checkout, whichever release of fgc_jax is installed."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(script: str) -> None:
    """Ends the process with the exit code of the command that `script`, a path, is named after."""
    sys.path.insert(0, str(ROOT))
    from fgc_jax.cli import program

    sys.exit(program.main([Path(script).stem, *sys.argv[1:]]))
