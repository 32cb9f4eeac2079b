"""The command that trains, `fgc train`, as `python -m fgc_jax.main`."""

import sys

from fgc_jax.cli import train

if __name__ == "__main__":
    sys.exit(train.main())
