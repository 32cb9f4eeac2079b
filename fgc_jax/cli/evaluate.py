"""Evaluates a run on a split of its data set, or on other labelled images (--input).

Every image is counted exactly once. Prints the metrics and writes metrics.json, per_class.csv,
confusion.csv, confusion.png, most_confused.csv, predictions.csv and predictions.png.

Examples:
    fgc evaluate --workdir=runs/birds
    fgc evaluate --workdir=runs/birds --split=val --checkpoint=last
    fgc evaluate --workdir=runs/birds --views=crop3_flip
    fgc evaluate --workdir=runs/birds --input=my_photos
    fgc evaluate --workdir=runs/cars --input=test.csv --label_column=class
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command, run_flags

CSV_OPTIONS = ("label_column", "path_column", "image_root", "first_label", "delimiter")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="run directory of the training")
    run_flags.add(parser)
    what = parser.add_argument_group("what is evaluated")
    run_flags.add_split(what)
    what.add_argument(
        "--input",
        metavar="FOLDER|CSV",
        help="other labelled images: a folder with a folder for each class, or a CSV file",
    )
    what.add_argument(
        "--label_column", metavar="NAME|NUMBER", help="the CSV's column of labels (number from 0)"
    )
    run_flags.add_table(what)
    what.add_argument(
        "--first_label",
        type=int,
        choices=(0, 1),
        help="for labels that are class numbers: the number of the first class",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the files (default: WORKDIR/evaluation/SPLIT or WORKDIR/evaluation/INPUT)",
    )
    run_flags.add_multi_host(parser)
    arguments = parser.parse_args(argv)
    if arguments.input and (arguments.split or arguments.data_root):
        parser.error("--input replaces --split and --data_root: do not give both")
    given = [name for name in CSV_OPTIONS if getattr(arguments, name) is not None]
    if given and not arguments.input:
        parser.error(f"--{given[0]} needs a CSV file as --input")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Evaluates and prints. Raises ValueError if the run, data or output folder cannot be used."""
    from fgc_jax import console, data, mesh
    from fgc_jax.evaluation import metrics, scores
    from fgc_jax.runs import results
    from fgc_jax.training import classification, restored

    mesh.join_cluster(arguments.multi_host)
    split_name = None if arguments.input else arguments.split or "test"
    output = arguments.output or default_output(arguments, split_name)
    scores.check_folder(output)
    workdir, checkpoint = arguments.workdir, arguments.checkpoint
    trained = restored.load_run(workdir, checkpoint, **run_flags.choices(arguments))
    if split_name:
        split = restored.load_split(trained, workdir, split_name, arguments.data_root)
    else:
        options = {name: getattr(arguments, name) for name in CSV_OPTIONS}
        options = {name: value for name, value in options.items() if value is not None}
        split = data.labelled_split(arguments.input, trained.class_names, **options)
    rows, class_names = restored.evaluate_split(trained, split), trained.class_names
    evaluation = results.Evaluation(
        checkpoint=trained.step,
        split=split_name or str(arguments.input),
        views=classification.views_in_words(trained.plan.settings.data, split_name, trained.views),
        metrics=metrics.summarise(rows, len(class_names)),
    )
    scores.write(output, evaluation, rows, split, class_names)
    matrix = metrics.confusion_matrix(rows, len(class_names))
    console.say(scores.report(evaluation, matrix, class_names))
    if len(rows.unreadable):
        console.say(f"\n{scores.unreadable(rows, split)}")
    console.say(f"\nwritten to {output}: {', '.join(scores.FILES)}")


def default_output(arguments: argparse.Namespace, split_name: str | None) -> Path:
    """The folder for a split or an input and the flags; by default that of the run's test."""
    name = split_name or Path(arguments.input).resolve().stem
    if not split_name and name in run_flags.SPLITS:
        name = f"input-{name}"
    return arguments.workdir / "evaluation" / f"{name}{run_flags.suffix(arguments)}"


main = command.main(parse, run)
