"""Suggests learning rates: python scripts/find_lr.py --config=FILE --output=DIR [--phase=NAME].

Trains a copy of the weights for a moment while the learning rate grows, for each phase of a recipe
or one of them, and writes DIR/lr_PHASE.png and DIR/lr_PHASE.csv. Nothing else is written.
"""

from pathlib import Path

from absl import app, flags

from fgc_jax import files
from fgc_jax.cli import recipe_flags

OUTPUT = flags.DEFINE_string("output", None, "Folder that the plots and tables are written to.")
PHASE = flags.DEFINE_string("phase", "", "Name of the phase to sweep (default: all of them).")
FROM = flags.DEFINE_string(
    "from",
    None,
    "Run directory of the recipe. A phase then starts from what it starts from in that run: the "
    "checkpoint of the phase before it. Else each phase starts from the run's initial weights.",
)
LOWEST = flags.DEFINE_float("lowest", 1e-7, "The first learning rate.")
HIGHEST = flags.DEFINE_float("highest", 10.0, "The last one, unless training diverges before.")
STEPS = flags.DEFINE_integer("steps", 100, "Optimiser steps from the first to the last.")
flags.adopt_module_key_flags(recipe_flags)


def main(argv: list[str]) -> None:
    """Sweeps, and turns errors into one line and an exit code."""
    recipe_flags.prepare(argv)
    files.keep_compiled()
    try:
        run()
    except (ValueError, OSError) as error:
        recipe_flags.fail(error)


def run() -> None:
    """Raises ValueError where flags, recipe, data or the run to start from cannot be used."""
    from fgc_jax import console
    from fgc_jax.training import classification, lr_finder, phases, plans, rules

    sweep = {"lowest": LOWEST.value, "highest": HIGHEST.value, "steps": STEPS.value}
    lr_finder.check(**sweep)
    settings = rules.parse(recipe_flags.CONFIG.value)
    numbers = lr_finder.chosen_phases(settings, PHASE.value)
    plan = plans.prepare(settings)
    method, task = phases.method_of(plan), classification.task(plan)
    rows = [("phase", "lr", "minimum", "steepest", "minimum / 10", "the sweep ended because")]
    for index in numbers:
        phase = settings.phases[index]
        *variables, source = lr_finder.start(plan, index, FROM.value and Path(FROM.value))
        curve = lr_finder.sweep(plan, index, method, task, variables, **sweep)
        title = f"{phase.name}: {settings.model.backbone}, {plan.dataset.name}, from {source}"
        png, table = lr_finder.write(curve, Path(OUTPUT.value), title)
        console.say(f"phase {phase.name}, from {source}: {png}, {table}")
        found = lr_finder.suggestions(curve)
        found = [f"{rate:.2g}" for rate in found.values()] or ["the loss never fell", "-", "-"]
        rows.append((phase.name, f"{phase.lr:g}", *found, curve.end))
    console.say("\n" + console.table(rows, left=(0, 5)))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "output"])
    app.run(main, flags_parser=recipe_flags.parse)
