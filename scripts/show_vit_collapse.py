"""Shows how a published recipe loses a vision transformer's pretraining, on generated pictures.

Draws blobs on a noisy background; their classes are the hues of the blobs. Trains ViT-Ti/16 on 24
hues and 4,800 pictures. Then fine-tunes it on the 24 hues between them, with ten pictures each,
with the recipes of configs/cub_dogs.py and flips as the only augmentation: the published recipe;
the same with another learning rate, with the mean and std of the weights, or with random weights;
the right recipe; and that with the published optimiser. Prints the accuracies and draws
those after each epoch (DIR/collapse.png). On two CPU cores the first training takes about ten
minutes and each fine-tuning one or two. Finished trainings are not repeated.

Examples:
    python scripts/show_vit_collapse.py --output=runs/collapse --seeds=1,2,3
"""

import argparse
import colorsys
import json
import statistics
import sys
from pathlib import Path

from fgc_jax.cli import command

SOURCE = tuple(15 * k for k in range(24))  # hues in degrees, one for each class
TARGET = tuple(15 * k + 7.5 for k in range(24))
SIZE = 72  # pixels
IMAGES = {
    "source": {"train": 200, "val": 10},
    "target": {"train": 10, "val": 10, "test": 20},
}
PRETRAINING_SEED = 0
EPOCHS = 25  # of each fine-tuning, as published
SHOWN = (1, 3, 7, 10, EPOCHS)  # of them in the table
# The published optimiser, for the right recipe's pictures and batches.
PUBLISHED = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "schedule_options": {"final": 250000.0},
    "warmup": "",
    "clip_norm": 0.0,
}
# With pretrained weights: the variant of configs/cub_dogs.py, changes to its phase, to its data.
ARMS = {
    "published": ("published", {}, {}),
    "published, lr 3e-5": ("published", {"lr": 3e-5}, {}),
    "published, the weights' mean and std": ("published", {}, {"mean": (), "std": ()}),
    "right": ("", {"warmup": "5 %"}, {}),
    "right, but AdamW at 1e-3": ("", PUBLISHED, {}),
}
WITHOUT = "published, random weights"
COLORS = ("#c5221f", "#1a7f37", "#bf8700", "#0969da", "#8250df", "#656d76")


def picture(hue: float, rng):
    """uint8 RGB [SIZE, SIZE, 3]: smooth blobs of about a hue on a noisy ground of any hue."""
    import numpy as np

    cycles, share = rng.uniform(3, 12), rng.uniform(0.15, 0.4)
    frequency = np.hypot(np.fft.fftfreq(SIZE, 1 / SIZE)[:, None], np.fft.rfftfreq(SIZE, 1 / SIZE))
    band = np.exp(-0.5 * ((frequency / cycles - 1) / 0.15) ** 2)
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) * band, (SIZE, SIZE))
    blobs = field > np.quantile(field, 1 - share)

    def colour(hue, least):
        return 255 * np.array(colorsys.hsv_to_rgb(hue / 360 % 1, *rng.uniform(least, 1, 2)))

    figure, ground = colour(hue + rng.uniform(-3, 3), 0.5), colour(rng.uniform(0, 360), 0.3)
    noise = np.where(blobs, 5, 30)[..., None] * rng.normal(size=(SIZE, SIZE, 3))
    image = np.where(blobs[..., None], figure, ground) + noise
    return np.clip(image, 0, 255).astype(np.uint8)


def draw(folder: Path, hues, counts) -> None:
    """Writes FOLDER/SPLIT/CLASS/NNN.png, `counts` pictures a class in each split, or nothing."""
    import numpy as np
    from PIL import Image

    unfinished = folder.with_suffix(".part")
    for part, (split, count) in enumerate(counts.items()):
        for label, hue in enumerate(hues):
            place = unfinished / split / f"hue_{hue:05.1f}"
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                rng = np.random.default_rng((part, label, number))
                Image.fromarray(picture(hue, rng)).save(place / f"{number:03d}.png")
    unfinished.rename(folder)


def recipe(root: Path, variant: str = "", **changes):
    """The recipe of a small ViT of configs/cub_dogs.py for the drawn pictures, flips its only
    augmentation: the others move hues."""
    from configs import cub_dogs

    config = cub_dogs.get_config(",".join(filter(None, ("vit_small_patch16_224", variant))))
    config.data.update(name="folder", root=str(root), val_fraction=0.0, augment=(("flip", {}),))
    config.model.update(backbone="vit_tiny_patch16_224", pretrained="", weights_tag="")
    letterbox = config.data.resize_mode == "letterbox"
    config.phases[0].update(resize=64 if letterbox else SIZE, crop=64, **changes)
    return config


