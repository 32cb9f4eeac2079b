"""Flags of several commands: the checkpoint of a run, the views of an image, the processes."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

NAMES = ("checkpoint", "views", "average", "logits")
SPLITS = ("test", "val", "train")


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint, --views, --average, --logits and --batch_size to a parser."""
    from fgc_jax.config.views import AVERAGES, LOGITS, VIEWS

    add_checkpoint(parser)
    parser.add_argument(
        "--views",
        default="",
        metavar="NAME|SUM",
        help=f"the views of each image whose predictions are averaged: {', '.join(VIEWS)}, or a "
        "sum such as '2*raw + crop(0.1, 0.05)' (default: config.views of the run)",
    )
    parser.add_argument(
        "--average",
        choices=AVERAGES,
        default=AVERAGES[0],
        help="what is averaged over the views (default: %(default)s)",
    )
    parser.add_argument(
        "--logits",
        choices=("auto", *LOGITS),
        default="auto",
        help="for networks with two kinds of logits (method cal): auto uses those of the run's "
        "test, which were chosen on validation (default)",
    )
    parser.add_argument(
        "--batch_size",
        type=positive,
        metavar="N",
        help="images per batch, over all devices (default: that of the run)",
    )


def add_checkpoint(parser: argparse.ArgumentParser, default: str | None = "best") -> None:
    """Adds --checkpoint. With `default` None a command can see whether it was given."""
    parser.add_argument(
        "--checkpoint",
        default=default,
        metavar="best|last|STEP",
        help="checkpoint of the run. best: the best one of the last phase on validation, which the "
        "run's test uses (default); last: the newest; or a step number",
    )


def add_split(parser: argparse.ArgumentParser) -> None:
    """Adds --split and --data_root to a parser or a group of its flags."""
    parser.add_argument(
        "--split", choices=SPLITS, help="split of the run's data set (default: test)"
    )
    add_data_root(parser)


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Adds --data_root to a parser or a group of its flags."""
    parser.add_argument(
        "--data_root", default="", metavar="DIR", help="folder of the run's data, if it was moved"
    )


def add_table(parser: argparse.ArgumentParser) -> None:
    """Adds --path_column, --image_root and --delimiter, for a table of images, to a parser or a
    group of its flags."""
    parser.add_argument(
        "--path_column", metavar="NAME|NUMBER", help="the CSV's column of image files (default: 0)"
    )
    parser.add_argument(
        "--image_root",
        metavar="DIR",
        help="folder of these files (default: the folder of the table or list)",
    )
    parser.add_argument(
        "--delimiter", metavar="CHARACTER", help="character between the CSV's columns (default: ,)"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Adds --threads."""
    text = "number of threads (default: one for each core)"
    parser.add_argument("--threads", type=positive, metavar="N", help=text)


def add_multi_host(parser: argparse.ArgumentParser) -> None:
    """Adds --multi_host, for `mesh.join_cluster`."""
    parser.add_argument(
        "--multi_host",
        default="",
        metavar="auto|HOST:PORT,COUNT,INDEX",
        help="connect to the other processes of this command: 'auto' under Slurm, Open MPI, "
        "Kubernetes or on TPUs; else the host and port of the first process, the number of "
        "processes, and the number of this process, from 0",
    )


def choices(arguments: argparse.Namespace) -> dict:
    """The values of the flags that `restored.load_run` and `Predictor` take by their names."""
    return {name: getattr(arguments, name) for name in ("views", "average", "logits", "batch_size")}


def at_least(least: int) -> Callable[[str], int]:
    """The type of a flag that is a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}")
        return int(text)

    return parse


positive = at_least(1)


def png(text: str) -> Path:
    """The type of a flag that names the picture to write."""
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .png")
    return Path(text)


def numbers(flag: str, text: str) -> list[int]:
    """The different numbers of a flag such as --k=10,20. Raises ValueError."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag}={text} must be whole numbers, separated by commas") from None
    if min(found) < 0:
        raise ValueError(f"{flag}={text} must not be negative")
    if len(set(found)) < len(found):
        raise ValueError(f"{flag}={text}: a number is given twice")
    return found


def suffix(arguments: argparse.Namespace) -> str:
    """A suffix for file names that contains the flags that differ from their defaults."""
    parser = argparse.ArgumentParser()
    add(parser)
    changed = [
        getattr(arguments, name)
        for name in NAMES
        if getattr(arguments, name) != parser.get_default(name)
    ]
    return "".join("-" + re.sub(r"[^\w.]+", "_", value).strip("_") for value in changed)
