"""Predictions on disk: tables for people and programs, and the submission files of benchmarks.

    csv      a table with a header: name, the best classes with their probabilities, and an error
    jsonl    a JSON object for each image: {"name", "classes": [{"class", "probability"}, ...]} or
             {"name", "error"}
    answer   "FILE CLASS" for each image, no newline at the end: the answer.txt of NYCU's course
             on the birds of CUB-200 (2010)
    cars     the number of the best class for each image, the first class being 1: Stanford Cars
    triplet  "IMAGE,CLASS,SCORE" for each of the best classes of each image, IMAGE without folder
             and extension: FGVC-Aircraft

The lines are in the order of the images. A table contains unreadable images with the reason. A
submission file cannot contain them, and without their lines the others would be wrong: it is not
written if an image is unreadable.
"""

import collections
import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from fgc_jax import files

TOP_K = 5


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The numbers of the best classes of one image, best first, with probabilities. If there is no
    prediction, both are empty and `error` is the reason."""

    name: str
    classes: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Format:
    """lines(predictions, class names, top_k) makes the lines of the file. ranked: whether it can
    contain more classes than the best. complete: whether it must contain each image. end: the last
    characters of the file. strays: the names of images that would make its lines ambiguous."""

    lines: Callable[[Iterable[Prediction], Sequence[str], int], Iterator[str]]
    ranked: bool
    complete: bool
    end: str = "\n"
    strays: Callable[[Sequence[str]], list[str]] = lambda names: []


def best(
    names: Sequence[str], rows: Iterable[np.ndarray | ValueError], top_k: int
) -> Iterator[Prediction]:
    """The predictions for named images. Each row is probabilities f32 [K] or an error.

    Classes with equal probabilities keep their order.
    """
    for name, row in zip(names, rows, strict=True):
        if isinstance(row, ValueError):
            yield Prediction(name, error=str(row))
        elif not np.isfinite(row).all():
            yield Prediction(name, error="the network's output is not finite")
        else:
            order = np.argsort(-row, kind="stable")[:top_k]
            yield Prediction(
                name, tuple(order.tolist()), tuple(float(row[number]) for number in order)
            )


def check(
    file_format: str, top_k: int | None, class_names: Sequence[str], names: Sequence[str]
) -> int:
    """The number of classes of each image in the file: `top_k`, or the default of the format.

    Raises:
        ValueError: an unknown format, a `top_k` that is not possible for the format or the classes,
            or names of images that would make the file ambiguous.
    """
    if file_format not in FORMATS:
        raise ValueError(f"unknown format {file_format!r}, allowed: {', '.join(FORMATS)}")
    strays = FORMATS[file_format].strays(names)
    if strays:
        raise ValueError(
            f"the format {file_format!r} does not allow these names of images: "
            f"{', '.join(strays[:5])}"
        )
    if not FORMATS[file_format].ranked:
        if top_k is not None:
            raise ValueError(f"--top_k has no effect on the format {file_format!r}")
        return 1
    if top_k is not None and not 1 <= top_k <= len(class_names):
        raise ValueError(f"--top_k={top_k} must be 1 to {len(class_names)}, the number of classes")
    return top_k or min(TOP_K, len(class_names))


def write(
    path: Path,
    predictions: Iterable[Prediction],
    class_names: Sequence[str],
    file_format: str,
    top_k: int,
) -> list[Prediction]:
    """Writes the file, completely or not at all, and returns the predictions with an error.

    Raises:
        ValueError: the format needs every image, and some have no prediction.
    """
    kind, failed = FORMATS[file_format], []

    def noted():
        for each in predictions:
            if each.error:
                failed.append(each)
            if not (each.error and kind.complete):
                yield each

    with files.whole(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            separator = ""
            for line in kind.lines(noted(), class_names, top_k):
                file.write(separator + line)
                separator = "\n"
            file.write(kind.end)
        if failed and kind.complete:
            shown = "\n".join(f"  {each.name}: {each.error}" for each in failed)
            raise ValueError(
                f"{path} is not written: the format {file_format!r} needs a line for each image, "
                f"but {len(failed)} images have no prediction:\n{shown}"
            )
    return failed


def _csv(predictions, class_names, top_k):
    others = [
        f"{column}_{place}" for place in range(2, top_k + 1) for column in ("class", "probability")
    ]
    yield _cells("name", "predicted", "probability", *others, "error")
    for each in predictions:
        cells = [
            cell
            for number, probability in zip(each.classes, each.probabilities, strict=True)
            for cell in (class_names[number], f"{probability:.6f}")
        ]
        yield _cells(each.name, *(cells or [""] * (2 * top_k)), each.error)


def _jsonl(predictions, class_names, top_k):
    for each in predictions:
        ranked = [
            {"class": class_names[number], "probability": float(f"{probability:.6g}")}
            for number, probability in zip(each.classes, each.probabilities, strict=True)
        ]
        found = {"error": each.error} if each.error else {"classes": ranked}
        yield json.dumps({"name": each.name, **found}, ensure_ascii=False)


def _answer(predictions, class_names, top_k):
    for each in predictions:
        yield f"{each.name} {class_names[each.classes[0]]}"


def _cars(predictions, class_names, top_k):
    for each in predictions:
        yield str(each.classes[0] + 1)


def _triplet(predictions, class_names, top_k):
    for each in predictions:
        image = _stem(each.name)
        for number, probability in zip(each.classes, each.probabilities, strict=True):
            yield _cells(image, class_names[number], f"{probability:.6g}")


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _with_spaces(names):
    return [name for name in names if len(name.split()) != 1]


def _same_stems(names):
    counts = collections.Counter(map(_stem, names))
    return [name for name in names if counts[_stem(name)] > 1]


def _cells(*cells: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


FORMATS = {
    "csv": Format(_csv, ranked=True, complete=False),
    "jsonl": Format(_jsonl, ranked=True, complete=False),
    "answer": Format(_answer, ranked=False, complete=True, end="", strays=_with_spaces),
    "cars": Format(_cars, ranked=False, complete=True),
    "triplet": Format(_triplet, ranked=True, complete=True, strays=_same_stems),
}
