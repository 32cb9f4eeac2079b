"""Predicts the classes of new images with a trained run, and writes them to a file.

The file is a table (csv, jsonl) with the best classes, their probabilities and the unreadable
images, or a submission file (answer, cars, triplet), for which each image must be readable.

Examples:
    fgc predict --workdir=runs/birds --input=photos --output=birds.csv
    fgc predict --workdir=runs/birds --input=a.jpg --output=a.jsonl --format=jsonl
    fgc predict --workdir=runs/birds --input=testing_img_order.txt \\
        --image_root=testing_images --views=crop3 --format=answer --output=answer.txt
    fgc predict --workdir=runs/cars --input=cars_test --format=cars --output=cars.txt
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="run directory of the training")
    parser.add_argument(
        "--input",
        required=True,
        metavar="IMAGE|FOLDER|CSV|TXT",
        help="an image; a folder, whose images and those of its sub-folders are read in the order "
        "of their names; a table with a header; or a list with a file in each line",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the file to write"
    )
    parser.add_argument(
        "--format",
        default="csv",
        metavar="csv|jsonl|answer|cars|triplet",
        help="format of the lines of the file; answer: 'FILE CLASS'; cars: the number of the "
        "class, from 1; triplet: 'IMAGE,CLASS,SCORE' (default: csv)",
    )
    parser.add_argument(
        "--top_k",
        type=int,
        metavar="K",
        help="number of classes for each image (default: 5; not for all formats)",
    )
    parser.add_argument(
        "--path_column", metavar="NAME|NUMBER", help="the CSV's column of image files (default: 0)"
    )
    parser.add_argument(
        "--image_root", metavar="DIR", help="folder of the listed files, relative to the folder of "
        "the table or list (default: that folder)",
    )  # fmt: skip
    parser.add_argument(
        "--delimiter", metavar="CHARACTER", help="character between the CSV's columns (default: ,)"
    )
    run_flags.add(parser)
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Predicts and prints. Raises ValueError if the run, images or flags cannot be used."""
    from fgc_jax import console, data, predict
    from fgc_jax.evaluation import predictions

    names, files = data.image_files(
        arguments.input,
        path_column=arguments.path_column,
        image_root=arguments.image_root,
        delimiter=arguments.delimiter,
    )
    if arguments.output.is_dir():
        raise ValueError(f"--output={arguments.output} is a folder; give the name of a file")
    predictor = predict.Predictor(
        arguments.workdir,
        views=arguments.views,
        average=arguments.average,
        logits=arguments.logits,
        checkpoint=arguments.checkpoint,
        batch_size=arguments.batch_size,
    )
    classes = predictor.class_names
    top_k = predictions.check(arguments.format, arguments.top_k, classes, names)
    with console.progress("predicting", len(files), unit="image") as bar:

        def counted():
            for row in predictor.each(files):
                yield row
                bar.update()

        found = predictions.best(names, counted(), top_k)
        failed = predictions.write(arguments.output, found, classes, arguments.format, top_k)
    console.say(
        f"{len(names) - len(failed):,} images, views {predictor.run.seen}, checkpoint of step "
        f"{predictor.run.step}: written to {arguments.output}"
    )
    if failed:
        console.say(f"{len(failed):,} images have no prediction; the file contains the reasons:")
        console.say("\n".join(f"  {each.name}" for each in failed[:20]))
        if len(failed) > 20:
            console.say("  ...")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return command.run(run, parse(argv))
