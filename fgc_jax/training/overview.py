"""What a run is about to do, for people."""

from collections.abc import Sequence

import jax
import numpy as np

from fgc_jax import console, trees
from fgc_jax.training import experiment, optim

MEGABYTE = 1e6


def text(plan: experiment.Experiment, gflops: float, epochs: Sequence[int]) -> str:
    """What will run, for people: data, parameters by part, cost, and what each phase trains, for
    how many `epochs`."""
    settings, dataset = plan.settings, plan.dataset
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in dataset.splits.items())
    total = trees.count(plan.params)
    head = plan.params["head"]
    phase = settings.phases[-1]
    lines = [
        f"data     {dataset.name}: {plan.num_classes} classes; images: {sizes}"
        + (f"; cropped to boxes: {', '.join(crops)}" if (crops := settings.data.box_crop) else ""),
        f"model    {settings.model.backbone}"
        + (f" x {settings.model.backbone_b}" if settings.model.backbone_b else "")
        + f" -> {settings.model.head}, {total / 1e6:.2f} M parameters, "
        f"{gflops:.2f} GFLOP an image at {phase.crop} px",
        f"head     {trees.count(head):,} parameters: {trees.num_bytes(head) / MEGABYTE:.1f} MB, "
        f"and as much again for its gradient and each optimiser moment",
        f"devices  {jax.device_count()} x {jax.devices()[0].device_kind}, "
        f"processes: {jax.process_count()}",
    ]
    rows = [
        ("phase", "trains", "re-initialises", "parameters by group", "epochs", "px", "batch", "lr")
    ]
    flat = trees.flatten(plan.params)
    for phase, trained in zip(settings.phases, epochs, strict=True):
        sums: dict[str, int] = {}
        for path, (group, _) in plan.groups(phase).items():
            sums[group] = sums.get(group, 0) + int(np.prod(flat[path].shape))
        by_group = ", ".join(f"{group} {count:,}" for group, count in sums.items())
        rows.append(
            (
                phase.name,
                str(phase.train) + (" + bn" if phase.train_bn_while_frozen else ""),
                str(phase.reinit) or "-",
                by_group,
                str(trained),
                str(phase.crop),
                str(phase.batch_size),
                optim.describe(phase),
            )
        )
    return "\n".join([*lines, "", console.table(rows)])
