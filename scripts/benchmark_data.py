"""Times reading images, compared with torchvision.

From JPEG files to shuffled training batches: decoded, resized (antialiased) to 512 x 512, cropped
at a random place to 448 x 448. Each side has its own process, and all take turns. Prints images/s,
processor time per image, peak memory with all loader processes (in the first epoch, and the growth
in the others), and the speed of the first side relative to each other side (median of the turns,
lowest..highest; above 1: the first is faster).

Examples:
    .venv-parity/bin/python scripts/benchmark_data.py
    python scripts/benchmark_data.py --sides files prepared --size=1024x768
"""

import argparse
import contextlib
import functools
import importlib.util
import itertools
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path

import sides

from fgc_jax.cli import command

SIDES = {
    "files": "ours, from the JPEG files; flip and normalisation belong to the device",
    "prepared": "ours, from ArrayRecord as scripts/prepare_dataset.py writes it (squash)",
    "torch_v2": "torchvision.transforms.v2 on uint8 tensors, flip included, batches of uint8",
    "torch_pil8": "torchvision on Pillow images, flip included, batches of uint8",
    "torch_pil": "torchvision as tutorials have it: Pillow images, ToTensor, Normalize",
}
RESIZE, CROP = 512, 448


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    lines = [f"  {name:10}  {what}" for name, what in SIDES.items()]
    parser.epilog = "\n".join(["sides:", *lines])
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help="sides to time"
    )
    parser.add_argument(
        "--input", metavar="DIR", help="folder of class folders (default: generated photos)"
    )
    parser.add_argument("--size", default="640x512", metavar="WxH", help="of these photos")
    sides.number(parser, "--images", 400, "number of these photos")
    sides.number(parser, "--batch_size", 16, "images of a batch")
    sides.number(parser, "--jobs", 2, "threads, or workers")
    sides.number(parser, "--rounds", 5, "turns of each side")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", arguments.size):
        parser.error(f"--size={arguments.size} must be WIDTHxHEIGHT, e.g. 640x512")
    torch = any(name.startswith("torch") for name in arguments.sides)
    if torch and not importlib.util.find_spec("torchvision") and not arguments.worker:
        parser.error(
            "torchvision is not installed here: make parity-env, then .venv-parity/bin/python "
            "scripts/benchmark_data.py, or choose --sides files prepared"
        )
    return arguments


def compare(arguments: argparse.Namespace) -> None:
    """Makes the photos, then prints a line for each side."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        photos = arguments.input or draw(folder / "photos", arguments)
        spec = {"photos": str(photos), "batch_size": arguments.batch_size, "jobs": arguments.jobs}
        if "prepared" in arguments.sides:
            spec["prepared"] = prepared(str(photos), folder / "prepared")
        running = [
            stack.enter_context(sides.Side(__file__, {**spec, "side": name}))
            for name in arguments.sides
        ]
        n = running[0].ready["images"]
        if not n:
            raise ValueError(f"fewer images than a batch of {arguments.batch_size}")
        for side in running:
            side.turn("epoch")  # warms up, the system's file cache included
        first = [side.peak() for side in running]
        turns = [[side.turn("epoch") for side in running] for _ in range(arguments.rounds)]
        seconds = [[turn["seconds"] for turn in row] for row in turns]
        print(f"{n} images an epoch, {arguments.jobs} threads or workers each")
        for i, (name, side) in enumerate(zip(arguments.sides, running, strict=True)):
            rate = n / statistics.median(row[i] for row in seconds)
            cpu = 1000 * statistics.median(row[i]["cpu"] for row in turns) / n
            more = (side.peak() - first[i]) / 2**20
            print(
                f"  {name:10} {rate:7.1f} images/s  {cpu:5.2f} ms CPU an image  "
                f"{first[i] / 2**20:6.0f} {more:+4.0f} MiB  ratio {sides.ratio(seconds, 0, i)}",
                flush=True,
            )


def draw(folder: Path, arguments: argparse.Namespace) -> Path:
    """Photos of synthetic birds with camera noise, JPEG quality 90, in a folder for each class."""
    import cv2
    import numpy as np

    from fgc_jax import data

    width, height = (int(side) for side in arguments.size.split("x"))
    options = {
        "species": 2,
        "train_per_class": -(-arguments.images // 2),
        "size": max(width, height),
    }
    split = data.load("synthetic_birds", "", options).splits["train"]
    rng = np.random.default_rng(0)
    for i in range(len(split)):
        image = split.read(i)[:height, :width].astype(np.int16)
        image = np.clip(image + rng.integers(-12, 13, image.shape), 0, 255).astype(np.uint8)
        path = folder / f"class_{split.labels[i]}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return folder


def prepared(photos: str, folder: Path) -> str:
    """The same photos as ArrayRecord, of RESIZE x RESIZE pixels."""
    from fgc_jax import data
    from fgc_jax.data import prepare, records

    options = {"test_fraction": 0.0}
    prepare.prepare(
        data.load("folder", photos, options),
        folder,
        name="folder",
        options=options,
        form=records.Form(RESIZE, "squash"),
    )
    return str(folder)


def work(spec) -> tuple[dict, dict]:
    """The function of the timed process, and its images for each epoch."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    return (torch_side if spec["side"].startswith("torch") else ours)(spec)


def ours(spec):
    """An epoch of our pipeline, from files or ArrayRecord."""
    from fgc_jax import data
    from fgc_jax.data import pipeline

    if spec["side"] == "prepared":
        split = data.load("prepared", spec["prepared"], {}).splits["train"]
    else:
        split = data.load("folder", spec["photos"], {"test_fraction": 0.0}).splits["train"]
    transform = pipeline.Transform(RESIZE, "squash", CROP, True, "bilinear")
    reader = pipeline.Reader(threads=spec["jobs"])
    steps, turn = len(split) // spec["batch_size"], itertools.count()

    def epoch():
        # Opened in each turn: what a buffer holds is read in the turn that is timed.
        start, b = next(turn) * steps, spec["batch_size"]
        with pipeline.train_batches(
            split, transform, reader, batch_size=b, seed=0, start_step=start
        ) as batches:
            for _ in range(steps):
                next(batches)

    return {"epoch": epoch}, {"images": steps * spec["batch_size"]}


def torch_side(spec):
    """An epoch of torch's DataLoader over torchvision's ImageFolder."""
    import torch
    from torchvision import datasets, io, transforms
    from torchvision.transforms import v2

    steps = {
        "torch_v2": [v2.Resize((RESIZE, RESIZE), antialias=True), v2.RandomCrop(CROP)]
        + [v2.RandomHorizontalFlip()],
        "torch_pil8": [transforms.Resize((RESIZE, RESIZE)), transforms.RandomCrop(CROP)]
        + [transforms.RandomHorizontalFlip(), transforms.PILToTensor()],
        "torch_pil": [transforms.Resize((RESIZE, RESIZE)), transforms.RandomCrop(CROP)]
        + [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        + [transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))],
    }[spec["side"]]
    read = functools.partial(io.decode_image, mode=io.ImageReadMode.RGB)
    reader = {"loader": read} if spec["side"] == "torch_v2" else {}
    photos = datasets.ImageFolder(spec["photos"], transforms.Compose(steps), **reader)
    loader = torch.utils.data.DataLoader(
        photos,
        batch_size=spec["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=spec["jobs"],
        persistent_workers=True,
    )

    def epoch():
        for _ in loader:
            pass

    return {"epoch": epoch}, {"images": len(loader) * spec["batch_size"]}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return sides.main(parse(argv), compare, work)


if __name__ == "__main__":
    sys.exit(main())
