"""Output of commands for people: lines, progress bars, tables, and lists of allowed values."""

import contextlib
import difflib
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import tqdm

from fgc_jax import mesh


def say(text: str = "") -> None:
    """Prints a line above any progress bar, on the first process only."""
    if mesh.is_first_process():
        tqdm.tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


@contextlib.contextmanager
def progress(
    description: str, total: int, initial: int = 0, unit: str = "step"
) -> Iterator[tqdm.tqdm]:
    """A progress bar with rate and remaining time. On a terminal it moves; a file gets a new line
    every 15 seconds.

    `unit`: the unit of `total`; with "B" (bytes) the bar shows kB, MB and so on.
    """
    live = sys.stderr.isatty()
    with tqdm.tqdm(
        desc=description,
        total=total,
        initial=initial,
        unit=unit,
        unit_scale=unit == "B",
        dynamic_ncols=live,
        ncols=None if live else 100,
        mininterval=0.2 if live else 15,
        disable=not mesh.is_first_process(),
        file=sys.stderr if live else _Lines(sys.stderr),
    ) as bar:
        yield bar


@contextlib.contextmanager
def counted(items: Iterable, description: str, total: int) -> Iterator[Iterator]:
    """Yields an iterator over the items; a progress bar moves after the caller has finished with
    each."""

    def each(bar):
        for item in items:
            yield item
            bar.update()

    with progress(description, total) as bar:
        yield each(bar)


class _Lines:
    """Writes each state of a progress bar as a new line instead of overwriting the last one."""

    def __init__(self, file):
        self._file = file

    def write(self, text: str) -> None:
        shown = text.replace("\r", "").strip()
        if shown:
            self._file.write(shown + "\n")

    def flush(self) -> None:
        self._file.flush()


def choices(value: Any, names: Collection[str]) -> str:
    """For errors about a value that is not in `names`: all names, or the most similar of many."""
    if len(names) <= 30:
        return f"allowed: {', '.join(map(repr, names))}"
    close = difflib.get_close_matches(str(value), names, n=6, cutoff=0.5)
    similar = f"similar: {', '.join(map(repr, close))}; " if close else ""
    return f"{similar}`fgc list_models` prints all {len(names)}"


def table(rows: list[tuple[str, ...]], left: Collection[int] = (0,)) -> str:
    """A text table; the first row is the header. Columns in `left` are aligned to the left, the
    others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
