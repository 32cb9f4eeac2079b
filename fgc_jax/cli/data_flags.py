"""The flags that select a data set: --name, --root, --options."""

import argparse
import ast
import json


def add(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds the flags to a parser; `dataset` reads them."""
    what = parser.add_argument_group("the data set (as in config.data of a recipe)")
    what.add_argument(
        "--name", required=required, metavar="NAME", help="folder, csv, aircraft, ..."
    )
    what.add_argument("--root", default="", metavar="DIR", help="folder of the data set")
    what.add_argument(
        "--options",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="options of the data set, e.g. level=family, or one JSON object with all options",
    )


def dataset(arguments: argparse.Namespace):
    """(Dataset, its options as a dict). Raises ValueError if the flags or the data are wrong."""
    from fgc_jax import data

    options = parse_options(arguments.options)
    return data.load(arguments.name, arguments.root, options), options


def parse_options(words: list[str]) -> dict:
    """KEY=VALUE words, or one JSON object, as a dict. A value is JSON or a Python literal, for
    example (1, 2) or None; anything else is a string. Raises ValueError for other words."""
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            return json.loads(words[0])
        except ValueError as error:
            raise ValueError(f"--options={words[0]} is not valid JSON ({error})") from error
    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise ValueError(f"--options: {word!r} is not KEY=VALUE")
        if key in options:
            raise ValueError(f"--options: {key!r} is given twice")
        options[key] = _parsed(value)
    return options


def _parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        value = ast.literal_eval(text)
        json.dumps(value)  # options are stored as JSON: no sets, bytes, complex numbers
    except (ValueError, TypeError, SyntaxError):
        return text
    return value
