"""Prints how much memory each phase of a recipe needs. Reads no images and no weights.

Compiles the train step of each phase for one device of this machine and prints the memory that XLA
reports, in MB (1e6 bytes): parameters, the optimiser's state (with averaged weights), and
temporaries (activations, gradients and work space). The last column is the TFLOP of a step by XLA's
cost analysis.

Examples:
    fgc estimate_memory --config=lora_folder --classes=200
    fgc estimate_memory --config=lora_folder:full --config.phases[0].batch_size=8
"""

import argparse

from fgc_jax.cli import command, recipe, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    recipe.add(parser)
    parser.add_argument(
        "--classes",
        type=run_flags.at_least(2),
        default=200,
        metavar="N",
        help="number of classes, at least 2 (default: 200)",
    )
    return recipe.parse(parser, argv)


def run(arguments: argparse.Namespace) -> None:
    """Prints the table. Raises ValueError if the recipe cannot be used."""
    from fgc_jax.data import dataset
    from fgc_jax.training import memory, plans, rules

    settings = rules.parse(recipe.read(arguments.config, arguments.changes))
    plan = plans.assemble(settings, dataset.without_images(arguments.classes))
    print(memory.table(plan))


main = command.main(parse, run)
