"""Common parts of all figures: colours, fonts, text that fits, and saving."""

import functools
import textwrap
from pathlib import Path

import matplotlib
from matplotlib import ft2font
from matplotlib.figure import Figure

from fgc_jax import files

HIT, ERROR, INK, FAINT = "#1a7f37", "#c5221f", "#1f2328", "#656d76"
DPI = 150
FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG without empty margins."""
    look = {"facecolor": "white", "bbox_inches": "tight", "pad_inches": 0.15}
    with files.whole(path) as temporary:
        figure.savefig(temporary, format="png", **look)


def drawable(name: str, index: int) -> str:
    """A class name on one line, or its number if the font lacks one of its letters."""
    name = " ".join(name.split())
    return name if name and letters().issuperset(map(ord, name)) else f"class {index}"


@functools.cache
def letters() -> frozenset[int]:
    """The characters that the font can draw."""
    return frozenset(ft2font.FT2Font(str(FONT)).get_charmap())


def shortened(text: str, length: int) -> str:
    """At most `length` characters, shortened in the middle: similar names differ at the ends."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}\N{HORIZONTAL ELLIPSIS}{text[-end:]}"


def wrapped(text: str, suffix: str = "", width: int = 26, lines: int = 2) -> list[str]:
    """At most `lines` lines of about `width` characters; underscores count as spaces."""
    text = shortened(text.replace("_", " "), lines * width - len(suffix) - 4)
    return textwrap.wrap(text + suffix, width, break_on_hyphens=False)
