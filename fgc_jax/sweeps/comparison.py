"""Comparing finished runs: their numbers, tables over seeds, accuracy against cost."""

import csv
import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from fgc_jax import console, files
from fgc_jax.plots import style
from fgc_jax.runs import directory, results

SWEEP = "sweep.json"  # marks the directory of a sweep
MEASURES = {
    "val_top1": "val top-1",
    "test_top1": "test top-1",
    "mean_class_accuracy": "mean class acc.",
    "seconds": "seconds",
}
COSTS = {
    "gflops": ("forward_gflops", "GFLOP of one image's forward pass (a multiply-add counts two)"),
    "params": ("params", "parameters"),
    "seconds": ("seconds", "seconds of training"),
}
NAMED = 20  # up to so many points in a picture have names, more have their row in the table
COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#656d76")


def measures(found: results.Results) -> dict[str, float | None]:
    """Validation and test accuracies in percent and seconds of one run's results."""
    test = found.test and found.test.metrics
    return {
        "val_top1": found.phases[-1].best_val_top1,
        "test_top1": test and test.top1,
        "mean_class_accuracy": test and test.mean_class_accuracy,
        "seconds": sum(phase.seconds for phase in found.phases),
    }


def combine(members: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """`measures` of several runs -> for each {"mean", "std"}, std with n - 1, None for one run."""
    members = list(members)
    return {name: _spread([each[name] for each in members]) for name in MEASURES}


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    values = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
    }


