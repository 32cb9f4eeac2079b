"""List files of data sets: lines of a photo's id and a value. Errors name the lines."""

import math
import os

import numpy as np


def lines(path):
    """The lines of a text file without blank ones. ValueError if it cannot be read."""
    try:
        with open(path, encoding="utf-8-sig") as stream:
            return [line.strip() for line in stream if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as text ({_reason(error)})") from error


def table(path, columns):
    """The first `columns` words of each line; the last one includes the rest of the line, because
    names may contain spaces.

    Raises:
        ValueError: lines have fewer words; the message names the file and the first such lines.
    """
    rows = [line.split(None, columns - 1) for line in lines(path)]
    refuse(path, [repr(" ".join(row)) for row in rows if len(row) < columns], "lines too short")
    return rows


def mapping(path, columns=2):
    """{first word: the rest, or a list of words if `columns` is above 2}, in the file's order.

    Raises:
        ValueError: a line is too short, or a first word occurs twice.
    """
    rows = table(path, columns)
    found = {row[0]: row[1] if columns == 2 else row[1:] for row in rows}
    if len(found) < len(rows):
        seen = set()
        refuse(path, [r[0] for r in rows if r[0] in seen or seen.add(r[0])], "ids listed twice")
    return found


def numbers(path, rows, what, kind=float):
    """Words `[N][M]` as an array of `kind` (float: float32).

    Raises:
        ValueError: words are not numbers, not finite or not whole. The message names the first such
            rows and calls them `what`, e.g. "bad boxes".
    """
    try:
        values = np.array(rows, np.float64)
    except ValueError:
        values = np.full(1, np.nan)
    if not np.isfinite(values).all() or (kind is int and (values != np.rint(values)).any()):
        bad = [row for row in rows if not _are_numbers(row, kind)]
        refuse(path, [repr(" ".join(map(str, row))) for row in bad], what)
    return values.astype(np.float32 if kind is float else kind)


def labels(path, names, class_names):
    """int32 `[N]`: the places of `names` in `class_names`. ValueError naming unknown names."""
    number = {name: i for i, name in enumerate(class_names)}
    refuse(path, sorted({name for name in names if name not in number}), "unknown labels")
    return np.array([number[name] for name in names], np.int32)


def refuse(path, problems, what, most=5):
    """Raises ValueError "PATH: 7 WHAT: a; b; c; d; e; and 2 more" unless `problems` is empty."""
    if problems:
        more = f"; and {len(problems) - most} more" if len(problems) > most else ""
        shown = "; ".join(str(problem) for problem in problems[:most])
        raise ValueError(f"{path}: {len(problems)} {what}: {shown}{more}")


def first(path, names):
    """The first of the `names` in the list `path`; ValueError if there are none."""
    for name in names:
        return name
    raise ValueError(f"{path}: the list contains no images")


def refuse_repeated(path, names, seen):
    """ValueError if the list `path` contains an image twice, or one of the set `seen`. Adds the
    `names` to `seen`."""
    repeated = [name for name in names if name in seen or seen.add(name)]
    refuse(path, repeated, "images are listed twice, or also in another split")


def check_files(path, folder, names, seen):
    """ValueError if the list `path` contains an image twice, one of the set `seen`, or one that is
    not in `folder`. Adds the `names` to `seen`."""
    refuse_repeated(path, names, seen)
    refuse_missing_files(path, folder, names)


def refuse_missing_files(path, folder, names):
    """ValueError if files of the list `path` are not in `folder`.

    Reads each folder once, which is fast on network disks too.
    """
    there = {}
    missing = []
    for name in names:
        below, _, file = name.rpartition("/")
        if below not in there:
            there[below] = _files_in(os.path.join(folder, below))
        if file not in there[below]:
            missing.append(name)
    refuse(path, missing, f"images are not in {folder}")


def _files_in(folder):
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()


def _are_numbers(row, kind):
    try:
        values = [float(word) for word in row]
    except ValueError:
        return False
    return all(math.isfinite(v) and (kind is float or v == int(v)) for v in values)


def _reason(error):
    return getattr(error, "strerror", None) or error
