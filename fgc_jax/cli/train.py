"""Trains a recipe: all its phases, then one evaluation of the test split.

Without --workdir the run directory is runs/RECIPE[-VARIANTS]. The same command continues a run that
was stopped or killed.

Examples:
    fgc train --config=quickstart
    fgc train --config=bcnn_aircraft:sgd --workdir=runs/bcnn --config.data.root=DIR
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command, recipe, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 1 if they are wrong."""
    parser = command.parser(__doc__)
    parser.exit_code = 1  # training has the same exit code for every error
    parser.more = _recipes
    recipe.add(parser)
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="run directory (default: runs/RECIPE[-VARIANTS]); a run in it is continued",
    )
    run_flags.add_multi_host(parser)
    return recipe.parse(parser, argv)


def _recipes() -> str:
    recipes = recipe.listing()
    width = max(map(len, recipes), default=0)
    return "\n".join(
        ["recipes:", *(f"  {name:{width}}  {about}" for name, about in recipes.items())]
    )


def run(arguments: argparse.Namespace) -> None:
    """Trains. Raises the errors of `train.run`, and ValueError if the recipe cannot be used."""
    settings = recipe.read(arguments.config, arguments.changes)
    from fgc_jax import console, mesh, train
    from fgc_jax.runs import checkpoint

    checkpoint.mute_leftover_writes()
    mesh.join_cluster(arguments.multi_host)
    workdir = arguments.workdir
    if workdir is None:
        workdir = Path("runs", recipe.run_name(arguments.config))
        console.say(f"The run directory is {workdir}; choose another one with --workdir=DIR.")
    train.run(settings, workdir)


main = command.main(parse, run)
