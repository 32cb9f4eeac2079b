"""Lists the backbones whose names contain one of the words, with their published weights.

Each set of weights has a line: its tag, its image size in pixels in training (and in brackets the
best size in tests), the number of classes of its classifier, its licence, and the value of
config.model.pretrained that reads it. GFLOP: 1e9 multiply-adds for one image at the size of the
first tag; MB: size of its float32 file. "none published": there are no weights; the tag stands for
the size and the normalisation given by timm.

Examples:
    fgc list_models
    fgc list_models convnext vgg16 --json
"""

import argparse
import dataclasses
import json

from fgc_jax.cli import command


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="part of a name, e.g. convnext")
    parser.add_argument("--json", action="store_true", help="print all facts as JSON")
    return parser.parse_args(argv)


def chosen(words: list[str]) -> dict:
    """The rows of BACKBONES whose names contain one of the words.

    Raises:
        ValueError: no name contains a word.
    """
    from fgc_jax import models

    for word in words:
        if not any(word in name for name in models.BACKBONES):
            raise ValueError(f"no backbone has {word!r} in its name")
    return {
        name: row
        for name, row in models.BACKBONES.items()
        if not words or any(word in name for word in words)
    }


def table(rows: dict) -> str:
    """A line for each set of weights; the first line of a backbone also has its own facts."""
    from fgc_jax import console

    lines = [
        ("model", "parameters", "GFLOP", "MB", "tag", "px", "classes", "licence", "pretrained=")
    ]
    for name, row in rows.items():
        own = (
            name,
            f"{row.parameters / 1e6:.1f} M",
            f"{row.gflops:.3g}",
            f"{row.parameters * 4 / 1e6:.0f}",
        )
        for tag, facts in row.weights.items():
            size = f"{facts.size}"
            if facts.test_size != facts.size:
                size += f" ({facts.test_size})"
            place = facts.source or (facts.url and f"the file {facts.url}")
            published = (str(facts.classes or "-"), facts.license, place)
            lines.append((*own, tag, size, *(published if place else ("", "", "none published"))))
            own = ("", "", "", "")
    return console.table(lines, left=(0, 4, 7, 8))


def as_json(rows: dict) -> str:
    """All facts as a JSON object by name."""
    return json.dumps(
        {
            name: {
                "parameters": row.parameters,
                "gflops": row.gflops,
                "feature_maps": {
                    key: {"channels": row.channels[key], "stride": row.strides[key]}
                    for key in row.channels
                },
                "layers": list(row.layers),
                "weights": {tag: dataclasses.asdict(facts) for tag, facts in row.weights.items()},
            }
            for name, row in rows.items()
        },
        indent=2,
    )


def run(arguments: argparse.Namespace) -> None:
    """Prints the list. Raises ValueError if no name contains a word."""
    rows = chosen(arguments.words)
    print(as_json(rows) if arguments.json else table(rows))


main = command.main(parse, run)
