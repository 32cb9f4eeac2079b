"""Draws what each augmentation does to a picture.

Writes a PNG with a row for each operation of fgc_jax.data.augment: its name and options, the
original picture, and several random results. Operations with a probability p are drawn with p = 1.

Examples:
    fgc plot_augmentations
    fgc plot_augmentations --input=bird.jpg --draws=10 --output=bird_augmented.png
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--input", type=Path, metavar="IMAGE", help="picture to show (default: a synthetic bird)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("augmentations.png"),
        metavar="FILE.png",
        help="the picture to write (default: augmentations.png)",
    )
    parser.add_argument(
        "--draws", type=int, default=7, help="number of random results in each row (default: 7)"
    )
    parser.add_argument(
        "--size", type=int, default=128, help="height and width in pixels (default: 128)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the results (default: 0)")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Writes the sheet. Raises ValueError if a flag or the picture cannot be used."""
    from fgc_jax import files
    from fgc_jax.data.augment import examples
    from fgc_jax.plots import augmentations

    if arguments.output.suffix.lower() != ".png":
        raise ValueError(f"--output={arguments.output}: must end in .png")
    for flag, least in (("draws", 1), ("size", 32), ("seed", 0)):
        if getattr(arguments, flag) < least:
            raise ValueError(f"--{flag}={getattr(arguments, flag)}: must be at least {least}")
    batch = examples.batch(arguments.input, arguments.size)
    rows = list(examples.rows(batch, arguments.draws, arguments.seed))
    with files.whole(arguments.output) as temporary:
        augmentations.sheet(rows, batch["image"][0]).save(temporary, "PNG")
    print(f"wrote {arguments.output}: {len(rows)} rows")


main = command.main(parse, run)
