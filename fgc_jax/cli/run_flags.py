"""Flags of several commands: which checkpoint of a run is used, and how it looks at images."""

import argparse
import re

NAMES = ("checkpoint", "views", "average", "logits")


def add(parser: argparse.ArgumentParser) -> None:
    """Adds them to a parser."""
    add_checkpoint(parser)
    parser.add_argument(
        "--views",
        default="",
        metavar="NAME|SUM",
        help="how often and how each image is looked at: raw, raw_crop, crop3, crop3_flip, flip, "
        "five_crop, ten_crop, multi_scale, or a sum such as '2*raw + crop(0.1, 0.05)' "
        "(default: config.views of the run)",
    )
    parser.add_argument(
        "--average",
        choices=("logits", "probabilities"),
        default="logits",
        help="what the mean over the views is of (default: logits)",
    )
    parser.add_argument(
        "--logits",
        choices=("auto", "plain", "effect"),
        default="auto",
        help="of networks with two kinds, as CAL trains: auto takes those that the run's test was "
        "scored by, which validation images chose (default)",
    )
    parser.add_argument(
        "--batch_size", type=positive, metavar="N", help="over all devices (default: the run's own)"
    )


def add_checkpoint(parser: argparse.ArgumentParser, default: str | None = "best") -> None:
    """Adds --checkpoint; `default` None tells a command whether it was given."""
    parser.add_argument(
        "--checkpoint",
        default=default,
        metavar="best|last|STEP",
        help="of the run. best: the best of the last phase on the validation split, as the run's "
        "own test uses (default); last: the newest; or a step number",
    )


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Adds --data_root to a parser or a group of its flags."""
    parser.add_argument(
        "--data_root", default="", metavar="DIR", help="where the run's data lie now, if they moved"
    )


def add_multi_host(parser: argparse.ArgumentParser) -> None:
    """Adds --multi_host, for `mesh.join_cluster`."""
    parser.add_argument(
        "--multi_host",
        default="",
        metavar="auto|HOST:PORT,COUNT,INDEX",
        help="join the other processes of this command: 'auto' under Slurm, Open MPI, Kubernetes "
        "or on TPUs; else the host and port of the first process, the number of processes, and "
        "which one this is, from 0",
    )


def positive(text: str) -> int:
    """A flag's whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("must be a whole number of at least 1")
    return int(text)


def suffix(arguments: argparse.Namespace) -> str:
    """What tells results with these flags from those of the run's own test, for a file name."""
    parser = argparse.ArgumentParser()
    add(parser)
    changed = [
        getattr(arguments, name)
        for name in NAMES
        if getattr(arguments, name) != parser.get_default(name)
    ]
    return "".join("-" + re.sub(r"[^\w.]+", "_", value).strip("_") for value in changed)
