"""Times forward pass and training step of two sides on this machine, model by model.

Each side has its own process and peak memory. The two take turns after each pass, so that a busy
machine slows both. Prints images/s, the ratio of the turns (median, lowest..highest; above 1: the
first side is faster), peak memory, and the seconds that JAX compiles without and with its
persistent cache.

Examples:
    python scripts/benchmark.py --suite=plain --models resnet50 tf_efficientnet_lite0
    .venv-parity/bin/python scripts/benchmark.py --suite=timm
"""

import argparse
import contextlib
import importlib.util
import os
import statistics
import sys
import tempfile
import time

import sides

from fgc_jax.cli import command

SUITES = """\
suites:
  timm    fgc_jax against timm in PyTorch (channels_last on CPU); needs PyTorch and timm:
          make parity-env, then .venv-parity/bin/python scripts/benchmark.py
  plain   fgc_jax against fgc_jax with the convolutions and poolings of the platform
  frozen  training only the head, with a frozen backbone, against training everything
  augment training with fastai's augmentations on the device, against training without
  remat   training with gradient checkpointing, against training without
  start   seconds from the start of a process to the end of its first training step: fgc_jax
          without and with compiled programs in the cache, and timm; needs PyTorch and timm"""

SIDES = {
    "timm": ("ours", "timm"),
    "plain": ("ours", "plain"),
    "frozen": ("frozen", "ours"),
    "augment": ("augmented", "ours"),
    "remat": ("remat", "ours"),
    "start": ("ours", "timm"),
}
TRAIN_ONLY = ("frozen", "augment", "remat", "start")
PASSES = ("forward", "train")
MODELS = ("resnet50", "vgg16", "tf_efficientnet_lite0", "resnext50_32x4d")
# Others run at the size of their weights.
SIZES = {"tf_efficientnet_lite0": 160}
CLASSES = 100
WARM_UP = 2


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    parser.epilog = SUITES
    parser.add_argument(
        "--suite", choices=SIDES, default="timm", help="what is compared (default: timm)"
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=MODELS,
        metavar="NAME",
        help=f"backbones (default: {' '.join(MODELS)})",
    )
    parser.add_argument(
        "--passes",
        nargs="+",
        choices=PASSES,
        help="inference, and a step of SGD with momentum (default: both, or train alone)",
    )
    sides.number(parser, "--batch_size --batch-size", 16, "images of a step")
    sides.number(
        parser,
        "--image_size",
        None,
        "side of the square images in pixels (default: that of the model's weights; Lite0: 160)",
    )
    sides.number(parser, "--rounds", 5, "timed turns of each pass")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="activations; weights are float32 (timm: autocast; default: float32)",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.passes = arguments.passes or (("train",) if arguments.suite in TRAIN_ONLY else PASSES)
    if arguments.suite in TRAIN_ONLY and "forward" in arguments.passes:
        parser.error(f"--suite={arguments.suite} compares training steps: --passes=train")
    installed = all(map(importlib.util.find_spec, ("torch", "timm")))
    if "timm" in SIDES[arguments.suite] and not installed:
        parser.error(
            f"--suite={arguments.suite} needs PyTorch and timm, which are not installed here; "
            "--help says how"
        )
    return arguments


def compare(arguments: argparse.Namespace) -> None:
    """Runs the suite and prints the results of each model."""
    from fgc_jax import console, models

    for model in arguments.models:
        if model not in models.BACKBONES:
            raise ValueError(f"unknown model {model!r}; {console.choices(model, models.BACKBONES)}")
    for model in arguments.models:
        size = arguments.image_size or SIZES.get(model) or weight_size(models.BACKBONES[model])
        with tempfile.TemporaryDirectory(prefix="benchmark-") as cache:
            spec = {
                "model": model,
                "batch_size": arguments.batch_size,
                "image_size": size,
                "dtype": arguments.dtype,
                "passes": arguments.passes,
                "cache": cache,
            }
            print(f"{model}, {spec['batch_size']} images of {size} px, {spec['dtype']}", flush=True)
            (report_start if arguments.suite == "start" else report)(arguments, spec)


def weight_size(row) -> int:
    """The image side in pixels at which a backbone's default weights were trained."""
    return next(iter(row.weights.values())).size


def start(spec) -> sides.Side:
    return sides.Side(__file__, spec, "--suite=plain")


