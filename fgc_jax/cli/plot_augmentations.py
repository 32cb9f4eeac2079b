"""Draws what each augmentation does to a picture.

Writes a PNG with a row for each operation of fgc_jax.data.augment: its name and options, the
original picture, and several random results. Operations with a probability p are drawn with p = 1.

Examples:
    fgc plot_augmentations
    fgc plot_augmentations --input=bird.jpg --draws=10 --output=bird_augmented.png
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--input", type=Path, metavar="IMAGE", help="picture to show (default: a synthetic bird)"
    )
    parser.add_argument(
        "--output",
        type=run_flags.png,
        default=Path("augmentations.png"),
        metavar="FILE.png",
        help="the picture to write (default: augmentations.png)",
    )
    for flag, least, default, text in (
        ("--draws", 1, 7, "number of random results in each row"),
        ("--size", 32, 128, "height and width in pixels"),
        ("--seed", 0, 0, "seed of the results"),
    ):
        kind = {"type": run_flags.at_least(least), "default": default, "metavar": "N"}
        parser.add_argument(flag, **kind, help=f"{text} (default: {default})")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Writes the sheet. Raises ValueError if the picture cannot be used."""
    from fgc_jax import files
    from fgc_jax.data.augment import examples
    from fgc_jax.plots import augmentations

    batch = examples.batch(arguments.input, arguments.size)
    rows = list(examples.rows(batch, arguments.draws, arguments.seed))
    with files.whole(arguments.output) as temporary:
        augmentations.sheet(rows, batch["image"][0]).save(temporary, "PNG")
    print(f"wrote {arguments.output}: {len(rows)} rows")


main = command.main(parse, run)
