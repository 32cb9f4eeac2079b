"""The console program: `fgc COMMAND`."""

import difflib
import sys

from fgc_jax.cli import (
    compare,
    convert_weights,
    estimate_memory,
    evaluate,
    explain,
    find_lr,
    inspect_dataset,
    list_models,
    plot_augmentations,
    plot_schedule,
    predict,
    prepare_dataset,
    probe,
    sweep,
    train,
)

COMMANDS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        train, evaluate, predict, explain, sweep, compare, find_lr, plot_schedule, estimate_memory,
        probe, inspect_dataset, prepare_dataset, plot_augmentations, list_models, convert_weights,
    )
}  # fmt: skip


def listing() -> str:
    """The text of `fgc --help`: every command with the first line of its docstring."""
    lines = [f"  {name:18}  {each.__doc__.splitlines()[0]}" for name, each in COMMANDS.items()]
    head = "example: fgc train --config=quickstart\n\ncommands, each with its own --help:"
    return "\n".join([head, *lines])


def main(argv: list[str] | None = None) -> int:
    """Runs the command named by the first word. Returns its exit code, or 2 if there is none."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] in ([], ["--help"], ["-h"]):
        print(listing())
        return 0
    name = words[0].replace("-", "_")
    if name in COMMANDS:
        return COMMANDS[name].main(words[1:])
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    similar = f"did you mean {close[0]!r}? " if close else ""
    told = f"{words[0]!r} is not a command; {similar}`fgc --help` lists the commands"
    print(f"error: {told}", file=sys.stderr)
    return 2
