"""A contact sheet of augmentations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fgc_jax.plots import style

MARGIN, NAMES = 6, 190  # pixels


def sheet(
    rows: Sequence[tuple[str, Mapping[str, Any], np.ndarray]], original: np.ndarray
) -> Image.Image:
    """Draws a row for each (name, options, uint8 `[draws, S, S, 3]`), the original before them."""
    size, columns = original.shape[0], 1 + max(len(pictures) for *_, pictures in rows)
    step = size + MARGIN
    canvas = Image.new("RGB", (NAMES + columns * step, MARGIN + len(rows) * step), "white")
    pen = ImageDraw.Draw(canvas)
    large, small = (ImageFont.truetype(str(style.FONT), points) for points in (15, 11))
    for i, (name, options, pictures) in enumerate(rows):
        top = MARGIN + i * step
        pen.text((2 * MARGIN, top + 2), name, style.INK, large)
        lines = "\n".join(f"{key} = {value}" for key, value in options.items())
        pen.multiline_text((2 * MARGIN, top + 24), lines, style.FAINT, small)
        for j, picture in enumerate([original, *pictures]):
            inset = (size - picture.shape[0]) // 2
            canvas.paste(Image.fromarray(picture), (NAMES + j * step + inset, top + inset))
    return canvas
