"""Times a training step of CAL, and its crops and erasures separately, against PyTorch.

CAL is counterfactual attention learning: 32 maps, stride 1 in the last stage, SGD. In PyTorch the
crops and erasures are a loop over the images, as in the published code. Each side has its own
process, and the two take turns, so that a busy machine slows both. Prints milliseconds, the ratio
of the turns (median, lowest..highest; above 1: fgc_jax is faster) and peak memory. Needs PyTorch
and timm: make parity-env.

Examples:
    .venv-parity/bin/python scripts/benchmark_methods.py --rounds=5
"""

import argparse
import functools
import importlib.util
import statistics
import sys

import sides

from fgc_jax.cli import command

KINDS = ("crops", "train")
CLASSES = 100
MAPS = 32
WARM_UP = 2


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; exits with code 2 if they are wrong."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--model", default="resnet18", metavar="RESNET", help="backbone (default: resnet18)"
    )
    sides.number(parser, "--batch_size", 16, "images of a step")
    sides.number(parser, "--image_size", 224, "side of the square images in pixels")
    sides.number(parser, "--rounds", 5, "timed turns of each")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if not all(map(importlib.util.find_spec, ("torch", "timm"))):
        parser.error("PyTorch and timm are not installed here; --help says how")
    return arguments


def compare(arguments: argparse.Namespace) -> None:
    """Prints the table."""
    spec = {
        "model": arguments.model,
        "batch_size": arguments.batch_size,
        "image_size": arguments.image_size,
    }
    print(f"CAL, {arguments.model}, {arguments.batch_size} images of {arguments.image_size} px")
    with (
        sides.Side(__file__, {**spec, "side": "ours"}) as ours,
        sides.Side(__file__, {**spec, "side": "torch"}) as theirs,
    ):
        print(f"  on {sides.same_device([ours, theirs])}")
        for kind in KINDS:
            for side in (ours, theirs) * WARM_UP:
                side.turn(kind)
            turns = [
                [side.turn(kind)["seconds"] for side in (ours, theirs)]
                for _ in range(arguments.rounds)
            ]
            first, second = (1e3 * statistics.median(column) for column in zip(*turns, strict=True))
            print(
                f"  {kind:6} ours {first:8.1f} ms  torch {second:8.1f} ms  "
                f"ratio {sides.ratio(turns)}",
                flush=True,
            )
        peaks = [side.peak() / 2**20 for side in (ours, theirs)]
        print(f"  memory ours {peaks[0]:8.0f} MiB torch {peaks[1]:8.0f} MiB")


def peaked_maps(batch, side):
    """f32 [batch, side, side, MAPS]: each map has one soft peak, so a crop is part of the image."""
    import numpy as np

    rng = np.random.default_rng(0)
    centres = rng.uniform(0, side - 1, (2, batch, 1, 1, MAPS))
    row, column = np.mgrid[:side, :side][:, None, :, :, None]
    squares = (row - centres[0]) ** 2 + (column - centres[1]) ** 2
    return np.exp(-squares / (0.2 * side) ** 2).astype(np.float32)


def work(spec) -> tuple[dict, dict]:
    """The functions of the timed process, and its device."""
    return (torch_side if spec["side"] == "torch" else jax_side)(spec)


