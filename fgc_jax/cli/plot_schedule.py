"""Draws the learning rate of each group of layers over the epochs of all phases of a recipe.

Writes a PNG; it also shows the momentum if a schedule cycles it. Nothing is trained. The data set
is loaded only to count its training images; --train_images gives their number without it.

Examples:
    fgc plot_schedule --config=quickstart
    fgc plot_schedule --config=bcnn_aircraft:sgd --train_images=5334
    fgc plot_schedule --config=quickstart --output=one_cycle.png \\
        --config.phases[1].schedule=one_cycle --config.phases[1].warmup=""
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command, recipe, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    recipe.add(parser)
    parser.add_argument(
        "--output",
        type=run_flags.png,
        default=Path("schedule.png"),
        metavar="FILE.png",
        help="the picture to write (default: schedule.png)",
    )
    parser.add_argument(
        "--train_images",
        type=run_flags.positive,
        metavar="N",
        help="number of training images, without validation images (default: that of the data)",
    )
    return recipe.parse(parser, argv)


def run(arguments: argparse.Namespace) -> None:
    """Writes the picture. Raises ValueError if the recipe or the data cannot be used."""
    from fgc_jax.data import dataset
    from fgc_jax.plots import schedule, style
    from fgc_jax.training import curves, plans, rules

    output, images = arguments.output, arguments.train_images
    settings = rules.parse(recipe.read(arguments.config, arguments.changes))
    if images is None:
        try:
            plan = plans.assemble(settings, plans.load_data(settings))
        except (ValueError, OSError) as error:
            raise ValueError(f"{error} (or give --train_images=N)") from None
        images = len(plan.dataset.splits["train"])
    else:
        # Any number of classes will do: nothing here depends on it.
        plan = plans.assemble(settings, dataset.without_images(2))
    phases = curves.of_phases(plan, images)
    title = f"{arguments.config}, {images:,} training images"
    style.save(schedule.figure(phases, title), output)
    epochs, steps = phases[-1]["borders"][1], sum(phase["steps"] for phase in phases)
    print(f"wrote {output}: {len(phases)} phases, {epochs} epochs, {steps:,} steps")


main = command.main(parse, run)
