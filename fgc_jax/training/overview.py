"""What a run is about to do, for people."""

from collections.abc import Sequence

import jax

from fgc_jax import config, console, trees
from fgc_jax.training import optim, plans

MEGABYTE = 1e6


def text(plan: plans.Plan, gflops: float, epochs: Sequence[int]) -> str:
    """What will run, for people: data, parameters by part, cost, and what each phase trains, for
    how many `epochs`."""
    settings, dataset = plan.settings, plan.dataset
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in dataset.splits.items())
    total = trees.count(plan.network.params)
    head = plan.network.params["head"]
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
    for phase, trained in zip(settings.phases, epochs, strict=True):
        rows.append(
            (
                phase.name,
                phase.train + (" + bn" if phase.train_bn_while_frozen else ""),
                phase.reinit or "-",
                _counts(plan, phase),
                str(trained),
                str(phase.crop),
                str(phase.batch_size),
                optim.describe(phase),
            )
        )
    return "\n".join([*lines, "", console.table(rows)])


def _counts(plan: plans.Plan, phase: config.Phase) -> str:
    """How many parameters each label has: by group, and which of them are fresh or frozen."""
    sizes = {path: leaf.size for path, leaf in trees.flatten(plan.network.params).items()}
    counts: dict[str, int] = {}
    for path, label in plan.labels(phase).items():
        name = label.group if label.trains else "frozen"
        counts[name] = counts.get(name, 0) + sizes[path]
    frozen = counts.pop("frozen", 0)
    return ", ".join(f"{group} {count:,}" for group, count in counts.items()) + (
        f", frozen {frozen:,}" if frozen else ""
    )
