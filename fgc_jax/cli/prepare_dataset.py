"""Stores a data set in a few large files, with smaller pictures, for faster reading.

The files are ArrayRecord. They contain labels, class names, splits, boxes, parts and all objects of
an image, but no segmentation masks. If the command is killed, the same command continues. At the
end every record is read and compared. Train on the result with --config.data.name=prepared
--config.data.root=OUTPUT, or open it with tensorflow_datasets.builder_from_directory
(as_data_source needs no TensorFlow).

Examples:
    fgc prepare_dataset --name=folder --root=photos --output=photos_512 --resize=512
    fgc prepare_dataset --name=aircraft --root=fgvc-aircraft-2013b \\
        --options level=family train_split=trainval --output=aircraft_family
    fgc prepare_dataset --output=photos_512 --verify
"""

import argparse
import sys

from fgc_jax.cli import command, data_flags, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    from fgc_jax.data import pipeline

    parser = command.parser(__doc__)
    data_flags.add(parser, required=False)
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="a new folder for the result, not inside --root",
    )
    parser.add_argument(
        "--resize",
        type=int,
        metavar="PIXELS",
        help="shrink larger pictures to this size; no picture is enlarged (default: keep all "
        "sizes)",
    )
    parser.add_argument(
        "--resize_mode",
        choices=("short_side", "squash"),
        default="short_side",
        help="short_side: the shorter side gets this size (default); squash: both sides get it, "
        "which is fastest to decode if training uses config.data.resize_mode=squash and this size",
    )
    parser.add_argument(
        "--jpeg_quality",
        type=int,
        default=95,
        metavar="1..100",
        help="JPEG quality of resized pictures; others are copied byte for byte (default: 95)",
    )
    parser.add_argument(
        "--on_bad_image",
        choices=pipeline.ON_BAD_IMAGE,
        default="raise",
        help="raise: list unreadable images at the end and stop (default); skip: leave them out",
    )
    run_flags.add_threads(parser)
    parser.add_argument(
        "--download",
        action="store_true",
        help="first download the archives to --root, if they are still online",
    )
    parser.add_argument(
        "--verify", action="store_true", help="only check the prepared data set in --output"
    )
    arguments = parser.parse_args(argv)
    if arguments.verify == bool(arguments.name):
        parser.error("give either --name (the data set to prepare) or --verify")
    words = sys.argv[1:] if argv is None else argv
    given = [word.split("=")[0] for word in words if word.startswith("--")]
    stray = [flag for flag in given if flag not in ("--output", "--threads", "--verify")]
    if arguments.verify and stray:
        parser.error(f"{stray[0]} has no effect with --verify, which only checks --output")
    if "--resize_mode" in given and arguments.resize is None:
        parser.error("--resize_mode needs --resize (the new size)")
    if arguments.download and not arguments.root:
        parser.error("--download needs --root (the folder for the archives)")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Prepares or verifies. Raises ValueError if the data, output or options cannot be used."""
    from fgc_jax import data as datasets
    from fgc_jax.data import download, prepare, records

    if arguments.verify:
        number = prepare.verify(arguments.output, threads=arguments.threads)
        print(f"{arguments.output}: all {number} records are intact")
        return
    form = records.Form(arguments.resize, arguments.resize_mode, arguments.jpeg_quality)
    if arguments.name == "folder":  # its next load would read the result as classes
        prepare.check_outside(arguments.output, arguments.root)
    if arguments.download:
        archives = datasets.archives_of(arguments.name, data_flags.parse_options(arguments.options))
        download.download_archives(archives, arguments.root)
    data, options = data_flags.dataset(arguments)
    facts = prepare.prepare(
        data,
        arguments.output,
        name=arguments.name,
        options=options,
        form=form,
        on_bad_image=arguments.on_bad_image,
        threads=arguments.threads,
    )
    print(f"{arguments.output}: {facts['dataset']['name']}, {facts['dataset']['notes']}")
    for name, split in facts["splits"].items():
        number = sum(shard["records"] for shard in split["shards"])
        size = sum(shard["bytes"] for shard in split["shards"])
        print(f"  {name}: {number} images, {size / 1e6:.1f} MB, {len(split['shards'])} files")
    for name, reason in list(facts["skipped"].items())[:20]:
        print(f"  left out: {name} ({reason})")


main = command.main(parse, run)