def jax_side(spec):
    """({kind: function that runs it}, {"device": its name}), for fgc_jax."""
    import jax
    import jax.numpy as jnp

    from configs import common
    from fgc_jax.methods import attention
    from fgc_jax.training import plans

    b, size = spec["batch_size"], spec["image_size"]
    recipe = common.get_config()
    recipe.model.update(backbone=spec["model"], backbone_options={"last_stride": 1})
    common.attention(recipe, "cal", maps=MAPS)
    recipe.data.augment = ()
    sizes = {"resize": size, "crop": size, "batch_size": b}
    recipe.phases = (common.phase("all", lr=1e-3, weight_decay=1e-5, **sizes),)
    phase, batch = sides.first_phase(recipe, CLASSES)
    params, stats, _ = plans.initial_variables(phase.plan)
    state = phase.first_state(params, stats)
    train = sides.training(phase.step, state, batch, phase.method.constants)
    maps = jnp.asarray(peaked_maps(b, size // 16))
    images = jax.random.normal(jax.random.key(1), (b, size, size, 3))
    change = jax.jit(
        functools.partial(
            attention.changed_images,
            crop_threshold=(0.4, 0.6),
            crop_padding=0.1,
            drop_threshold=(0.2, 0.5),
        )
    )
    keys = jax.random.split(jax.random.key(2), 3)

    def crops():
        change(images, maps, keys).block_until_ready()

    device, peak = sides.jax_device()
    return {"crops": crops, "train": train, "peak": peak}, {"device": device}


def torch_side(spec):
    """The same in PyTorch, with a loop over images where the published code has one."""
    import timm
    import torch
    from torch import nn
    from torch.nn import functional

    device, peak, place = sides.torch_device()
    b, size = spec["batch_size"], spec["image_size"]

    class Cal(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = timm.create_model(spec["model"], num_classes=0, global_pool="")
            first = self.trunk.layer4[0]
            (first.conv2 if hasattr(first, "conv3") else first.conv1).stride = (1, 1)
            first.downsample[0].stride = (1, 1)
            features = self.trunk.num_features
            self.attention = nn.Sequential(
                nn.Conv2d(features, MAPS, 1, bias=False), nn.BatchNorm2d(MAPS, 1e-3), nn.ReLU()
            )
            self.fc = nn.Linear(MAPS * features, CLASSES, bias=False)
            self.register_buffer("centres", torch.zeros(CLASSES, MAPS * features))

        def pool(self, maps, x):
            pooled = torch.einsum("bmhw,bchw->bmc", maps, x) / (x.shape[2] * x.shape[3])
            pooled = pooled.flatten(1)
            return functional.normalize(torch.sign(pooled) * torch.sqrt(pooled.abs() + 1e-6))

        def forward(self, images):
            x = self.trunk(images)
            maps = self.attention(x)
            embedding = self.pool(maps, x)
            logits = self.fc(100 * embedding)
            fake = self.fc(100 * self.pool(torch.rand_like(maps) * 2, x))
            return logits, logits - fake, embedding, maps

    def drawn(maps):
        weights = (maps.detach().sum((2, 3)) + 1e-6).sqrt()
        return torch.multinomial(weights, 2, replacement=True)

    def changed_images(images, maps):
        chosen = drawn(maps)
        crops, kept = [], []
        for i in range(len(images)):
            first, second = (maps[i, k][None, None] for k in chosen[i])
            least = (0.4 + 0.2 * torch.rand(()).item()) * first.max()
            mask = upsample(first) >= least
            rows, columns = torch.nonzero(mask[0, 0], as_tuple=True)
            pad = 0.1 * size
            top = max(int(rows.min().item() - pad), 0)
            bottom = min(int(rows.max().item() + pad), size)
            left = max(int(columns.min().item() - pad), 0)
            right = min(int(columns.max().item() + pad), size)
            crops.append(upsample(images[i : i + 1, :, top:bottom, left:right]))
            least = (0.2 + 0.3 * torch.rand(()).item()) * second.max()
            kept.append(images[i : i + 1] * (upsample(second) < least).float())
        return torch.cat(crops + kept)

    def upsample(x):
        return functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=True)

    model = Cal().to(place, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-5)
    images = torch.randn(b, 3, size, size).to(place, memory_format=torch.channels_last)
    labels = torch.arange(b, device=place) % CLASSES

    def train():
        optimizer.zero_grad()
        raw, raw_effect, embedding, maps = model(images)
        with torch.no_grad():
            changed = changed_images(images, maps)
        logits, effect, _, _ = model(changed)
        centres = functional.normalize(model.centres[labels])
        loss = functional.cross_entropy(raw, labels) / 3
        loss = loss + 2 * functional.cross_entropy(logits, labels.repeat(2)) / 3
        effects = torch.cat([raw_effect, effect])
        loss = loss + functional.cross_entropy(effects, labels.repeat(3))
        loss = loss + ((embedding - centres) ** 2).sum() / b
        model.centres[labels] += 0.05 * (embedding.detach() - centres)
        loss.backward()
        optimizer.step()
        loss.item()

    maps = torch.from_numpy(peaked_maps(b, size // 16)).permute(0, 3, 1, 2).contiguous().to(place)

    def crops():
        with torch.no_grad():
            changed_images(images, maps)[0, 0, 0, 0].item()  # Waits for the device.

    return {"crops": crops, "train": train, "peak": peak}, {"device": device}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return sides.main(parse(argv), compare, work)


if __name__ == "__main__":
    sys.exit(main())
