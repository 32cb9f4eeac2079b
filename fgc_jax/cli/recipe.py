"""Reads a recipe and its changes, `--config=FILE` and `--config.KEY=VALUE`, for scripts."""

import re
import warnings
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

ERRORS = (flags.Error, AttributeError, LookupError, TypeError, ValueError, OSError)


def read(path: str, changes: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The recipe `configs/NAME.py[:variants]` with changes as on the command line of
    `fgc_jax.main`, each `--config.KEY=VALUE`; KEY may lead into a tuple, as in `phases[1].lr`.

    Raises:
        ValueError: in one line, whatever is wrong with the recipe or a change.
    """
    strays = [change for change in changes if not re.match(r"--config\.[^=]+=", change)]
    if strays:
        raise ValueError(f"stray arguments {strays}: write --config.KEY=VALUE with '='")
    argv = ["recipe", f"--config={path}", *changes]
    values = flags.FlagValues()
    try:
        holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # how ml_collections imports it
            values(argv)
        holder.value.keys()  # a recipe that could not be read fails at its first use only
    except ERRORS as error:
        raise ValueError(one_line(error)) from None
    return holder.value


def one_line(error: Exception) -> str:
    """What a user needs of an error that ml_collections or absl raised."""
    if isinstance(error, IndexError):
        return "a --config.KEY leads to a place that its tuple does not have, e.g. phases[9]"
    # ml_collections passes on the text of a KeyError, quotes and escapes included.
    text = str(error).strip("\"'").replace("\\n", " ").replace("\\'", "'").strip()
    if "Traceback" in text:  # an error in the recipe itself: the last line says what
        text = re.sub(r"^\w+: ", "", text.splitlines()[-1])
    text = " ".join(text.split())
    return f"the recipe has no key {text!r}" if re.fullmatch(r"\w+", text) else text