def report(arguments, spec) -> None:
    """Times one model on both sides and prints its rows of the table."""
    names = SIDES[arguments.suite]
    with contextlib.ExitStack() as stack:
        cold = {}
        for name in names:
            if name != "timm":  # Only compiles, and fills the cache of the process that is timed.
                with start({**spec, "side": name}) as side:
                    cold[name] = side.ready["compile"]
        both = [stack.enter_context(start({**spec, "side": name})) for name in names]
        print(f"  on {sides.same_device(both)}")
        for kind in spec["passes"]:
            for side in both:
                for _ in range(WARM_UP):
                    side.turn(kind)["seconds"]
            turns = [[side.turn(kind)["seconds"] for side in both] for _ in range(arguments.rounds)]
            columns = zip(*turns, strict=True)
            rates = [spec["batch_size"] / statistics.median(column) for column in columns]
            speeds = "  ".join(
                f"{name} {rate:7.1f} images/s" for name, rate in zip(names, rates, strict=True)
            )
            print(f"  {kind:8} {speeds}  ratio {sides.ratio(turns)}", flush=True)
        peaks = [side.peak() / 2**20 for side in both]
        memory = "  ".join(
            f"{name} {peak:7.0f} MiB" for name, peak in zip(names, peaks, strict=True)
        )
        print(f"  memory   {memory}       ratio {peaks[0] / peaks[1]:.2f}")
        for name, side in zip(names, both, strict=True):
            if name in cold:
                compiled = "  ".join(
                    f"{kind} {cold[name][kind]:.1f} s, cached {side.ready['compile'][kind]:.1f} s"
                    for kind in spec["passes"]
                )
                print(f"  compile  {name}: {compiled}", flush=True)


def report_start(arguments, spec) -> None:
    """Prints the seconds until the end of the first training step, for each process."""
    cached = spec["cache"]
    rounds = []
    for number in range(arguments.rounds):
        cold = f"{cached}/{number}"  # Empty at first.
        sides_and_caches = (("ours", cold), ("ours", cold), ("timm", cold))
        rounds.append([first_step({**spec, "side": s, "cache": c}) for s, c in sides_and_caches])
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print(
        f"  start    ours {medians[0]:.1f} s, cached {medians[1]:.1f} s  timm {medians[2]:.1f} s  "
        f"ratio {sides.ratio(rounds, 1, 2)}",
        flush=True,
    )


def first_step(spec) -> float:
    begin = time.perf_counter()
    with start(spec) as side:
        side.turn("train")
        return time.perf_counter() - begin


def work(spec) -> tuple[dict, dict]:
    """The functions of the timed process, and the time to compile them."""
    return timm_side(spec) if spec["side"] == "timm" else jax_side(spec)


def jax_side(spec):
    """({pass: function that runs it}, facts: device, seconds to trace and compile), for fgc_jax."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = spec["cache"]
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    import jax

    from configs import bundles, common
    from fgc_jax import mesh, models
    from fgc_jax.evaluation import metrics
    from fgc_jax.models import conv
    from fgc_jax.training import plans

    side, size = spec["side"], spec["image_size"]
    recipe = common.get_config()
    recipe.model.update(backbone=spec["model"], head=models.BACKBONES[spec["model"]].head)
    recipe.model.update(dtype=spec["dtype"], remat=side == "remat")
    recipe.data.augment = bundles.BUNDLES["fastai"]["augment"] if side == "augmented" else ()
    sizes = {"batch_size": spec["batch_size"], "resize": size, "crop": size}
    trained = "head" if side == "frozen" else "all"
    recipe.phases = (common.phase("timed", train=trained, lr=1e-3, **sizes),)
    phase, batch = sides.first_phase(recipe, CLASSES)
    params, stats, _ = plans.initial_variables(phase.plan)
    compiled, runs = {}, {}

    def compile_pass(kind, function, *values):
        start = time.perf_counter()
        with conv.plain() if side == "plain" else contextlib.nullcontext():
            program = function.lower(*values).compile()
        compiled[kind] = time.perf_counter() - start
        return program

    if "forward" in spec["passes"]:
        infer = metrics.compiled(phase.plan.network, phase.plan.mesh)
        weights = mesh.replicate(phase.plan.mesh, (params, stats))
        forward = compile_pass("forward", infer, *weights, batch)
        runs["forward"] = lambda: jax.block_until_ready(forward(*weights, batch))

    if "train" in spec["passes"]:
        state, constants = phase.first_state(params, stats), phase.method.constants
        train = compile_pass("train", phase.step, state, batch, constants, 1.0)
        runs["train"] = sides.training(train, state, batch, constants)
    device, runs["peak"] = sides.jax_device()
    return runs, {"device": device, "compile": compiled}


def timm_side(spec):
    """The same for timm's network, which is not compiled."""
    import timm
    import torch

    device, peak, place = sides.torch_device()
    model = timm.create_model(spec["model"], num_classes=CLASSES)
    model = model.to(place, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    b, size = spec["batch_size"], spec["image_size"]
    images = torch.randn(b, 3, size, size).to(place, memory_format=torch.channels_last)
    labels = torch.arange(b, device=place) % CLASSES
    narrow = torch.autocast(place, torch.bfloat16, enabled=spec["dtype"] == "bfloat16")

    def forward():
        model.eval()
        with torch.inference_mode(), narrow:
            model(images)[0, 0].item()  # Waits for the device.

    def train():
        model.train()
        optimizer.zero_grad()
        with narrow:
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()  # Waits for the device.

    return {"forward": forward, "train": train, "peak": peak}, {"device": device}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return sides.main(parse(argv), compare, work)


if __name__ == "__main__":
    sys.exit(main())
