"""Converts weights of any readable source to one .safetensors file with timm's key names.

python scripts/convert_weights.py --model=vgg16 --input=vgg16-397923af.pth --output=FILE
python scripts/convert_weights.py --model=resnet50 --input=hub:timm/resnet50.a1_in1k --output=FILE
"""

import argparse
import sys
from pathlib import Path

from safetensors import numpy as safetensors

from fgc_jax import models


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="a name of fgc_jax.models.BACKBONES")
    parser.add_argument("--input", required=True, help="file, directory, package:NAME or hub:ID")
    parser.add_argument("--output", required=True, help="the .safetensors file to write")
    options = parser.parse_args(arguments)
    output = Path(options.output)
    try:
        if output.suffix != ".safetensors":
            raise ValueError(f"--output must end in .safetensors, not {output.name!r}")
        state = models.timm_state(options.model, options.input)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".partial")
    safetensors.save_file(state, partial, metadata={"format": "pt"})
    partial.replace(output)
    print(f"wrote {output}: {len(state)} tensors, {output.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
