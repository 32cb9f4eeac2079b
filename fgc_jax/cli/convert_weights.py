"""Writes weights as one .safetensors file with timm's key names and shapes.

The weights are published ones (--model and --input) or those of a trained run (--workdir). timm
loads the file with strict key checking. If timm's network has another head, the head is left out
and the output says so.

Examples:
    fgc convert_weights --model=vgg16 --input=vgg16-397923af.pth --output=FILE
    fgc convert_weights --model=resnet50 --input=hub:timm/resnet50.a1_in1k --output=FILE
    fgc convert_weights --workdir=runs/birds --output=birds.safetensors
"""

import argparse
import os
from pathlib import Path

from fgc_jax.cli import command, run_flags

# What timm's network needs to compute the same, by option of config.model.backbone_options.
TIMM_NEEDS = {
    "last_stride": (
        "give the convolutions in model.layer4[0] stride {0} and remove its poolings "
        "(output_stride=16 is different: it dilates)"
    ),
    "patch_stride": (
        "create it with dynamic_img_size=True and set model.patch_embed.proj.stride = ({0}, {0})"
    ),
    "part_selection": "timm has no setting that makes the last block select tokens",
}

TIMMS_OWN = {"last_stride": 2, "part_selection": False}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="the network of --input: a name that `fgc list_models` prints",
    )
    parser.add_argument("--input", help="file, directory, package:NAME or hub:ID")
    parser.add_argument("--workdir", type=Path, help="a run directory, instead of --input")
    run_flags.add_checkpoint(parser, default=None)
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    options = parser.parse_args(argv)
    if bool(options.workdir) == bool(options.input):
        parser.error("give either --model and --input, or --workdir")
    if options.input and (not options.model or options.checkpoint):
        parser.error("--input needs --model, and has no --checkpoint")
    if options.workdir and options.model:
        parser.error("--model has no effect with --workdir, which uses the model of the run")
    if options.output.suffix != ".safetensors":
        parser.error(f"--output must end in .safetensors, not {options.output.name!r}")
    if options.model:
        from fgc_jax import console, models

        if options.model not in models.BACKBONES:
            known = console.choices(options.model, models.BACKBONES)
            parser.error(f"--model={options.model} is unknown; {known}")
    return options


def of_run(directory: Path, checkpoint: str) -> tuple[dict, dict, str]:
    """(state dict, metadata, message for the user) of a checkpoint. Raises ValueError."""
    from fgc_jax import models
    from fgc_jax.models import pretrained
    from fgc_jax.training import restored

    run = restored.load_run(directory, checkpoint)
    settings = run.plan.settings.model
    state, classes, complete = models.to_timm(settings, run.params, run.stats)
    call = f"timm.create_model({settings.backbone!r}, num_classes={classes})"
    told = f"step {run.step}; for {call}.load_state_dict(..., strict={complete})"
    if not classes:
        told += f"\nwithout the head {settings.head!r}, because timm's network has another one"
    for option, value in settings.backbone_options.items():
        if value == TIMMS_OWN.get(option):
            continue
        needs = TIMM_NEEDS[option].format(value)
        told += f"\ntrained with {option}={value}, which is not in the file: {needs}"
    used, tag = run.plan.network.preprocess, models.weights_tag(settings)
    if used.rescale(models.preprocess(settings)):  # data.mean and data.std replaced them
        told += f"\ntrained with mean={used.mean}, std={used.std}, which are not in the file"
        tag = ""
    return state, pretrained.metadata(settings.backbone, tag), told


def run(arguments: argparse.Namespace) -> None:
    """Writes and prints. Raises ValueError if the weights or the output cannot be used."""
    from fgc_jax import models
    from fgc_jax.models import pretrained

    told = ""
    if arguments.workdir:
        state, metadata, told = of_run(arguments.workdir, arguments.checkpoint or "best")
    else:
        state, tag = models.timm_state(arguments.model, arguments.input)
        metadata = pretrained.metadata(arguments.model, tag)
    write(arguments.output, state, metadata)
    size = arguments.output.stat().st_size
    print(f"wrote {arguments.output}: {len(state)} tensors, {size:,} bytes")
    if told:
        print(told)


def write(output: Path, state: dict, metadata: dict) -> None:
    """Writes the file completely or not at all. Raises OSError if it cannot be written."""
    import safetensors
    from safetensors import numpy as safetensors_numpy

    from fgc_jax import files

    try:
        with files.whole(output) as temporary:
            safetensors_numpy.save_file(state, temporary, metadata=metadata)
            os.umask(mask := os.umask(0))
            temporary.chmod(0o666 & ~mask)  # safetensors makes files that only the owner can read
    except safetensors.SafetensorError as error:
        raise OSError(f"could not write {output}: {error}") from error


main = command.main(parse, run)
