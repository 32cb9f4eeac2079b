"""Figures of attention maps, drawn with matplotlib's object interface."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fgc_jax.explain.attention import Explanation
from fgc_jax.plots import style

SHOWN = 6  # the strongest single maps of each image
SIDE = 1.3  # inches
OPACITY = 0.65  # of the strongest attention
COLOURS = matplotlib.colormaps["inferno"]


def attention(
    rows: Sequence[tuple[str, Explanation]], class_names: Sequence[str], title: str
) -> Figure:
    """A figure with a row for each image, given as (true class or "", its maps): the image with the
    box of its crop, the mean map, the strongest single maps, the crop, and the image without the
    region of the strongest map; below them the plain and the effect prediction."""
    maps = min(SHOWN, rows[0][1].attention.shape[-1])
    columns, gap, text, head = 4 + maps, 0.08, 0.5, 0.75
    width = columns * (SIDE + gap) + gap
    height = head + len(rows) * (SIDE + text)
    figure = Figure((width, height), dpi=style.DPI)
    figure.text(gap / width, 1 - 0.12 / height, title, fontsize=10, va="top", color=style.INK)
    names = ["image and crop", "mean map", *(f"map {k + 1}" for k in range(maps)), "crop", "erased"]
    for column, name in enumerate(names):
        x = gap + column * (SIDE + gap)
        figure.text(x / width, 1 - 0.58 / height, name, fontsize=7, color=style.FAINT)
    for row, (label, found) in enumerate(rows):
        order = np.argsort(-found.attention.sum((0, 1)), kind="stable")[:maps]
        mean = found.attention.mean(-1)
        singles = [overlay(found.image, found.attention[..., k]) for k in order]
        tiles = [found.image, overlay(found.image, mean), *singles, found.crop, found.erased]
        y = height - head - row * (SIDE + text)  # of the row's upper edge
        for column, tile in enumerate(tiles):
            x = gap + column * (SIDE + gap)
            axes = figure.add_axes((x / width, (y - SIDE) / height, SIDE / width, SIDE / height))
            axes.imshow(tile, interpolation="antialiased")
            axes.set_axis_off()
            if column == 0:
                top, bottom, left, right = found.box
                box = (left - 0.5, top - 0.5), right - left, bottom - top
                axes.add_patch(Rectangle(*box, fill=False, edgecolor="#ffd33d", linewidth=1.2))
        said = [
            f"{kind}: {_named(class_names, scores)}"
            for kind, scores in (("plain", found.plain), ("effect", found.effect))
        ]
        right = label and all(class_names[s.argmax()] == label for s in (found.plain, found.effect))
        colour = style.INK if not label else style.HIT if right else style.ERROR
        true = f"true: {style.drawable(label, 0)}    " if label else ""
        figure.text(
            gap / width,
            (y - SIDE - 0.06) / height,
            true + "    ".join(said),
            fontsize=7.5,
            va="top",
            color=colour,
            parse_math=False,
        )
    return figure


def _named(class_names, scores):
    best = int(scores.argmax())
    return f"{style.drawable(class_names[best], best)} {100 * scores[best]:.0f} %"


def overlay(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: the image under attention [H, W] >= 0, relative to its maximum. The stronger
    the attention, the less of the image is visible."""
    share = attention / max(float(attention.max()), 1e-12)
    opacity = OPACITY * np.sqrt(share)[..., None]
    colours = 255 * COLOURS(share)[..., :3]
    return np.round((1 - opacity) * image + opacity * colours).astype(np.uint8)
