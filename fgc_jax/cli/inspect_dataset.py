"""Reports on a data set: python scripts/inspect_dataset.py --name=NAME --output=DIR [...]."""

import argparse
import sys
from pathlib import Path

import numpy as np

from fgc_jax import files
from fgc_jax.cli import command

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
    from fgc_jax.data import flags, statistics
    from fgc_jax.plots import data as data_plots
    from fgc_jax.plots import style

    output = arguments.output
    check_folder(output)
    data, options = flags.dataset(arguments)
    rows = data_plots.sheet_rows(data)
    chosen = [place for _, places in rows for place in places]
    surveys = statistics.survey(
        data, keep=data_plots.thumbnail, chosen=chosen, threads=arguments.threads
    )
    facts = {
        "dataset": data.facts(),
        "options": options,
        "splits": {name: statistics.describe(data, name, surveys[name]) for name in data.splits},
        "channels_of_train": statistics.channels(surveys["train"]) if "train" in surveys else None,
        "duplicates": statistics.describe_duplicates(data, surveys, arguments.near_distance),
    }
    text = report(facts)
    style.save(data_plots.contact_sheet(data, surveys, rows), output / "contact_sheet.png")
    style.save(data_plots.class_counts(data), output / "class_counts.png")
    with files.whole(output / "summary.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    files.write_json(output / INSPECTION, facts)
    print(f"{text}\n\nwritten to {output}: {', '.join(FILES)}")


def check_folder(folder: Path) -> None:
    """Raises ValueError if `folder` is no folder, or holds other things than an inspection."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot write to {folder}: it is not a folder")
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    strays = {name for name in names - set(FILES) if not name.endswith(files.UNFINISHED)}
    if strays:
        raise ValueError(f"{folder} holds other files ({sorted(strays)[0]}): name an empty folder")


def report(facts: dict) -> str:
    """An inspection for people."""
    from fgc_jax import console

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
    parts.append(console.table(rows) + "\n(of three numbers: least, median, most)")
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
    from fgc_jax import console

    labels = {
        "mean": "mean of all pixels",
        "std": "standard deviation of all pixels",
        "mean_of_images": "mean of the images' means",
        "std_of_images": "standard deviation of the images' means",
    }
    rows = [("training split, pixels of 0 to 1, not resized", "red", "green", "blue")]
    rows += [(labels[key], *(f"{v:.5f}" for v in values)) for key, values in channels.items()]
    return console.table(rows)


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
    return command.run(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
