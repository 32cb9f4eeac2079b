"""Trains a recipe: all its phases, then one look at the test split.

Without --workdir the run goes to runs/RECIPE[-VARIANTS]. A run that was stopped or killed continues
with the same command.

Examples:
    fgc train --config=quickstart
    fgc train --config=bcnn_aircraft:sgd --workdir=runs/bcnn --config.data.root=DIR
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command, recipe, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 1 where they are wrong."""
    recipes = recipe.listing()
    width = max(map(len, recipes), default=0)
    lines = [f"  {name:{width}}  {about}" for name, about in recipes.items()]
    parser = command.parser(__doc__)
    parser.exit_code = 1  # of training, whatever is wrong
    parser.epilog = "\n".join(["recipes:", *lines])
    recipe.add(parser)
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="run directory (default: runs/RECIPE[-VARIANTS]); a run that it holds continues",
    )
    run_flags.add_multi_host(parser)
    return recipe.parse(parser, argv)


def run(arguments: argparse.Namespace) -> None:
    """Trains. Raises what `train.run` raises, and ValueError where the recipe cannot be used."""
    settings = recipe.read(arguments.config, arguments.changes)
    from fgc_jax import console, mesh, train
    from fgc_jax.runs import checkpoint

    checkpoint.mute_leftover_writes()
    mesh.join_cluster(arguments.multi_host)
    workdir = arguments.workdir
    if workdir is None:
        workdir = Path("runs", recipe.run_name(arguments.config))
        console.say(f"The run directory is {workdir}; --workdir=DIR names another one.")
    train.run(settings, workdir)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return command.run(run, parse(argv))
