"""The command line: `python -m fgc_jax.main --config=configs/NAME.py --workdir=DIR`."""

import re
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from fgc_jax import cache

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe to train, a file of configs/; change a value with --config.KEY=VALUE."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run directory. If it holds this run already, the run continues."
)
MULTI_HOST = flags.DEFINE_string(
    "multi_host",
    "",
    "Join the other processes of this run: 'auto' under Slurm, Open MPI, Kubernetes or on TPUs, "
    "else COORDINATOR_HOST:PORT,NUMBER_OF_PROCESSES,INDEX_OF_THIS_ONE.",
)
TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the code an error came from.")


def main(argv: list[str]) -> None:
    """Reads the flags, trains, and turns errors into one line and an exit code."""
    if len(argv) > 1:
        _fail(f"stray arguments {argv[1:]}: write --config.KEY=VALUE with '=', without a space")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.FATAL)  # orbax logs each detail, and failures as tracebacks
    cache.enable()
    from fgc_jax import checkpoint, mesh, meter, stop, train

    checkpoint.mute_leftover_writes()
    try:
        mesh.join_cluster(MULTI_HOST.value)
        train.run(CONFIG.value, WORKDIR.value)
    except stop.Stopped as stopped:
        print(f"{stopped}; the same command continues the run", file=sys.stderr)
        sys.exit(143)  # as after an unhandled SIGTERM, so that schedulers see an unfinished job
    except (ValueError, OSError, meter.NonFiniteLoss, checkpoint.CheckpointError) as error:
        if TRACEBACK.value:
            raise
        _fail(str(error))


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; whatever is wrong with it, or in the recipe, becomes one line."""
    try:
        rest = flags.FLAGS(argv)
        CONFIG.value.keys()  # a recipe that could not be read fails at its first use only
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        if "--traceback" in argv:
            raise
        # ml_collections passes on the text of a KeyError, quotes and escapes included.
        text = str(error).strip("\"'").replace("\\n", " ").replace("\\'", "'").strip()
        if "Traceback" in text:  # an error in the recipe itself: the last line says what
            text = re.sub(r"^\w+: ", "", text.splitlines()[-1])
        _fail(" ".join(text.split()))
    return rest


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
