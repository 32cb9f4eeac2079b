"""Shows what a trained run looks at: python scripts/explain.py --workdir=DIR [...]."""

import argparse
import sys
from pathlib import Path

from fgc_jax.cli import command

DESCRIPTION = """\
Draws the attention maps of a run of the methods wsdan or cal: the mean of the maps, the strongest
single ones, the crop and the erasure that they choose, and the plain and the effect prediction.
Writes attention.png. Where the data say which parts tell the classes apart (synthetic_birds), it
plays the pointing game on the whole split as well: how often the maximum of the attention falls on
such a part, beside chance, and writes pointing.json."""

EXAMPLES = """\
examples:
  python scripts/explain.py --workdir=runs/cal
  python scripts/explain.py --workdir=runs/cal --input=my_photos --output=seen"""

METHODS = ("attention",)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=Path, required=True, help="run directory of the training")
    parser.add_argument("--method", choices=METHODS, default="attention")
    parser.add_argument(
        "--checkpoint",
        default="best",
        metavar="best|last|STEP",
        help="which of the run (default: best)",
    )
    parser.add_argument(
        "--input", type=Path, metavar="IMAGE|FOLDER|CSV|TXT", help="these images instead of a split"
    )
    parser.add_argument(
        "--split", choices=("test", "val", "train"), help="of the run's data set (default: test)"
    )
    parser.add_argument(
        "--data_root", default="", metavar="DIR", help="where the data set lies now, if it moved"
    )
    parser.add_argument(
        "--images", type=int, default=8, metavar="N", help="how many are drawn (default: 8)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: WORKDIR/explanation/SPLIT or INPUT"
    )
    arguments = parser.parse_args(argv)
    if arguments.input and (arguments.split or arguments.data_root):
        parser.error("--input takes the place of --split and --data_root: give one of them")
    if arguments.images < 1:
        parser.error("--images must be at least 1")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Draws and prints. Raises ValueError where run, data or output folder cannot be used."""
    import numpy as np

    from fgc_jax import data
    from fgc_jax.data import images
    from fgc_jax.explain import attention, pictures
    from fgc_jax.plots import style
    from fgc_jax.training import restored

    trained = restored.load_run(arguments.workdir, arguments.checkpoint, spec="raw")
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
    seen = list(attention.look(trained, shown))
    what = arguments.input.stem if arguments.input else arguments.split or "test"
    folder = arguments.output or arguments.workdir / "explanation" / what
    rows = list(zip(labels, seen, strict=True))
    title = f"{arguments.workdir.name}: attention at step {trained.step}, {what}"
    style.save(pictures.attention(rows, trained.class_names, title), folder / "attention.png")
    if split is not None and "telling_boxes" in split.annotations:
        _point(trained, split, folder)
    print(f"written to {folder}")


def _point(trained, split, folder: Path) -> None:
    """The pointing game on the whole split."""
    from fgc_jax import console, files
    from fgc_jax.explain import attention

    game = attention.Pointing()
    with console.progress("pointing game", len(split)) as bar:
        everything = (split.read(index) for index in range(len(split)))
        for index, seen in enumerate(attention.look(trained, everything)):
            boxes = split.annotations["telling_boxes"](index)
            if len(boxes):
                game.add(seen, attention.coverage(trained.transform, split.read(index), boxes))
            bar.update()
    if not game.images:
        console.say("\nno image shows a part that tells its species from another one")
        return
    shares = game.shares()
    names = {
        "mean_map": "the mean map's maximum",
        "single_maps": "a single map's maximum, on average",
        "shuffled": "the mean map of another image",
        "centre": "the centre of the image",
        "anywhere": "a random place",
    }
    counted = f"{game.images} of {len(split)} images, those that show one"
    console.say(f"\non a part that tells the species apart ({counted}):")
    for name, words in names.items():
        console.say(f"  {words:36} {shares[name]:5.1f} %")
    files.write_json(folder / "pointing.json", {"images": game.images, **shares})


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = parse(argv)
    command.prepare()
    return command.run(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
