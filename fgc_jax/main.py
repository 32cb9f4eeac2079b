"""`python -m fgc_jax.main` trains: it is the same command as `fgc train`."""

import sys

from fgc_jax.cli import train

if __name__ == "__main__":
    sys.exit(train.main())
