"""Measures how well a backbone's embeddings separate the classes, without training it.

Logistic regression or nearest neighbours on embeddings of a recipe's pretrained weights (--config)
or of a run (--workdir). Images are transformed as in evaluation, at the size of the last phase.
Embeddings are computed once and stored. The l2 penalty or k is selected on the validation split;
the test split is evaluated once.

Examples:
    fgc probe --config=quickstart
    fgc probe --config=quickstart --method=knn --k=10,20
    fgc probe --workdir=runs/quickstart --output=probe.json
"""

import argparse
import dataclasses
import os
import time
from pathlib import Path

from fgc_jax.cli import command, recipe, run_flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    recipe.add(what, required=False)
    what.add_argument("--workdir", type=Path, metavar="DIR", help="a run directory")
    run_flags.add_checkpoint(parser, default=None)
    run_flags.add_data_root(parser)
    parser.add_argument("--method", choices=("linear", "knn"), default="linear")
    parser.add_argument("--k", metavar="N,N", help="numbers of neighbours to try (default: 10,20)")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="temperature of the neighbours' votes (default: 0.07)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder of stored embeddings (default: ~/.cache/fgc_jax/embeddings)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the results here")
    arguments = recipe.parse(parser, argv)
    if arguments.workdir and arguments.changes:
        parser.error(f"{arguments.changes[0]} has no effect with --workdir, whose run has a config")
    if arguments.config and (arguments.checkpoint or arguments.data_root):
        parser.error("--checkpoint and --data_root need --workdir")
    if arguments.method != "knn" and (arguments.k or arguments.temperature is not None):
        parser.error("--k and --temperature need --method=knn")
    if arguments.temperature is not None and not arguments.temperature > 0:
        parser.error("--temperature must be above 0")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Probes and prints. Raises ValueError if the recipe, run, data or options cannot be used."""
    # The vectors of L-BFGS are short: more threads would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from fgc_jax import console, files
    from fgc_jax.training import classification, embeddings, probes, rules

    ks = run_flags.numbers("--k", arguments.k or "10,20")
    temperature = 0.07 if arguments.temperature is None else arguments.temperature
    if arguments.config:
        settings = rules.parse(recipe.read(arguments.config, arguments.changes))
        subject = probes.of_recipe(settings)
    else:
        checkpoint = arguments.checkpoint or "best"
        subject = probes.of_run(arguments.workdir, checkpoint, arguments.data_root)
    plan, phase = subject.plan, subject.phase
    if "val" not in plan.dataset.splits:
        raise ValueError("a probe needs a validation split, which this run does not have")
    folder = arguments.cache or files.cache("embeddings")
    clock = time.perf_counter()
    found, stored = embeddings.of_splits(
        plan, subject.params, subject.stats, phase, list(plan.dataset.splits), folder
    )
    seconds = {"embeddings": time.perf_counter() - clock}
    clock = time.perf_counter()
    splits = found["train"], found["val"], found.get("test")
    if arguments.method == "knn":
        name = "k"
        outcome = probes.knn(*splits, plan.num_classes, ks, temperature)
    else:
        name = "l2"
        outcome = probes.linear(*splits, plan.num_classes)
    seconds["probe"] = time.perf_counter() - clock
    rows = [(name, "val top-1", "val mean class acc.")]
    for value, val in outcome.tried:
        mark = " *" if value == outcome.chosen else ""
        rows.append((f"{value:g}{mark}", f"{val.top1:.2f} %", f"{val.mean_class_accuracy:.2f} %"))
    sizes = ", ".join(f"{name} {len(each.labels):,}" for name, each in found.items())
    console.say(
        f"embeddings of {plan.settings.model.backbone}, {found['train'].vectors.shape[1]} numbers "
        f"an image at {phase.crop} px: {sizes}\n\n{console.table(rows)}\n"
    )
    if outcome.test:
        test, view = outcome.test, classification.views_in_words(plan.settings.data, "test")
        console.say(
            f"test: top-1 {test.top1:.2f} %, mean class accuracy {test.mean_class_accuracy:.2f} % "
            f"with {name} = {outcome.chosen:g} ({test.images:,} images, views {view})"
        )
    kept = f"; {', '.join(stored)} from {folder}" if stored else ""
    console.say(f"{seconds['embeddings']:.1f} s embeddings{kept}; {seconds['probe']:.1f} s probe")
    if arguments.output:
        tried = [{name: value, "val": dataclasses.asdict(val)} for value, val in outcome.tried]
        results = {
            **subject.facts,
            "method": arguments.method,
            "tried": tried,
            name: outcome.chosen,
            "test": outcome.test and dataclasses.asdict(outcome.test),
            "seconds": seconds,
        }
        files.write_json(arguments.output, results)


main = command.main(parse, run)
