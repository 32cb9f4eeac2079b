"""Draws the attention maps of a trained run, for the methods wsdan and cal.

Each row shows an image, the mean of its maps, the strongest maps, the crop and the erasure, and the
plain and the effect prediction. Writes attention.png. If the data contain boxes of the parts that
distinguish the classes (synthetic_birds), it also computes the pointing game on the whole split:
how often the maximum of the attention is on such a part, compared with chance. Writes
pointing.json.

Examples:
    fgc explain --workdir=runs/cal
    fgc explain --workdir=runs/cal --input=my_photos --output=explained
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="run directory of the training")
    parser.add_argument("--method", choices=("attention",), default="attention")
    run_flags.add_checkpoint(parser)
    parser.add_argument(
        "--input",
        type=Path,
        metavar="IMAGE|FOLDER|CSV|TXT",
        help="images to draw, instead of those of a split",
    )
    run_flags.add_split(parser)
    parser.add_argument(
        "--images",
        type=run_flags.positive,
        default=8,
        metavar="N",
        help="number of images to draw (default: 8)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the files (default: WORKDIR/explanation/SPLIT or "
        "WORKDIR/explanation/INPUT)",
    )
    arguments = parser.parse_args(argv)
    if arguments.input and (arguments.split or arguments.data_root):
        parser.error("--input replaces --split and --data_root: do not give both")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Draws and prints. Raises ValueError if the run, data or output folder cannot be used."""
    import numpy as np

    from fgc_jax import data, files
    from fgc_jax.data import images
    from fgc_jax.explain import attention, pictures
    from fgc_jax.plots import style
    from fgc_jax.training import restored

    trained = restored.load_run(arguments.workdir, arguments.checkpoint, views="raw")
    split = None
    if arguments.input:
        _, paths = data.image_files(arguments.input)
        if len(paths) > arguments.images:
            print(f"the first {arguments.images} of {len(paths)} images; --images=N draws more")
        paths = paths[: arguments.images]
        labels, shown = [""] * len(paths), [images.decode(path) for path in paths]
    else:
        name = arguments.split or "test"
        split = restored.load_split(trained, arguments.workdir, name, arguments.data_root)
        number = min(arguments.images, len(split))
        chosen = np.random.default_rng(0).choice(len(split), number, replace=False)
        labels = [trained.class_names[split.labels[index]] for index in chosen]
        shown = [split.read(index) for index in chosen]
    found = list(attention.explanations(trained, shown))
    what = arguments.input.stem if arguments.input else arguments.split or "test"
    folder = arguments.output or arguments.workdir / "explanation" / what
    rows = list(zip(labels, found, strict=True))
    title = f"{arguments.workdir.name}: attention at step {trained.step}, {what}"
    style.save(pictures.attention(rows, trained.class_names, title), folder / "attention.png")
    if split is not None and "telling_boxes" in split.annotations:
        game = attention.point(trained, split)
        print(f"\n{attention.report(game, len(split))}")
        if game.images:
            shares = {"images": game.images, **game.shares()}
            files.write_json(folder / "pointing.json", shares)
    print(f"written to {folder}")


main = command.main(parse, run)
