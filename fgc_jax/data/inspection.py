"""An inspection of a data set: its files, and its results as a text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fgc_jax import console, files

INSPECTION = "inspection.json"
FILES = (INSPECTION, "summary.txt", "contact_sheet.png", "class_counts.png")


def check_folder(folder: Path) -> None:
    """Raises ValueError if `folder` is not a folder, or contains other files than an inspection."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot write to {folder}: it is not a folder")
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    strays = {name for name in names - set(FILES) if not name.endswith(files.UNFINISHED)}
    if strays:
        raise ValueError(f"{folder} contains other files ({sorted(strays)[0]}); choose another")


def report(facts: Mapping[str, Any]) -> str:
    """The results as a text. `facts`: "dataset" is that of `Dataset.facts`; "splits",
    "channels_of_train" and "duplicates" are those of `statistics`."""
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
        rows.append((label, *(_spread(split[key]) for split in splits.values())))
    if any("boxes" in split for split in splits.values()):
        for key, label in (
            ("share_of_images", "images with a box"),
            ("share_of_area", "its share of the picture"),
            ("beyond_the_picture", "boxes beyond the picture"),
            ("empty", "empty boxes"),
        ):
            boxes = [split.get("boxes", {}).get(key) for split in splits.values()]
            rows.append((label, *(_spread(value, key.startswith("share")) for value in boxes)))
    parts = [f"{about['name']}, {len(about['class_names'])} classes; {about['notes']}"]
    parts.append(console.table(rows) + "\n(of three numbers: least, median, most)")
    if facts["channels_of_train"]:
        parts.append(_channel_lines(facts["channels_of_train"]))
    parts.append("\n".join(_duplicate_lines(facts["duplicates"])))
    bad = [f"  {why}" for split in splits.values() for why in split["unreadable"].values()]
    if bad:
        more = [f"  ... all {len(bad)} in {INSPECTION}"] if len(bad) > 20 else []
        parts.append("\n".join(["unreadable:", *bad[:20], *more]))
    return "\n\n".join(parts)


def _channel_lines(channels: dict) -> str:
    """Mean and standard deviation of the channels, for normalising."""
    labels = {
        "mean": "mean of all pixels",
        "std": "standard deviation of all pixels",
        "mean_of_images": "mean of the images' means",
        "std_of_images": "standard deviation of the images' means",
    }
    rows = [("training split, pixels of 0 to 1, not resized", "red", "green", "blue")]
    rows += [(labels[key], *(f"{v:.5f}" for v in values)) for key, values in channels.items()]
    return console.table(rows)


def _duplicate_lines(found: dict) -> list[str]:
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


def _spread(value, percent: bool = False) -> str:
    """A number, or least/median/most, as a text."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " / ".join(_spread(each, percent) for each in value.values())
    return f"{100 * value:.0f} %" if percent else f"{value:,.5g}"
