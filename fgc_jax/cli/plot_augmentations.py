"""Shows what each augmentation does: python scripts/plot_augmentations.py [--input=IMAGE] [...]."""

import argparse
import sys
from pathlib import Path

from fgc_jax import files
from fgc_jax.cli import command

DESCRIPTION = """\
Writes a PNG with a row for each operation of fgc_jax.data.augment: its name and options, the
picture as it came in, and what several draws make of it. Operations that leave some images as they
are do so with the probability 1 - p; here p is 1."""

EXAMPLES = """\
examples:
  python scripts/plot_augmentations.py
  python scripts/plot_augmentations.py --input=bird.jpg --draws=10 --output=bird_augmented.png"""

ALWAYS = {"p": 1.0}
ROWS = (
    ("flip", {}),
    ("crop", {}),  # size: three quarters of the side
    ("resized_crop", {}),
    ("rotate", {"degrees": 20.0, "padding": "zeros"}),
    ("rotate", {"degrees": 20.0}),
    ("shear", {"x": 0.3, "y": 0.1}),
    ("translate", {"padding": "border"}),
    ("zoom", {"scale": (1.0, 1.5)}),
    ("symmetric_warp", {}),
    ("perspective", ALWAYS),
    ("colour_jitter", {"brightness": 0.5}),
    ("colour_jitter", {"contrast": 0.8}),
    ("colour_jitter", {"saturation": 0.9}),
    ("colour_jitter", {"hue": 0.5}),
    ("lighting", ALWAYS),
    ("greyscale", ALWAYS),
    ("blur", {"sigma": (0.5, 4.0), **ALWAYS}),
    ("sharpen", {"factor": (0.0, 6.0), **ALWAYS}),
    ("posterise", {"bits": 3, **ALWAYS}),
    ("solarise", ALWAYS),
    ("invert", ALWAYS),
    ("autocontrast", ALWAYS),
    ("equalise", ALWAYS),
    ("rand_augment", {}),
    ("trivial_augment", {}),
    ("erase", ALWAYS),
    ("erase", {"fill": "noise", **ALWAYS}),
    ("mixup", {"alpha": 0.4}),
    ("cutmix", {}),
    ("mixup_or_cutmix", {}),
)
PARTNERS = 7  # other birds in the batch, to mix in
MARGIN, NAMES = 6, 190  # pixels


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--input", type=Path, metavar="IMAGE", help="picture to show (default: a synthetic bird)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("augmentations.png"),
        metavar="FILE.png",
        help="what is written (default: augmentations.png)",
    )
    parser.add_argument("--draws", type=int, default=7, help="random results a row (default: 7)")
    parser.add_argument(
        "--size", type=int, default=128, help="side of each picture in pixels (default: 128)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    return parser.parse_args(argv)


def batch(path, size):
    """The picture in front of PARTNERS synthetic birds, as a batch for augmentation."""
    import numpy as np

    from fgc_jax import data
    from fgc_jax.data import images, pipeline

    birds = data.load("synthetic_birds", "", {"size": size}).splits["train"]
    pictures = [birds.read(i * (len(birds) // (PARTNERS + 1))) for i in range(PARTNERS + 1)]
    if path is not None:
        transform = pipeline.Transform(size, "short_side", size, False, "bilinear")
        pictures[0] = pipeline.transform_image(transform, images.decode(path))
    count = len(pictures)
    return {
        "image": np.stack(pictures),
        "label": np.arange(count, dtype=np.int32),
        "mask": np.ones(count, np.float32),
    }


def results(name, options, data, draws, seed, row):
    """uint8 `[draws, S, S, 3]`: what the operation makes of the batch's first image."""
    import jax
    import numpy as np

    from fgc_jax.data import augment

    step = jax.jit(augment.build(((name, options),)))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), row), draws)
    found = [np.asarray(step(key, data)["image"][0]) for key in keys]
    return np.clip(np.round(found), 0, 255).astype(np.uint8)


def sheet(rows, original):
    """The contact sheet as a Pillow image. `rows`: [(name, options, pictures), ...]."""
    from PIL import Image, ImageDraw, ImageFont

    from fgc_jax.plots import style

    size, columns = original.shape[0], 1 + max(len(pictures) for *_, pictures in rows)
    step = size + MARGIN
    canvas = Image.new("RGB", (NAMES + columns * step, MARGIN + len(rows) * step), "white")
    pen = ImageDraw.Draw(canvas)
    large, small = (ImageFont.truetype(str(style.FONT), points) for points in (15, 11))
    for i, (name, options, pictures) in enumerate(rows):
        top = MARGIN + i * step
        pen.text((2 * MARGIN, top + 2), name, style.INK, large)
        lines = "\n".join(f"{key} = {value}" for key, value in options.items())
        pen.multiline_text((2 * MARGIN, top + 24), lines, style.FAINT, small)
        for j, picture in enumerate([original, *pictures]):
            inset = (size - picture.shape[0]) // 2
            canvas.paste(Image.fromarray(picture), (NAMES + j * step + inset, top + inset))
    return canvas


def run(arguments):
    """Writes the sheet."""
    if arguments.output.suffix.lower() != ".png":
        raise ValueError(f"--output={arguments.output}: must end in .png")
    for flag, least in (("draws", 1), ("size", 32), ("seed", 0)):
        if getattr(arguments, flag) < least:
            raise ValueError(f"--{flag}={getattr(arguments, flag)}: must be at least {least}")
    data, rows = batch(arguments.input, arguments.size), []
    for number, (name, options) in enumerate(ROWS):
        if name == "crop":
            options = {"size": 3 * arguments.size // 4}
        found = results(name, options, data, arguments.draws, arguments.seed, number)
        rows.append((name, options, found))
    with files.whole(arguments.output) as temporary:
        sheet(rows, data["image"][0]).save(temporary, "PNG")
    print(f"wrote {arguments.output}: {len(rows)} rows")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = parse(argv)
    command.prepare()
    return command.run(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
