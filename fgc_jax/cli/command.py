"""The shared parts of all commands: the parser of their flags, and how errors become exit codes.

Most modules of this folder are a command: `parse` reads its flags, `run` does the work. No module
imports jax at its top, so that `fgc --help` is fast.
"""

import argparse
import sys
import textwrap
from collections.abc import Callable


class Parser(argparse.ArgumentParser):
    """Prints an error about the flags in one line, and exits with `exit_code`."""

    exit_code = 2
    more: Callable[[], str] | None = None  # what --help ends with

    def format_help(self) -> str:
        self.epilog = self.more() if self.more else self.epilog
        return super().format_help()

    def error(self, message: str) -> None:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(self.exit_code)


def parser(text: str) -> Parser:
    """The parser of a command with the docstring `text`: what it does, and "Examples:", which
    `--help` shows first. This also prepares the process, before anything imports jax."""
    _prepare()
    description, _, examples = text.partition("\n\nExamples:\n")
    made = Parser(
        usage=textwrap.dedent(examples).strip().replace("%", "%%").replace("\n", "\n       "),
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--traceback", action="store_true", help="show where in the code an error occurred"
    )
    return made


def run(work: Callable[[argparse.Namespace], int | None], arguments: argparse.Namespace) -> int:
    """Calls `work(arguments)` and returns the exit code: that of `work`, or 0.

    For an error that the user can correct it prints one line on stderr and returns 1; with
    `--traceback` it raises the error. If `work` was asked to stop it returns 143, like a process
    that SIGTERM has ended, so that schedulers see that the job is not finished; after Ctrl-C 130.
    """
    try:
        return work(arguments) or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        code = _exit_code(error)
        if not code or (arguments.traceback and code == 1):
            raise
        told = f"{error}; the same command continues" if code == 143 else f"error: {error}"
        print(told, file=sys.stderr)
        return code


def main(parse: Callable, work: Callable) -> Callable[..., int]:
    """The function (flags, by default those of the process) -> exit code of a command."""
    return lambda argv=None: run(work, parse(argv))


def _exit_code(error: Exception) -> int:
    """The exit code for an error; 0 for an error in the code, which the user cannot correct."""
    if isinstance(error, (ValueError, OSError)):
        return 1
    from fgc_jax.runs import checkpoint, meter, stop

    if isinstance(error, stop.Stopped):
        return 143
    return int(isinstance(error, (meter.NonFiniteLoss, checkpoint.CheckpointError)))


def _prepare() -> None:
    """Sets what is needed before jax is imported, and the state of absl that libraries expect."""
    from absl import flags, logging

    from fgc_jax import files

    files.keep_compiled()
    logging.set_verbosity(logging.FATAL)  # orbax logs each detail, and failures as tracebacks
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # clu and grain's worker processes read them
