"""Recipes: the flags --config=NAME and --config.KEY=VALUE, finding recipes, and reading them."""

import argparse
import ast
import difflib
import re
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# The folder that contains the package's own configs/: in a checkout, the repository.
BUNDLE = PACKAGE / "bundled" if (PACKAGE / "bundled").is_dir() else PACKAGE.parent
BASE = "common"  # the recipes of configs/ start from this file, which is not a recipe itself


def add(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds --config to a parser or to a group of its flags; `parse` reads it."""
    parser.add_argument(
        "--config",
        required=required,
        metavar="NAME[:VARIANTS]",
        help="name of a recipe, or a file FILE.py[:VARIANTS]; --config.KEY=VALUE changes a value, "
        "for example --config.phases[0].lr=0.01",
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; `changes` contains each --config.KEY=VALUE. Other words are errors."""
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
    """The recipe of --config=`config` as a ConfigDict, with `changes` as on the command line, each
    `--config.KEY=VALUE`. KEY may lead into a tuple, for example `phases[1].lr`.

    Raises:
        ValueError: the recipe or a change is wrong; the message is one line.
    """
    from absl import flags
    from ml_collections import config_flags

    path, colon, variants = config.partition(":")
    file = find(path)
    _bind_configs(file)
    argv = ["recipe", f"--config={file}{colon}{variants}", *changes]
    values = flags.FlagValues()
    try:
        holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # how ml_collections imports it
            strays = values(argv)[1:]
        holder.value.keys()  # a recipe that cannot be read raises at its first use
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        raise ValueError(_one_line(error)) from error
    if strays:
        raise ValueError(f"unknown arguments {strays}: write --config.KEY=VALUE with '='")
    return holder.value


def _bind_configs(recipe: Path) -> None:
    """Makes `from configs import ...` in the file `recipe` find the files beside it if its folder
    is a configs/, then those of ./configs, then those of the package, whatever else is installed
    under that name. So a recipe of the package starts from the package's common.py."""
    beside = [recipe.resolve().parent] if recipe.resolve().parent.name == "configs" else []
    folders = dict.fromkeys([*beside, Path.cwd() / "configs", BUNDLE / "configs"])
    if list(getattr(sys.modules.get("configs"), "__path__", ())) == list(map(str, folders)):
        return
    package = types.ModuleType("configs")
    package.__path__ = list(map(str, folders))
    for name, module in list(sys.modules.items()):
        if name.startswith("configs."):
            short = name.partition(".")[2]
            places = (folder / f"{short}.py" for folder in folders)
            if str(next(filter(Path.is_file, places), "")) == module.__file__:
                setattr(package, short, module)
            else:
                del sys.modules[name]  # of the same name, for a recipe in another folder
    sys.modules["configs"] = package


def find(path: str) -> Path:
    """The file of the recipe NAME or FILE.py, in the current folder or else in the package.

    Raises:
        ValueError: there is no such recipe; the message contains the most similar name.
    """
    file = Path(path) if path.endswith(".py") else Path("configs", f"{path}.py")
    for place in (Path(), BUNDLE):
        if (place / file).is_file():
            return place / file
    names = listing()
    close = difflib.get_close_matches(file.stem, names, n=1)
    similar = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"--config={path}: there is no {file}; {similar}Recipes: {', '.join(names)}")


def listing() -> Mapping[str, str]:
    """Name -> first line of its docstring, for the recipes in configs/ of the current folder and of
    the package. The recipes are not imported."""
    files = {file.stem: file for place in (BUNDLE, Path()) for file in place.glob("configs/*.py")}
    found = {}
    for name, file in sorted(files.items()):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:  # not UTF-8, a link to nothing
            found[name] = f"cannot be read: {error}"
            continue
        except SyntaxError as error:
            found[name] = f"cannot be read: {error.msg} in line {error.lineno}"
            continue
        if name != BASE and any(getattr(node, "name", "") == "get_config" for node in tree.body):
            found[name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def run_name(config: str) -> str:
    """The name of the run of --config=`config`: "quickstart-tiny" for quickstart.py:tiny."""
    path, _, variants = config.partition(":")
    return "-".join([Path(path).stem, *re.findall(r"[\w.]+", variants)])


def _one_line(error: Exception) -> str:
    """An error of ml_collections or absl as one line for the user."""
    if isinstance(error, IndexError):
        return "a --config.KEY has a number that its tuple does not have, e.g. phases[9]"
    if "tuple indices must be" in str(error):
        return "a --config.KEY needs a number after the name of a tuple, e.g. phases[0].lr"
    text = str(error).replace("\\n", " ").replace("\\'", "'").strip()
    while text[:1] in ("'", '"') and text[:1] == text[1:][-1:]:  # quoted: a KeyError
        text = text[1:-1].strip()
    if "Traceback" in text:  # an error in the recipe itself; the last line is its message
        text = re.sub(r"^\w+: ", "", text.splitlines()[-1])
    text = " ".join(text.split())
    if wrong := re.fullmatch(r"\W*(\w+)\W+Did you mean \"(\w+)\".*", text):
        return f"the recipe has no key {wrong[1]!r}; did you mean {wrong[2]!r}?"
    return f"the recipe has no key {text!r}" if re.fullmatch(r"\w+", text) else text
