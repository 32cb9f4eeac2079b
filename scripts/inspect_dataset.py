"""Reports on a data set: python scripts/inspect_dataset.py --name=NAME --output=DIR [...]."""

import argparse
import sys
from pathlib import Path

import numpy as np

DESCRIPTION = """\
Reads every picture of a data set once and reports images of each class and split, sizes, boxes,
unreadable files, mean and standard deviation of the channels over the training split, and images
that are there twice, exactly or nearly, within a split and across training and test. Writes
inspection.json (all of it), summary.txt, contact_sheet.png and class_counts.png."""

EXAMPLES = """\
examples:
  python scripts/inspect_dataset.py --name=folder --root=photos --output=runs/photos_inspection
  python scripts/inspect_dataset.py --name=synthetic_birds --options species=8 --output=birds"""

INSPECTION = "inspection.json"
FILES = (INSPECTION, "summary.txt", "contact_sheet.png", "class_counts.png")
SHEET_CLASSES, SHEET_COLUMNS, TILE, GAP = 24, 8, 160, 6  # rows, images in each, pixels
NAMED_BARS = 60  # classes up to which the bars have names
BOX, BLANK = (255, 64, 0), 225  # colours: of boxes, of unreadable images
SPLIT_COLOURS = {"train": "#3b6fb6", "val": "#e8a33d", "test": "#5f9e6e"}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 where they are wrong."""
    from fgc_jax.data import flags

    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for the result"
    )
    parser.add_argument(
        "--near_distance",
        type=int,
        default=4,
        metavar="BITS",
        help="of the 64 of a perceptual hash, how many may differ in near duplicates (default: 4)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="that decode and measure (default: one a core)"
    )
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.near_distance <= 16:
        parser.error("--near_distance must lie in 0 to 16")
    if arguments.threads is not None and arguments.threads < 1:
        parser.error("--threads must be at least 1")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Inspects and prints. Raises ValueError where data or output folder cannot be used."""
    from fgc_jax import plots, workdir
    from fgc_jax.data import flags, statistics

    output = arguments.output
    check_folder(output)
    data, options = flags.dataset(arguments)
    rows = sheet_rows(data)
    chosen = [place for _, places in rows for place in places]
    surveys = statistics.survey(data, keep=thumbnail, chosen=chosen, threads=arguments.threads)
    facts = {
        "dataset": data.facts(),
        "options": options,
        "splits": {name: statistics.describe(data, name, surveys[name]) for name in data.splits},
        "channels_of_train": statistics.channels(surveys["train"]) if "train" in surveys else None,
        "duplicates": statistics.describe_duplicates(data, surveys, arguments.near_distance),
    }
    text = report(facts)
    output.mkdir(parents=True, exist_ok=True)
    plots.save(contact_sheet(data, surveys, rows), output / "contact_sheet.png")
    plots.save(class_counts(data), output / "class_counts.png")
    (output / "summary.txt").write_text(text + "\n", encoding="utf-8")
    workdir.write_json(output / INSPECTION, facts)
    print(f"{text}\n\nwritten to {output}: {', '.join(FILES)}")


def check_folder(folder: Path) -> None:
    """Raises ValueError if `folder` is no folder, or holds other things than an inspection."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot write to {folder}: it is not a folder")
    strays = {entry.name for entry in folder.iterdir()} - set(FILES) if folder.exists() else set()
    if strays:
        raise ValueError(f"{folder} holds other files ({sorted(strays)[0]}): name an empty folder")


def sheet_rows(data) -> list[tuple[int, list[tuple[str, int]]]]:
    """(class, places of its images) for some classes, spread over all of them, and some images of
    each, spread over its images in the first split."""
    name, split = next(iter(data.splits.items()))
    present = np.unique(split.labels)
    rows = np.linspace(0, len(present) - 1, min(SHEET_CLASSES, len(present))).round().astype(int)
    sheet = []
    for label in present[rows].tolist():
        images = np.flatnonzero(split.labels == label)
        columns = np.linspace(0, len(images) - 1, min(SHEET_COLUMNS, len(images))).round()
        sheet.append((label, [(name, int(images[int(column)])) for column in columns]))
    return sheet


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 `[H, W, 3]` shrunk to a longer side of TILE pixels."""
    from fgc_jax.data import images

    scale = TILE / max(image.shape[:2])
    shape = tuple(max(1, round(scale * side)) for side in image.shape[:2])
    return images.resize_crop(image, shape, (0, 0, *shape))


def contact_sheet(data, surveys, rows):
    """A Figure: a row for each class, its images with their boxes."""
    import cv2
    from matplotlib.figure import Figure

    from fgc_jax import plots

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
        f"classes, {rows[0][1][0][0]}", fontsize=11, color=plots.INK, va="top", parse_math=False,
    )  # fmt: skip
    name = rows[0][1][0][0]
    for row, (label, _) in enumerate(rows):
        y = 1 - (head + (row * pitch + TILE / 2) / dots) / size[1]
        shown = plots.drawable(data.class_names[label], label).replace("_", " ")
        shown = "\n".join(wrapped(shown, 26))
        count = int((data.splits[name].labels == label).sum())
        figure.text(
            0.06 / size[0], y, f"{shown}\n{count} images", fontsize=10.5, color=plots.INK,
            va="center", parse_math=False,
        )  # fmt: skip
    return figure


