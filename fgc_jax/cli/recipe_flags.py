"""The flag --config and what commands that take it do with mistakes."""

import sys

from absl import flags, logging
from ml_collections import config_flags

from fgc_jax.cli import recipe

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, a file of configs/; change a value with --config.KEY=VALUE."
)
TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the code an error came from.")


def parse(argv: list[str]) -> list[str]:
    """Parses the command line; whatever is wrong with it, or in the recipe, becomes one line."""
    try:
        rest = flags.FLAGS(argv)
        CONFIG.value.keys()  # a recipe that could not be read fails at its first use only
    except recipe.ERRORS as error:
        if "--traceback" in argv:
            raise
        _exit(recipe.one_line(error))
    return rest


def prepare(argv: list[str]) -> None:
    """Refuses what is no flag, and keeps libraries quiet; for the beginning of `main`."""
    if len(argv) > 1:
        _exit(f"stray arguments {argv[1:]}: write --config.KEY=VALUE with '=', without a space")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.FATAL)  # orbax logs each detail, and failures as tracebacks


def fail(error: Exception) -> None:
    """Ends the program with the error being handled: in one line, or whole with --traceback."""
    if TRACEBACK.value:
        raise error
    _exit(str(error))


def _exit(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
