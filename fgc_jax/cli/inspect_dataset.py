"""Reports on a data set: classes, sizes, boxes, unreadable files, colours and duplicates.

Reads every picture once. Reports the number of images of each class and split, sizes, boxes,
unreadable files, mean and standard deviation of the channels in the training split, and exact and
near duplicates within a split and between training and test. Writes inspection.json (everything),
summary.txt, contact_sheet.png and class_counts.png.

Examples:
    fgc inspect_dataset --name=folder --root=photos --output=runs/photos_inspection
    fgc inspect_dataset --name=synthetic_birds --options species=8 --output=birds
"""

import argparse
from pathlib import Path

from fgc_jax.cli import command, data_flags, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    data_flags.add(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for the files"
    )
    parser.add_argument(
        "--near_distance",
        type=int,
        default=4,
        metavar="BITS",
        help="near duplicates: at most BITS of the 64 bits of their perceptual hashes differ "
        "(default: 4)",
    )
    run_flags.add_threads(parser)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.near_distance <= 16:
        parser.error("--near_distance must be 0 to 16")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Inspects and prints. Raises ValueError if the data or the output folder cannot be used."""
    from fgc_jax import files
    from fgc_jax.data import inspection, statistics
    from fgc_jax.plots import data as data_plots
    from fgc_jax.plots import style

    output = arguments.output
    inspection.check_folder(output)
    data, options = data_flags.dataset(arguments)
    rows = data_plots.sheet_rows(data)
    chosen = [place for _, places in rows for place in places]
    surveys = statistics.survey(
        data, keep=data_plots.thumbnail, chosen=chosen, threads=arguments.threads
    )
    facts = {
        "dataset": data.facts(),
        "options": options,
        "splits": {name: statistics.describe(data, name, surveys[name]) for name in data.splits},
        "channels_of_train": statistics.channels(surveys["train"]) if "train" in surveys else None,
        "duplicates": statistics.describe_duplicates(data, surveys, arguments.near_distance),
    }
    text = inspection.report(facts)
    output.mkdir(parents=True, exist_ok=True)
    style.save(data_plots.contact_sheet(data, surveys, rows), output / "contact_sheet.png")
    style.save(data_plots.class_counts(data), output / "class_counts.png")
    with files.whole(output / "summary.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    files.write_json(output / inspection.INSPECTION, facts)
    print(f"{text}\n\nwritten to {output}: {', '.join(inspection.FILES)}")


main = command.main(parse, run)