def wrapped(text: str, width: int) -> list[str]:
    """At most three lines."""
    import textwrap

    from fgc_jax import plots

    return textwrap.wrap(plots.shortened(text, 3 * width - 6), width) or [text]


def class_counts(data):
    """A Figure: how many images each class has in each split."""
    from matplotlib.figure import Figure

    from fgc_jax import plots

    number = len(data.class_names)
    counts = {
        name: np.bincount(split.labels, minlength=number) for name, split in data.splits.items()
    }
    named = number <= NAMED_BARS
    figure = Figure((8, 1.1 + 0.19 * number) if named else (9, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    if named:
        shown = [
            plots.shortened(plots.drawable(name, i), 44) for i, name in enumerate(data.class_names)
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
            axes.set_yscale("log")  # which leaves out classes without images
            axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylim(bottom=0 if axes.get_yscale() == "linear" else 0.8)
        axes.tick_params(axis="y", labelsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=len(counts), frameon=False, fontsize=8)
    return figure


def report(facts: dict) -> str:
    """An inspection for people."""
    from fgc_jax import logs

    splits, about = facts["splits"], facts["dataset"]
    rows = [("", *splits)]
    rows.append(("images", *(f"{split['images']:,}" for split in splits.values())))
    rows.append(("unreadable", *(f"{len(split['unreadable']):,}" for split in splits.values())))
    rows.append(("classes", *(str(np.count_nonzero(s["class_counts"])) for s in splits.values())))
    for key, label in (
        ("images_per_class", "images of a class"),
        ("width", "width, pixels"),
        ("height", "height, pixels"),
        ("aspect_ratio", "width / height"),
    ):
        rows.append((label, *(spread(split[key]) for split in splits.values())))
    if any("boxes" in split for split in splits.values()):
        for key, label in (
            ("share_of_images", "images with a box"),
            ("share_of_area", "its share of the picture"),
            ("beyond_the_picture", "boxes beyond the picture"),
            ("empty", "empty boxes"),
        ):
            boxes = [split.get("boxes", {}).get(key) for split in splits.values()]
            rows.append((label, *(spread(value, key.startswith("share")) for value in boxes)))
    parts = [f"{about['name']}, {len(about['class_names'])} classes; {about['notes']}"]
    parts.append(logs.table(rows) + "\n(of three numbers: least, median, most)")
    if facts["channels_of_train"]:
        parts.append(channel_lines(facts["channels_of_train"]))
    parts.append("\n".join(duplicate_lines(facts["duplicates"])))
    bad = [f"  {why}" for split in splits.values() for why in split["unreadable"].values()]
    if bad:
        more = [f"  ... all {len(bad)} in {INSPECTION}"] if len(bad) > 20 else []
        parts.append("\n".join(["unreadable:", *bad[:20], *more]))
    return "\n\n".join(parts)


def channel_lines(channels: dict) -> str:
    """What to normalise with."""
    from fgc_jax import logs

    labels = {
        "mean": "mean of all pixels",
        "std": "standard deviation of all pixels",
        "mean_of_images": "mean of the images' means",
        "std_of_images": "standard deviation of the images' means",
    }
    rows = [("training split, pixels of 0 to 1, not resized", "red", "green", "blue")]
    rows += [(labels[key], *(f"{v:.5f}" for v in values)) for key, values in channels.items()]
    return logs.table(rows)


def duplicate_lines(found: dict) -> list[str]:
    """Counts of duplicates, and the first of them."""
    exact, near = found["exact"], found["near"]
    lines = [
        f"exact duplicates: {exact['images']:,} images in {exact['groups']:,} groups, of which "
        f"{exact['with_different_labels']:,} have different labels"
    ]
    more = "" if near["complete"] else "more than "
    lines.append(
        f"near duplicates (at most {near['distance']} of 64 bits differ): {more}"
        f"{near['groups']:,} pairs, of which {near['with_different_labels']:,} have different "
        "labels"
    )
    for kind, shared in (("exactly", exact["shared"]), ("nearly", near["shared"])):
        for split, others in shared.items():
            lines += [f"  {n:,} of {split} are {kind} in {o} too" for o, n in others.items()]
    for group in [*exact["list"][:5], *(pair["images"] for pair in near["list"][:5])]:
        lines.append("  " + " = ".join(f"{image['split']}: {image['name']}" for image in group[:4]))
    return lines


def spread(value, percent: bool = False) -> str:
    """A number, or least/median/most, as text."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " / ".join(spread(each, percent) for each in value.values())
    return f"{100 * value:.0f} %" if percent else f"{value:,.5g}"


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = parse(argv)
    try:
        run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
