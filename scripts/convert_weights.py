"""Converts weights of any readable source to one .safetensors file with timm's key names.

python scripts/convert_weights.py --model=vgg16 --input=vgg16-397923af.pth --output=FILE
python scripts/convert_weights.py --model=resnet50 --input=hub:timm/resnet50.a1_in1k --output=FILE
"""

import argparse
import sys
from pathlib import Path

import safetensors
from safetensors import numpy as safetensors_numpy

from fgc_jax import models


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 with one message where weights or output cannot be used; flags that
    are wrong exit with 2."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "--model",
        required=True,
        choices=models.BACKBONES,
        metavar="NAME",
        help="a name of fgc_jax.models.BACKBONES",
    )
    parser.add_argument("--input", required=True, help="file, directory, package:NAME or hub:ID")
    parser.add_argument("--output", required=True, help="the .safetensors file to write")
    options = parser.parse_args(arguments)
    output = Path(options.output)
    if output.suffix != ".safetensors":
        parser.error(f"--output must end in .safetensors, not {output.name!r}")
    try:
        state = models.timm_state(options.model, options.input)
        write(output, state)
    except (ValueError, OSError, safetensors.SafetensorError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {output}: {len(state)} tensors, {output.stat().st_size:,} bytes")
    return 0


def write(output: Path, state: dict) -> None:
    """Writes the whole file or none."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".partial")
    try:
        safetensors_numpy.save_file(state, partial, metadata={"format": "pt"})
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
