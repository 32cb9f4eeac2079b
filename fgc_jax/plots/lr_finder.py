"""The losses of a learning rate range test, drawn with matplotlib's object interface."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fgc_jax.plots import style


def figure(curve: Any, suggestions: Mapping[str, float], title: str) -> Figure:
    """Draws a `training.lr_finder.Curve`: both losses over the learning rate, and the suggested
    rates by name."""
    picture = Figure((7.5, 4.5), dpi=style.DPI)
    axes = picture.add_subplot()
    axes.plot(curve.rates, curve.losses, color="#9fb0c0", linewidth=1, label="loss")
    axes.plot(curve.rates, curve.smoothed, color=style.INK, linewidth=1.8, label="smoothed")
    colours = (style.HIT, "#0969da", style.ERROR)
    for (name, rate), color in zip(suggestions.items(), colours, strict=False):
        height = np.interp(math.log(rate), np.log(curve.rates), curve.smoothed)
        axes.plot(rate, height, "o", color=color, label=f"{name}: {rate:.2g}", zorder=3)
        axes.axvline(rate, color=color, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    # The losses of the last steps are orders of magnitude above the interesting ones.
    low, high = float(curve.losses.min()), float(curve.smoothed.max())
    margin = 0.1 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("learning rate", color=style.INK)
    axes.set_ylabel("training loss", color=style.INK)
    axes.set_title(title, fontsize=11, color=style.INK, loc="left", parse_math=False)
    axes.legend(frameon=False, fontsize=9)
    axes.grid(color="#eaeef2")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return picture
