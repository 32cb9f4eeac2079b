"""Suggests a learning rate for each phase of a recipe, or for one of them.

Trains a copy of the weights for some steps while the learning rate grows, and writes
DIR/lr_PHASE.png and DIR/lr_PHASE.csv. Nothing else is written.

Examples:
    fgc find_lr --config=quickstart --output=runs/lr
    fgc find_lr --config=quickstart --output=runs/lr --phase=all --from=runs/quickstart
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command, recipe


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    recipe.add(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for the plots and tables"
    )
    parser.add_argument(
        "--phase",
        default="",
        metavar="NAME",
        help="only the phase with this name (default: every phase; quickstart has head and all)",
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="DIR",
        help="run directory of the recipe: a phase starts from the checkpoint of the phase before "
        "it in that run (default: each phase starts from the run's initial weights)",
    )
    for name, kind, default, what in (
        ("lowest", float, 1e-7, "the first learning rate"),
        ("highest", float, 10.0, "the last learning rate, unless training diverges earlier"),
        ("steps", int, 100, "number of steps from the first to the last rate"),
    ):
        parser.add_argument(
            f"--{name}", type=kind, default=default, help=f"{what} (default: {default:g})"
        )
    return recipe.parse(parser, argv)


def run(arguments: argparse.Namespace) -> None:
    """Sweeps and prints. Raises ValueError if flags, recipe, data or the run cannot be used."""
    from fgc_jax import console
    from fgc_jax.training import lr_finder, phases, plans, rules

    try:
        rates = lr_finder.growing(arguments.lowest, arguments.highest, arguments.steps)
    except ValueError as error:
        raise ValueError(f"--lowest, --highest, --steps: {error}") from None
    settings = rules.parse(recipe.read(arguments.config, arguments.changes))
    names = [phase.name for phase in settings.phases]
    if arguments.phase not in ("", *names):
        allowed = console.choices(arguments.phase, names)
        raise ValueError(f"--phase={arguments.phase!r} is unknown; {allowed}")
    plan = plans.prepare(settings)
    method, task = phases.method_of(plan), phases.task_of(plan)
    rows = [("phase", "lr", "minimum", "steepest", "minimum / 10", "the sweep ended because")]
    for index, phase in enumerate(settings.phases):
        if arguments.phase not in ("", phase.name):
            continue
        *variables, begun, source = lr_finder.start(plan, index, method, arguments.start)
        curve = lr_finder.sweep(plan, index, begun, task, variables, rates)
        title = f"{phase.name}: {settings.model.backbone}, {plan.dataset.name}, from {source}"
        png, table = lr_finder.write(curve, arguments.output, title)
        console.say(f"phase {phase.name}, from {source}: {png}, {table}")
        found = lr_finder.suggestions(curve)
        found = [f"{rate:.2g}" for rate in found.values()] or ["the loss never fell", "-", "-"]
        rows.append((phase.name, f"{phase.lr:g}", *found, curve.end))
    console.say("\n" + console.table(rows, left=(0, 5)))


main = command.main(parse, run)
