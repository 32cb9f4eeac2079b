"""The learning rates of a run, phase by phase, drawn with matplotlib's object interface."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from fgc_jax.plots import style

COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#4d9fb5", "#57606a")
DECADES = 2  # of a logarithmic axis, below the smallest peak


def figure(phases: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draws what `training.curves.of_phases` returns: the rates and a cycled momentum."""
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
    """A phase's name above its part of the axes, and its caption if there is room."""
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