def seeds_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The combinations of a sweep (`fgc_jax.sweeps.sweep.table`) as a text: mean ± deviation."""
    lines = [("combination", "runs", *MEASURES.values())]
    for row in rows:
        count = f"{len(row['runs'])}/{row['planned']}"
        cells = [_with_deviation(row[name], 0 if name == "seconds" else 2) for name in MEASURES]
        lines.append((row["combination"], count, *cells))
    return console.table(lines)


def _with_deviation(spread: Mapping[str, float | None], digits: int) -> str:
    deviation = "" if spread["std"] is None else f" ± {spread['std']:.{digits}f}"
    return _shown(spread["mean"], digits) + deviation


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def write_seeds(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Writes results.json with the numbers of all runs, and results.csv with a row for each
    combination."""
    files.write_json(folder / directory.RESULTS, {"sorted_by": "val_top1", "combinations": rows})
    keys = list(dict.fromkeys(key for row in rows for key in row["grid"]))
    columns = list(itertools.product(MEASURES, ("mean", "std")))
    with (
        files.whole(folder / "results.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*keys, "runs", *("_".join(column) for column in columns)])
        for row in rows:
            values = [row["grid"].get(key, "") for key in keys]
            numbers = [row[name][kind] for name, kind in columns]
            writer.writerow([*values, len(row["runs"]), *numbers])


def load(directories: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """(a row for each finished run, the best validation top-1 first; a message for each other
    directory)."""
    rows, messages = [], []
    for workdir in directories:
        try:
            problem = _why_not(workdir)
            if not problem:
                rows.append({"run": workdir, **_row(results.read(workdir))})
        except (ValueError, KeyError, TypeError) as error:
            problem = f"its files are damaged or from another version: {error}"
        if problem:
            messages.append(f"{workdir}: {problem}")
    for row, name in zip(rows, _names([row["run"] for row in rows]), strict=True):
        row["run"] = name
    return sorted(rows, key=lambda row: -(row["val_top1"] or -1.0)), messages


def _names(directories: Sequence[Path]) -> list[str]:
    """Short names that differ: the paths below the folder that all have in common."""
    parts = [workdir.absolute().parts for workdir in directories]
    shared = 0
    while parts and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return ["/".join(path[shared:]) for path in parts]


def _why_not(workdir: Path) -> str:
    """Why a directory cannot be compared; "" if it can."""
    if not workdir.is_dir():
        return "no such directory"
    if (workdir / SWEEP).exists():
        return f"a sweep; its runs are {workdir}/runs/*"
    if not (workdir / directory.CONFIG).exists():
        return f"not a run: it has no {directory.CONFIG}"
    found = results.read(workdir)
    if not (found and found.complete):
        planned = len(files.read_json(workdir / directory.CONFIG)["phases"])
        done = len(found.phases) if found else 0
        return f"unfinished, {done} of {planned} phases; its command continues it"
    return ""


def _row(found: results.Results) -> dict[str, Any]:
    model = found.config["model"]
    return {
        "backbone": " x ".join(filter(None, (model["backbone"], model["backbone_b"]))),
        "head": model["head"],
        "pretrained": found.pretrained or "no",
        "params": found.params,
        "forward_gflops": found.forward_gflops,
        **measures(found),
        "ece": found.test and found.test.metrics.ece,
        "images_per_second": found.phases[-1].images_per_second,
    }


def runs_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """`load`'s rows, numbered; accuracies and ECE in percent, images/s of the last phase."""
    header = "#,run,backbone,head,pretrained,params M,GFLOP,val top-1,test top-1,class acc.,ECE,"
    lines = [tuple((header + "images/s,seconds").split(","))]
    for number, row in enumerate(rows, 1):
        texts = [str(number), row["run"], row["backbone"], row["head"], row["pretrained"]]
        numbers = [
            (row["params"] / 1e6, 2),
            (row["forward_gflops"], 2),
            *((row[name], 2) for name in ("val_top1", "test_top1", "mean_class_accuracy", "ece")),
            (row["images_per_second"], 0),
            (row["seconds"], 0),
        ]
        short = [style.shortened(text, 44) for text in texts]
        lines.append((*short, *(_shown(value, digits) for value, digits in numbers)))
    return console.table(lines, left=range(5))


def figure(rows: Sequence[Mapping[str, Any]], cost: str) -> Figure:
    """Test top-1 against cost (a key of COSTS): a labelled point for each run, a colour for each
    head.

    The labels of many runs are their numbers in `runs_table`. If a run has no test, all points show
    validation top-1. Raises ValueError if a run has neither.
    """
    measure = "test_top1" if all(row["test_top1"] is not None for row in rows) else "val_top1"
    strays = [row["run"] for row in rows if row[measure] is None]
    if strays:
        raise ValueError(f"no accuracy to draw: {', '.join(strays)}")
    key, label = COSTS[cost]
    drawn = Figure((8.5, 5.8), dpi=style.DPI)
    FigureCanvasAgg(drawn)
    axes = drawn.add_axes((0.09, 0.1, 0.88, 0.84))
    heads = list(dict.fromkeys(row["head"] for row in rows))
    for head, colour in zip(heads, itertools.cycle(COLOURS), strict=False):
        points = [(row[key], row[measure]) for row in rows if row["head"] == head]
        axes.scatter(*zip(*points, strict=True), s=42, color=colour, label=head, zorder=3)
    costs, tops = [row[key] for row in rows], [row[measure] for row in rows]
    if min(costs) > 0 and max(costs) / min(costs) > 8:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
    axes.margins(0.18, 0.14)
    axes.set_ylim(top=min(101.5, axes.get_ylim()[1]))
    axes.set_xlabel(label, fontsize=10, color=style.INK)
    split = measure.partition("_")[0]
    kind = {"test": "test", "val": "validation"}[split]
    axes.set_ylabel(f"{kind} top-1, %", fontsize=10, color=style.INK)
    axes.grid(color="#e4e8ec", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=style.INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(heads) > 1:
        legend = axes.legend(title="head", fontsize=8.5, title_fontsize=8.5, loc="best")
        taken = [legend.get_window_extent()]
    else:
        taken = []
    names = [style.shortened(row["run"], 48) for row in rows]
    if len(rows) > NAMED:
        names = [f"#{number}" for number in range(1, len(rows) + 1)]
    _label(axes, list(zip(costs, tops, strict=True)), names, taken)
    return drawn


def _label(axes, points, names, taken: list[Bbox]) -> None:
    """Writes each name near its point, where it covers no other name, nothing `taken`, and comes
    not near another point; a thin line leads to names that found room farther away only."""
    scale = axes.figure.dpi / 72  # pixels a point
    places = axes.transData.transform(points)
    around = [Bbox.from_extents(*(p - 11 * scale), *(p + 11 * scale)) for p in places]
    close = [Bbox.from_extents(*(p - 4 * scale), *(p + 4 * scale)) for p in places]
    frame = axes.get_window_extent()
    for index, (point, name) in enumerate(zip(points, names, strict=True)):
        text = axes.annotate(
            name,
            point,
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=8,
            color=style.INK,
            ha="center",
            va="center",
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": style.FAINT, "linewidth": 0.5, "shrinkA": 0},
        )
        box = text.get_window_extent()
        others = around[:index] + around[index + 1 :]
        blocked = [*taken, close[index], *others]
        if any(each.count_contains([places[index]]) for each in others):
            blocked = [*taken, *close]  # in a crowd, near is what covers nothing
        found = _free_place(places[index], box.width / 2, box.height / 2, scale, frame, blocked)
        if found is None:  # no room at all: on its point, over whatever is there
            continue
        where, radius = found
        taken.append(where)
        centre = (where.x0 + where.width / 2, where.y0 + where.height / 2)
        text.set_position(
            tuple((c - p) / scale for c, p in zip(centre, places[index], strict=True))
        )
        text.arrow_patch.set_visible(radius > 14)


def _free_place(place, half_width, half_height, scale, frame: Bbox, blocked) -> tuple | None:
    """(box in pixels, its distance from `place` in points), the nearest that overlaps nothing."""
    for radius, turn in itertools.product(range(6, 400, 8), range(16)):
        # Right of the point first, then above and below it.
        angle = math.pi / 8 * ((turn + 1) // 2) * (-1) ** turn
        x = place[0] + math.cos(angle) * (radius * scale + half_width)
        y = place[1] + math.sin(angle) * (radius * scale + half_height)
        box = Bbox.from_extents(x - half_width, y - half_height, x + half_width, y + half_height)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
        inside = inside and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not box.count_overlaps(blocked):
            return box, radius
    return None
