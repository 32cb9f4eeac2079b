"""Recipes: the flags --config=NAME and --config.KEY=VALUE, where recipes lie, and reading them."""

import argparse
import ast
import difflib
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# The folder that holds the package's own configs/: in a checkout, the repository.
BUNDLE = PACKAGE / "bundled" if (PACKAGE / "bundled").is_dir() else PACKAGE.parent
BASE = "common"  # what the recipes of configs/ start from: no recipe itself


def add(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds --config to a parser or to a group of its flags; `parse` reads it."""
    parser.add_argument(
        "--config",
        required=required,
        metavar="NAME[:VARIANTS]",
        help="recipe: the name of one, or a file FILE.py[:VARIANTS]; --config.KEY=VALUE changes a "
        "value, as in --config.phases[0].lr=0.01",
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; `changes` holds each --config.KEY=VALUE as it was written. Refuses the rest."""
    arguments, changes = parser.parse_known_args(argv)
    strays = [
        word
        for before, word in zip(["", *changes], changes, strict=False)
        if not word.startswith("--config.") and not re.fullmatch(r"--config\.[^=]+", before)
    ]
    if strays:
        parser.error(f"unrecognized arguments: {' '.join(strays)}")
    arguments.changes = changes
    return arguments


def read(config: str, changes: Sequence[str] = ()):
    """The recipe --config=`config` as a ConfigDict, with changes as on the command line, each
    `--config.KEY=VALUE`; KEY may lead into a tuple, as in `phases[1].lr`.

    Raises:
        ValueError: in one line, whatever is wrong with the recipe or a change.
    """
    from absl import flags
    from ml_collections import config_flags

    path, colon, variants = config.partition(":")
    # Recipes import each other: the user's own before those of the package, whose folder comes
    # last, so that it hides nothing that is installed.
    sys.path[:0] = [] if "" in sys.path else [""]
    sys.path += [] if str(BUNDLE) in sys.path else [str(BUNDLE)]
    argv = ["recipe", f"--config={find(path)}{colon}{variants}", *changes]
    values = flags.FlagValues()
    try:
        holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # how ml_collections imports it
            strays = values(argv)[1:]
        holder.value.keys()  # a recipe that could not be read fails at its first use only
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        raise ValueError(_one_line(error)) from error
    if strays:
        raise ValueError(f"stray arguments {strays}: write --config.KEY=VALUE with '='")
    return holder.value


def find(path: str) -> Path:
    """The file of the recipe NAME or FILE.py: one below the current folder, or the package's own.

    Raises:
        ValueError: there is none. The most similar name is in the message.
    """
    file = Path(path) if path.endswith(".py") else Path("configs", f"{path}.py")
    for place in (Path(), BUNDLE):
        if (place / file).is_file():
            return place / file
    names = listing()
    close = difflib.get_close_matches(file.stem, names, n=1)
    similar = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"--config={path}: no recipe {file}; {similar}Recipes: {', '.join(names)}")


def listing() -> Mapping[str, str]:
    """Name -> first line of its docstring, for the recipes in configs/ of the current folder and of
    the package. None of them is imported."""
    files = {file.stem: file for place in (BUNDLE, Path()) for file in place.glob("configs/*.py")}
    found = {}
    for name, file in sorted(files.items()):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except SyntaxError as error:
            found[name] = f"cannot be read: {error.msg} in line {error.lineno}"
            continue
        if name != BASE and any(getattr(node, "name", "") == "get_config" for node in tree.body):
            found[name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def run_name(config: str) -> str:
    """What a run of --config=`config` is called: "quickstart-tiny" for quickstart.py:tiny."""
    path, _, variants = config.partition(":")
    return "-".join([Path(path).stem, *re.findall(r"[\w.]+", variants)])


def _one_line(error: Exception) -> str:
    """What a user needs of an error that ml_collections or absl raised."""
    if isinstance(error, IndexError):
        return "a --config.KEY leads to a place that its tuple does not have, e.g. phases[9]"
    # ml_collections passes on the text of a KeyError, quotes and escapes included.
    text = str(error).strip("\"'").replace("\\n", " ").replace("\\'", "'").strip()
    if "Traceback" in text:  # an error in the recipe itself: the last line says what
        text = re.sub(r"^\w+: ", "", text.splitlines()[-1])
    text = " ".join(text.split())
    if wrong := re.fullmatch(r"\W*(\w+)\W+Did you mean \"(\w+)\".*", text):
        return f"the recipe has no key {wrong[1]!r}; did you mean {wrong[2]!r}?"
    return f"the recipe has no key {text!r}" if re.fullmatch(r"\w+", text) else text
