"""What the commands of scripts/ have in common."""

import sys
from collections.abc import Callable


def run(work: Callable[..., int | None], *arguments) -> int:
    """The exit code of `work(*arguments)`: what it returns, or 1 after one line on stderr where
    its input cannot be used (ValueError, OSError)."""
    try:
        return work(*arguments) or 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def train(work: Callable[..., int | None], *arguments) -> int:
    """The exit code as of `run`, where `work` trains: also after one line where that stops."""
    from fgc_jax.runs import checkpoint, meter, stop

    checkpoint.mute_leftover_writes()
    try:
        return run(work, *arguments)
    except stop.Stopped as stopped:
        print(f"{stopped}; the same command continues", file=sys.stderr)
        return 143  # as after an unhandled SIGTERM
    except (meter.NonFiniteLoss, checkpoint.CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def prepare() -> None:
    """For commands that restore or compile a network, before they import jax."""
    from absl import flags, logging

    from fgc_jax import files

    files.keep_compiled()
    logging.set_verbosity(logging.ERROR)  # orbax warns that it only reads
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's worker processes read them
