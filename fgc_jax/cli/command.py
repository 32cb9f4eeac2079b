"""What all commands share: the parser of their flags, and how they end.

A module of this folder is a command: `parse` reads its flags, `run` does what they say. No module
imports jax when it is imported, so that `fgc --help` answers at once.
"""

import argparse
import sys
import textwrap
from collections.abc import Callable


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the flags, and exits with `exit_code`."""

    exit_code = 2

    def error(self, message: str) -> None:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(self.exit_code)


def parser(text: str) -> Parser:
    """The parser of a command whose docstring is `text`: what it does, and its "Examples:", which
    `--help` begins with. Prepares the process as well, before anything imports jax."""
    _prepare()
    description, _, examples = text.partition("\n\nExamples:\n")
    made = Parser(
        usage=textwrap.dedent(examples).strip().replace("%", "%%").replace("\n", "\n       "),
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--traceback", action="store_true", help="show where in the code an error came from"
    )
    return made


def run(work: Callable[[argparse.Namespace], int | None], arguments: argparse.Namespace) -> int:
    """Calls `work(arguments)` and returns the exit code: what `work` returns, or 0.

    An error that the user can mend is one line on stderr and 1, or raised with `--traceback`; 143,
    as after an unhandled SIGTERM, where `work` was told to stop. Schedulers then see that the job
    is not finished.
    """
    try:
        return work(arguments) or 0
    except Exception as error:
        code = _exit_code(error)
        if not code or (arguments.traceback and code == 1):
            raise
        told = f"{error}; the same command continues" if code == 143 else f"error: {error}"
        print(told, file=sys.stderr)
        return code


def _exit_code(error: Exception) -> int:
    """0 for errors in the code, which the user cannot mend."""
    if isinstance(error, (ValueError, OSError)):
        return 1
    from fgc_jax.runs import checkpoint, meter, stop

    if isinstance(error, stop.Stopped):
        return 143
    return int(isinstance(error, (meter.NonFiniteLoss, checkpoint.CheckpointError)))


def _prepare() -> None:
    """What must be set before jax is imported, and what other libraries expect of absl."""
    from absl import flags, logging

    from fgc_jax import files

    files.keep_compiled()
    logging.set_verbosity(logging.FATAL)  # orbax logs each detail, and failures as tracebacks
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # clu and grain's worker processes read them
