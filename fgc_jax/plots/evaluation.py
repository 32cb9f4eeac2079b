"""Figures of an evaluation, drawn with matplotlib's object interface (no global state)."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure
from PIL import Image

from fgc_jax.plots import style

TILE, THUMBNAIL = 1.75, 210  # inches, pixels
# Without the palest shades: a single error among many classes must be visible.
SHADES = colors.ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.28, 1, 256)), "shades")


def confusion(matrix: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """A confusion matrix, counts int [K, K] with a row per true class, coloured by the share of
    the row. Class names and counts are drawn if there is room for them; otherwise the classes have
    numbers in the order of `class_names`, from 0.
    """
    number = len(class_names)
    names = [
        style.shortened(style.drawable(name, index), 40) for index, name in enumerate(class_names)
    ]
    side = float(np.clip(0.42 * number, 3.2, 11.5))  # inches
    pitch = 72 * side / number  # points from one class to the next
    named = pitch >= 6.2
    font = min(9.0, 0.86 * pitch)
    room = 0.35 + (0.0085 * font * max(map(len, names)) if named else 0.4)
    left, bottom, right, top = room + 0.25, room + 0.25, 1.15, 0.75
    width, height = max(left + side + right, 5.2), bottom + side + top
    figure = Figure((width, height), dpi=style.DPI)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    bar = figure.add_axes(
        ((left + side + 0.2) / width, bottom / height, 0.16 / width, side / height)
    )
    totals = matrix.sum(1, keepdims=True)
    share = 100 * np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=matrix > 0)
    # Square root: differences between rare errors count more than those near a full diagonal.
    norm = colors.PowerNorm(0.5, vmin=0, vmax=100)
    picture = axes.imshow(
        np.ma.masked_invalid(share), cmap=SHADES, norm=norm, interpolation="nearest"
    )
    scale = figure.colorbar(picture, cax=bar, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    scale.ax.tick_params(labelsize=8, colors=style.INK)
    scale.set_label("% of the true class's images", fontsize=9, color=style.INK)
    scale.outline.set_visible(False)
    if named:
        axes.set_xticks(range(number), names, rotation=90, fontsize=font, parse_math=False)
        axes.set_yticks(range(number), names, fontsize=font, parse_math=False)
    else:
        ticks = range(0, number, 10)
        axes.set_xticks(ticks, map(str, ticks), rotation=90, fontsize=8)
        axes.set_yticks(ticks, map(str, ticks), fontsize=8)
    axes.tick_params(length=0 if named else 3, colors=style.INK)
    if pitch >= 17:
        for row, column in np.argwhere(matrix):
            axes.text(
                column,
                row,
                str(matrix[row, column]),
                ha="center",
                va="center",
                fontsize=min(9.0, pitch / 2.6),
                color="white" if share[row, column] > 40 else style.INK,
            )
    elif named:
        axes.set_xticks(np.arange(number) + 0.5, minor=True)
        axes.set_yticks(np.arange(number) + 0.5, minor=True)
        axes.grid(which="minor", color="#d0d7de", linewidth=0.25)
        axes.tick_params(which="minor", length=0)
    unit = "" if named else " (class number, see per_class.csv)"
    axes.set_xlabel(f"predicted class{unit}", fontsize=10, color=style.INK)
    axes.set_ylabel(f"true class{unit}", fontsize=10, color=style.INK)
    _title(figure, title, 0.2, 0.2)
    for spine in axes.spines.values():
        spine.set_color("#d0d7de")
    return figure


def predictions(tiles: Sequence[dict], title: str, columns: int = 6) -> Figure:
    """A grid of images with their predictions.

    A tile has `image` uint8 [H, W, 3], `label` and `predicted` (class names), `probability` of
    the prediction in 0..1, and `correct`.
    """
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    text, gap, head = 0.78, 0.16, 0.62  # inches
    width = columns * (TILE + gap) + gap
    height = rows * (TILE + text) + head
    figure = Figure((width, height), dpi=THUMBNAIL / TILE)
    _title(figure, title, gap, 0.17)
    for index, entry in enumerate(tiles):
        row, column = divmod(index, columns)
        x = gap + column * (TILE + gap)
        y = height - head - row * (TILE + text)  # of the tile's upper edge
        axes = figure.add_axes((x / width, (y - TILE) / height, TILE / width, TILE / height))
        axes.imshow(_thumbnail(entry["image"]), interpolation="antialiased")
        axes.set(xticks=[], yticks=[])
        color = style.HIT if entry["correct"] else style.ERROR
        for spine in axes.spines.values():
            spine.set(color=color, linewidth=2.2)
        mark = "\N{CHECK MARK}" if entry["correct"] else "\N{BALLOT X}"
        lines = style.wrapped(
            f"{mark} {entry['predicted']}", f", {100 * entry['probability']:.0f} %"
        )
        _caption(figure, lines, x, height - y + TILE + 0.06, color)
        if not entry["correct"]:
            below = height - y + TILE + 0.06 + 0.135 * len(lines)
            _caption(figure, style.wrapped(f"true: {entry['label']}"), x, below, style.INK)
    return figure


def _title(figure: Figure, text: str, x: float, y: float) -> None:
    """Text at x, y inches from the figure's upper left corner; unknown letters become "?"."""
    width, height = figure.get_size_inches()
    known = "".join(each if each == "\n" or ord(each) in style.letters() else "?" for each in text)
    figure.text(
        x / width, 1 - y / height, known, fontsize=11, color=style.INK, va="top", parse_math=False
    )


def _caption(figure: Figure, lines: Sequence[str], x: float, y: float, color: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(
        x / width, 1 - y / height, "\n".join(lines), fontsize=7.5, color=color, va="top",
        linespacing=1.15, parse_math=False,
    )  # fmt: skip


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """The image inside a white square of THUMBNAIL pixels, with its aspect ratio kept."""
    picture = Image.fromarray(image)
    scale = THUMBNAIL / max(picture.size)
    size = tuple(max(1, round(scale * side)) for side in picture.size)
    picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    square = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white")
    square.paste(picture, ((THUMBNAIL - size[0]) // 2, (THUMBNAIL - size[1]) // 2))
    return np.asarray(square)
