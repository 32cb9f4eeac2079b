"""The overview that a run prints before it trains."""

from collections.abc import Sequence

import jax

from fgc_jax import config, console, trees
from fgc_jax.training import optim, plans

MEGABYTE = 1e6


def text(plan: plans.Plan, gflops: float, epochs: Sequence[int]) -> str:
    """The overview as a text: data, parameters, cost, and for each phase what it trains and for how
    many `epochs`."""
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
        f"and the same for its gradient and for each optimiser moment",
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
                str(phase.train) + (" + bn" if phase.train_bn_while_frozen else ""),
                *_counts(plan, phase),
                str(trained),
                str(phase.crop),
                str(phase.batch_size),
                optim.describe(phase),
            )
        )
    return "\n".join([*lines, "", console.table(rows)])


def _counts(plan: plans.Plan, phase: config.Phase) -> tuple[str, str]:
    """(the number of re-initialised parameters; for each group the number of trained parameters and
    the factors of their learning rates, and the number of frozen parameters), by their labels."""
    sizes = {path: leaf.size for path, leaf in trees.flatten(plan.network.params).items()}
    fresh = frozen = 0
    counts: dict[str, int] = {}
    factors: dict[str, set[float]] = {}
    for path, label in plan.labels(phase).items():
        fresh += sizes[path] * label.fresh
        frozen += sizes[path] * (not label.trains)
        if label.trains:
            group = label.group + "".join(f" ({name}={value})" for name, value in label.own)
            counts[group] = counts.get(group, 0) + sizes[path]
            factors.setdefault(group, set()).add(label.factor)
    groups = [f"{group} {count:,}{_times(factors[group])}" for group, count in counts.items()]
    groups += [f"frozen {frozen:,}"] if frozen else []
    return f"{phase.reinit}: {fresh:,}" if fresh else "-", ", ".join(groups)


def _times(factors: set[float]) -> str:
    """The smallest and the largest factor of learning rates; "" if all are 1."""
    least, most = f"{min(factors):.2g}", f"{max(factors):.2g}"
    return "" if least == most == "1" else f" x {least}" + (f" to {most}" if most != least else "")
