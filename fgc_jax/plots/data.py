"""Figures of a data set: a sheet of sample images, and bars of the class counts."""

import textwrap

import cv2
import numpy as np
from matplotlib.figure import Figure

from fgc_jax.data import images
from fgc_jax.plots import style

SHEET_CLASSES, SHEET_COLUMNS, TILE, GAP = 24, 8, 160, 6  # rows, images in each, pixels
NAMED_BARS = 60  # classes up to which the bars have names
BOX, BLANK = (255, 64, 0), 225  # colours: of boxes, of unreadable images
SPLIT_COLOURS = {"train": "#3b6fb6", "val": "#e8a33d", "test": "#5f9e6e"}


def sheet_rows(data) -> list[tuple[int, list[tuple[str, int]]]]:
    """(class, places of its images) for some classes and some images of each. Both are evenly
    spaced over all classes, and over the class's images in the first split."""
    name, split = next(iter(data.splits.items()))
    present = np.unique(split.labels)
    rows = np.linspace(0, len(present) - 1, min(SHEET_CLASSES, len(present))).round().astype(int)
    sheet = []
    for label in present[rows].tolist():
        numbers = np.flatnonzero(split.labels == label)
        columns = np.linspace(0, len(numbers) - 1, min(SHEET_COLUMNS, len(numbers))).round()
        sheet.append((label, [(name, int(numbers[int(column)])) for column in columns]))
    return sheet


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 `[H, W, 3]` shrunk to a longer side of TILE pixels."""
    scale = TILE / max(image.shape[:2])
    shape = tuple(max(1, round(scale * side)) for side in image.shape[:2])
    return images.resize_crop(image, shape, (0, 0, *shape))


def contact_sheet(data, surveys, rows):
    """A Figure: a row for each class, its images with their boxes."""
    pitch, columns = TILE + GAP, max(len(places) for _, places in rows)
    sheet = np.full((len(rows) * pitch, columns * pitch, 3), 255, np.uint8)
    for row, (_, places) in enumerate(rows):
        for column, (name, i) in enumerate(places):
            tile = np.full((TILE, TILE, 3), 255, np.uint8)
            if i in surveys[name].kept:
                image = surveys[name].kept[i].copy()
                boxes = data.splits[name].raw_boxes
                if boxes is not None and np.isfinite(boxes[i]).all():
                    scale = np.tile(np.divide(image.shape[1::-1], surveys[name].sizes[i]), 2)
                    x0, y0, x1, y1 = np.clip(boxes[i] * scale, 0, TILE).round().astype(int).tolist()
                    cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), BOX, 2)
                top, left = ((TILE - side) // 2 for side in image.shape[:2])
                tile[top : top + image.shape[0], left : left + image.shape[1]] = image
            else:
                tile[:] = BLANK
                cv2.line(tile, (0, 0), (TILE, TILE), (160, 160, 160), 2)
                cv2.line(tile, (0, TILE), (TILE, 0), (160, 160, 160), 2)
            y, x = row * pitch, column * pitch
            sheet[y : y + TILE, x : x + TILE] = tile
    dots = 100  # per inch, so that a pixel of the sheet is one of the file
    left, head = 2.4, 0.45  # inches
    size = (left + sheet.shape[1] / dots, head + sheet.shape[0] / dots)
    figure = Figure(size, dpi=dots)
    axes = figure.add_axes((left / size[0], 0, 1 - left / size[0], 1 - head / size[1]))
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    figure.text(
        0.06 / size[0], 1 - 0.1 / size[1], f"{data.name}: {len(rows)} of {len(data.class_names)} "
        f"classes, {rows[0][1][0][0]}", fontsize=11, color=style.INK, va="top", parse_math=False,
    )  # fmt: skip
    name = rows[0][1][0][0]
    for row, (label, _) in enumerate(rows):
        y = 1 - (head + (row * pitch + TILE / 2) / dots) / size[1]
        shown = style.drawable(data.class_names[label], label).replace("_", " ")
        shown = "\n".join(_wrapped(shown, 26))
        count = int((data.splits[name].labels == label).sum())
        figure.text(
            0.06 / size[0], y, f"{shown}\n{count} images", fontsize=10.5, color=style.INK,
            va="center", parse_math=False,
        )  # fmt: skip
    return figure


def _wrapped(text: str, width: int) -> list[str]:
    """At most three lines."""
    return textwrap.wrap(style.shortened(text, 3 * width - 6), width) or [text]


def class_counts(data):
    """A Figure: how many images each class has in each split."""
    number = len(data.class_names)
    counts = {
        name: np.bincount(split.labels, minlength=number) for name, split in data.splits.items()
    }
    named = number <= NAMED_BARS
    figure = Figure((8, 1.1 + 0.19 * number) if named else (9, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    if named:
        shown = [
            style.shortened(style.drawable(name, i), 44) for i, name in enumerate(data.class_names)
        ]
        start = np.zeros(number)
        for name, values in counts.items():
            axes.barh(
                range(number), values, 0.72, start, color=SPLIT_COLOURS[name],
                label=f"{name} ({values.sum():,})",
            )  # fmt: skip
            start += values
        axes.set_yticks(range(number), shown, fontsize=7, parse_math=False)
        axes.set_ylim(number - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("images", fontsize=9)
    else:
        for name, values in counts.items():
            axes.plot(
                np.sort(values)[::-1], color=SPLIT_COLOURS[name], drawstyle="steps-mid",
                label=f"{name} ({values.sum():,})",
            )  # fmt: skip
        axes.set_xlabel("classes, in each split from the most images to the fewest", fontsize=9)
        axes.set_ylabel("images", fontsize=9)
        axes.set_xlim(-0.5, number - 0.5)
        most = max(values.max() for values in counts.values())
        if most > 20 * max(1, min(np.median(values) for values in counts.values())):
            axes.set_yscale("log")  # a log scale cannot show classes without images
            axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylim(bottom=0 if axes.get_yscale() == "linear" else 0.8)
        axes.tick_params(axis="y", labelsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=len(counts), frameon=False, fontsize=8)
    return figure
