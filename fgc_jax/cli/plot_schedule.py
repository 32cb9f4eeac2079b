"""Draws a recipe's learning rates: python scripts/plot_schedule.py --config=... [...]."""

import argparse
import itertools
import math
import sys
from pathlib import Path

from fgc_jax.cli import command

DESCRIPTION = """\
Writes a PNG of the learning rate of each group of layers over the epochs of all phases, and of the
momentum where a schedule cycles it. Nothing is trained; the data set is read only to count its
training images, which --train_images says without it."""

EXAMPLES = """\
examples:
  python scripts/plot_schedule.py --config=configs/quickstart.py
  python scripts/plot_schedule.py --config=configs/bcnn_aircraft.py:sgd --train_images=5334
  python scripts/plot_schedule.py --config=configs/quickstart.py \\
      --config.phases[1].schedule=one_cycle --config.phases[1].warmup="" --output=one_cycle.png"""

COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#4d9fb5", "#57606a")
POINTS = 1500  # at which a phase is drawn
BAND = 4  # more rates than this of one group are drawn as the band that they fill
DECADES = 2  # of a logarithmic axis, below the smallest peak


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """(the flags, the changes --config.KEY=VALUE); exits with code 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="recipe, as for fgc_jax.main; change a value with --config.KEY=VALUE",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("schedule.png"),
        metavar="FILE.png",
        help="what is written (default: schedule.png)",
    )
    parser.add_argument(
        "--train_images",
        type=int,
        metavar="N",
        help="images that train, validation left out (default: counted in the data set)",
    )
    arguments, changes = parser.parse_known_args(argv)
    strays = [change for change in changes if not change.startswith("--config.")]
    if strays:
        parser.error(f"unrecognized arguments: {' '.join(strays)}")
    return arguments, changes


def assembled(settings, train_images):
    """(the plan, how many images train)."""
    from fgc_jax.data import dataset
    from fgc_jax.training import plans

    if train_images is None:
        try:
            data = plans.load_data(settings)
        except (ValueError, OSError) as error:
            raise ValueError(f"{error} (or say --train_images=N)") from None
        return plans.assemble(settings, data), len(data.splits["train"])
    # Two classes stand for whatever there are: nothing here depends on their number.
    return plans.assemble(settings, dataset.Dataset("none", ("a", "b"), {})), train_images


def lines(plan, phase) -> list[tuple[str, list[float]]]:
    """What learns at which multiplier of the phase's rate: [(label, multipliers), ...], fast ones
    first. A group of more than BAND different multipliers is one entry with all of them."""
    found: dict[str, dict[float, set[str]]] = {}
    for path, label in plan.labels(phase).items():
        if label.trains:
            found.setdefault(label.group, {}).setdefault(label.factor, set()).add(path)
    entries = []
    for group, factors in found.items():
        prefix = "" if group == "all" else f"{group}: "
        if len(factors) > BAND:
            paths = set().union(*factors.values())
            reach = extent(plan.network.layers, paths)
            text = f"{reach} x {min(factors):.2g} to {max(factors):.3g}"
            entries.append((prefix + text, sorted(factors)))
            continue
        for factor, paths in factors.items():
            times = f" x {factor:.3g}" if factor != 1 else ""
            entries.append((prefix + extent(plan.network.layers, paths) + times, [factor]))
    return sorted(entries, key=lambda entry: -max(entry[1]))


def extent(layers, paths: set[str]) -> str:
    """The layers that some parameters lie in, as "layer1/0 to head"."""
    from fgc_jax import trees
    from fgc_jax.training import trainable

    names = [
        name
        for name, prefixes in layers.items()
        if any(trees.is_under(path, prefix) for path in paths for prefix in prefixes)
    ]
    names += ["head"] * any(map(trainable.is_head, paths))
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def curves(settings, plan, train_images):
    """For each phase what is drawn: a dict of its name, caption, first and last epoch, and by line
    the rates `[multipliers, points]` over `epochs` `[points]`, and momenta `[points]` or None."""
    import jax
    import numpy as np

    from fgc_jax.data import pipeline
    from fgc_jax.training import schedules

    begin, found = 0, []
    for phase in settings.phases:
        per_epoch = pipeline.steps_per_epoch(train_images, phase.batch_size)
        schedule = schedules.build(phase, per_epoch)
        total = phase.epochs * per_epoch
        steps = np.unique(np.linspace(0, total - 1, min(total, POINTS)).round().astype(np.int32))
        rate = np.asarray(jax.jit(jax.vmap(schedule.rate))(steps))
        momentum = None
        if schedule.momentum is not None:
            momentum = np.asarray(jax.jit(jax.vmap(schedule.momentum))(steps))
        found.append(
            {
                "name": phase.name,
                "caption": f"{phase.optimizer}, {phase.schedule}\n{phase.crop} px, batch "
                f"{phase.batch_size}",
                "borders": (begin, begin + phase.epochs),
                "epochs": begin + (steps + 0.5) / per_epoch,
                "rates": {label: np.outer(factors, rate) for label, factors in lines(plan, phase)},
                "momentum": momentum,
                "constant_momentum": phase.momentum,
                "steps": total,
            }
        )
        begin += phase.epochs
    return found


def figure(phases, title: str):
    """The drawing of `curves`: rates above, and below the momentum if it is cycled."""
    from matplotlib.figure import Figure

    from fgc_jax.plots import style

    end = phases[-1]["borders"][1]
    cycled = any(phase["momentum"] is not None for phase in phases)
    picture = Figure((9.5, 6.6 if cycled else 4.8), dpi=style.DPI, layout="constrained")
    heights = [3, 1] if cycled else [1]
    panels = picture.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    axes = panels[0]
    palette = dict(
        zip(
            dict.fromkeys(label for phase in phases for label in phase["rates"]),
            itertools.cycle(COLOURS),
            strict=False,
        )
    )
    for phase in phases:
        for label, rates in phase["rates"].items():
            colour, epochs = palette[label], phase["epochs"]
            axes.plot(epochs, rates[-1], color=colour, linewidth=1.8, label=label)
            if len(rates) > 1:
                axes.plot(epochs, rates[0], color=colour, linewidth=1.8)
                axes.fill_between(epochs, rates[0], rates[-1], color=colour, alpha=0.15, lw=0)
    peaks = [rate.max() for phase in phases for rates in phase["rates"].values() for rate in rates]
    if max(peaks) > 12 * min(peaks) > 0:
        axes.set_yscale("log")
        lowest = min(rates.min() for phase in phases for rates in phase["rates"].values())
        axes.set_ylim(max(lowest / 1.6, min(peaks) / 10**DECADES), 1.6 * max(peaks))
    else:
        axes.set_ylim(0, 1.06 * max(peaks) or 1)
    axes.set_ylabel("learning rate", color=style.INK)
    if cycled:
        for phase in phases:
            values = phase["momentum"]
            if values is None:
                values = [phase["constant_momentum"]] * len(phase["epochs"])
            panels[1].plot(phase["epochs"], values, color=style.FAINT, linewidth=1.8)
        panels[1].set_ylabel("momentum", color=style.INK)
        panels[1].margins(y=0.15)
    for panel in panels:
        panel.set_xlim(0, end)
        panel.tick_params(colors=style.INK, labelsize=9)
        panel.grid(color="#eaeef2", linewidth=0.8)
        for side, spine in panel.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color("#d0d7de")
        for phase in phases[1:]:
            panel.axvline(phase["borders"][0], color=style.FAINT, linewidth=0.9, linestyle="--")
    panels[-1].set_xlabel("epoch", color=style.INK)
    for phase in phases:
        _caption(axes, phase, end)
    axes.set_title(title, fontsize=11, color=style.INK, loc="left", pad=46, parse_math=False)
    handles = {line.get_label(): line for line in axes.lines if line.get_label() in palette}
    picture.legend(
        handles=list(handles.values()),
        loc="outside lower center",
        ncols=min(3, len(palette)),
        fontsize=9,
        frameon=False,
        labelcolor=style.INK,
    )
    return picture


def _caption(axes, phase, end) -> None:
    """A phase's name over its part of the axes, and what else there is room for."""
    from fgc_jax.plots import style

    first, last = phase["borders"]
    letters = math.floor(118 * (last - first) / end)  # that fit over it
    if letters < 3:
        return
    lines = [style.shortened(style.drawable(phase["name"], 0), letters)]
    lines += [line for line in phase["caption"].split("\n") if len(line) <= letters]
    place = axes.get_xaxis_transform()
    for number, line in enumerate(lines):
        axes.annotate(
            line,
            (first, 1),
            (4, 30 - 12 * number),
            xycoords=place,
            textcoords="offset points",
            fontsize=9,
            color=style.FAINT if number else style.INK,
            fontweight="normal" if number else "bold",
            parse_math=False,
        )


def run(arguments: argparse.Namespace, changes: list[str]) -> None:
    """Writes the picture. Raises ValueError where recipe, data or output cannot be used."""
    from fgc_jax.cli import recipe
    from fgc_jax.plots import style
    from fgc_jax.training import rules

    output, images = arguments.output, arguments.train_images
    if output.suffix.lower() != ".png":
        raise ValueError(f"--output={output}: must end in .png")
    if images is not None and images < 1:
        raise ValueError(f"--train_images={images}: must be at least 1")
    settings = rules.parse(recipe.read(arguments.config, changes))
    plan, images = assembled(settings, images)
    phases = curves(settings, plan, images)
    title = f"{arguments.config}, {images:,} training images"
    style.save(figure(phases, title), output)
    epochs, steps = phases[-1]["borders"][1], sum(phase["steps"] for phase in phases)
    print(f"wrote {output}: {len(phases)} phases, {epochs} epochs, {steps:,} steps")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    arguments, changes = parse(argv)
    # Recipes import each other from the folder that the command is called in, as under -m.
    sys.path.insert(0, "")
    return command.run(run, arguments, changes)


if __name__ == "__main__":
    sys.exit(main())