def source_recipe(root: Path):
    """Pretraining: from random weights, which take a larger rate and no drop path."""
    changes = {"optimizer": "adamw", "lr": 5e-4, "batch_size": 32, "epochs": 12, "warmup": "10 %"}
    config = recipe(root, **changes)
    config.model.drop_path = 0.0
    config.seed = PRETRAINING_SEED
    return config


def recipes(root: Path, weights: Path, seed: int) -> dict:
    """{name: recipe} of the fine-tunings."""
    found = {}
    for name in (*ARMS, WITHOUT):
        variant, changes, data = ARMS.get(name, ARMS["published"])
        found[name] = recipe(root, variant, epochs=EPOCHS, **changes)
        found[name].data.update(data)
        found[name].model.pretrained = str(weights) if name in ARMS else ""
        found[name].seed = seed
    return found


def accuracies(workdir: Path) -> list[float]:
    """Validation top-1 after each epoch, in percent."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [row["val_top1"] for row in rows if "val_top1" in row]


def plot(curves: dict[str, list[list[float]]], path: Path) -> None:
    """Validation top-1 of each recipe by epoch: a line per seed."""
    from matplotlib.figure import Figure

    from fgc_jax.plots import style

    figure = Figure((7, 4), dpi=style.DPI)
    axes = figure.add_subplot()
    for color, (name, lines) in zip(COLORS, curves.items(), strict=True):
        for number, line in enumerate(lines):
            axes.plot(range(1, len(line) + 1), line, color=color, label=None if number else name)
    axes.set(xlabel="epoch", ylabel="validation top-1, %", ylim=0, xlim=(1, EPOCHS))
    axes.legend(frameon=False, fontsize=9, bbox_to_anchor=(1, 1), loc="upper left")
    axes.grid(color="#eaeef2")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    style.save(figure, path)


def _words(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def run(arguments: argparse.Namespace) -> None:
    """Draws, trains and prints."""
    from fgc_jax import console, train
    from fgc_jax.cli import convert_weights, run_flags
    from fgc_jax.runs import checkpoint

    checkpoint.mute_leftover_writes()
    seeds = run_flags.numbers("--seeds", arguments.seeds)
    if PRETRAINING_SEED in seeds:
        raise ValueError(
            f"--seeds: {PRETRAINING_SEED} is the seed of the pretraining; it would give the same "
            "initial classifier, to which the backbone was trained"
        )
    folder = arguments.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name, hues in (("source", SOURCE), ("target", TARGET)):
        if not (folder / name).exists():
            draw(folder / name, hues, IMAGES[name])
    train.run(source_recipe(folder / "source"), folder / "run_source")
    weights = folder / "vit.safetensors"
    state, metadata, _ = convert_weights.of_run(folder / "run_source", "best")
    convert_weights.write(weights, state, metadata)
    curves: dict[str, list[list[float]]] = {}
    tests: dict[str, list[float]] = {}
    for seed in seeds:
        for number, (name, config) in enumerate(recipes(folder / "target", weights, seed).items()):
            workdir = folder / f"run_{number}_seed{seed}"
            results = train.run(config, workdir)
            curves.setdefault(name, []).append(accuracies(workdir))
            tests.setdefault(name, []).append(results.test.metrics.top1)
    rows = [("recipe", *(f"epoch {number}" for number in SHOWN), "best", "test")]
    for name, lines in curves.items():
        shown = [[line[number - 1] for line in lines] for number in SHOWN]
        rows.append((name, *map(_words, (*shown, [max(line) for line in lines], tests[name]))))
    plot(curves, folder / "collapse.png")
    console.say(
        f"\nvalidation top-1, and test top-1 of the best epoch, %: mean ± standard deviation of "
        f"{len(seeds)} seeds; chance is {100 / len(TARGET):.1f} %\n\n{console.table(rows)}\n\n"
        f"{folder / 'collapse.png'}"
    )


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of pictures and runs"
    )
    parser.add_argument("--seeds", default="1", metavar="N,N", help="of fine-tuning (default: 1)")
    arguments = parser.parse_args(argv)
    return command.run(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
