"""Training: the phases of a recipe one after the other, and the final test."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from fgc_jax import config, console, trees
from fgc_jax.models import network as networks
from fgc_jax.runs import checkpoint, directory, session
from fgc_jax.runs.progress import Progress
from fgc_jax.runs.writer import check_wandb
from fgc_jax.training import averaging, classification, loop, overview, phases, plans


def run(recipe: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains all phases in `workdir`, or continues there, and returns results.json's content.

    Raises:
        ValueError: something in config, data, weights or directory is wrong (nothing is written).
        meter.NonFiniteLoss, checkpoint.CheckpointError, stop.Stopped: see there.
    """
    workdir = Path(workdir).absolute()
    settings, resolved = config.parse(recipe), config.resolved(recipe)
    directory.check(workdir, resolved)
    finished = directory.finished_results(workdir)
    if finished:
        console.say(f"{workdir} is finished already.\n\n{directory.results_table(finished)}")
        return finished
    begun = checkpoint.any_in(workdir)
    epochs = [phase.epochs for phase in settings.phases]
    if settings.search and not begun:  # later its checkpoints know, whatever became of the search
        epochs = directory.chosen_epochs(Path(settings.search).absolute(), resolved)
    check_wandb(settings.wandb)
    plan = plans.prepare(settings)
    method, task = phases.method_of(plan), classification.task(plan)
    directory.check_dataset(workdir, plan.dataset.facts())
    gflops = networks.forward_gflops(plan.network, settings.phases[-1].crop)
    start, told = None, ""
    if not begun:
        *start, told = plans.initial_variables(plan)
    with session.opened(workdir, resolved, plan.dataset.facts(), settings.wandb) as opened:
        averaged = averaging.is_result(settings.phases[0])
        progress = Progress(averaged=averaged, epochs_of_phases=epochs)
        if opened.latest is not None:
            progress = Progress(**checkpoint.read_meta(opened.manager, opened.latest))
            told = f"Continuing from step {opened.latest} in phase {progress.phase + 1}."
        description = overview.text(plan, gflops, progress.epochs_of_phases)
        console.say(f"{description}\n\n{told}")
        if opened.latest is None:
            opened.writer.start(resolved, description)
        live = loop.Run(plan, method, task, opened, progress)
        begin = progress.phase_start if opened.latest is None else opened.latest
        _run_phases(live, begin, start, gflops)
        test, compared = task.test(opened, live.phase, live.progress.history[-1]["best"]["step"])
        results = _write_results(live, gflops, test=test, compared=compared)
        console.say(f"\n{directory.results_table(results)}\n\nEverything is in {workdir}")
        return results


def _run_phases(live: loop.Run, begin: int, variables: list | None, gflops: float) -> None:
    """Trains what is left, from global step `begin`; `variables`: see `loop.train_phase`."""
    while True:
        if not live.progress.finished:
            loop.train_phase(live, begin, variables)
        checkpoint.finish(live.session.manager)
        _write_results(live, gflops)
        entry = live.progress.history[-1]
        top1 = entry["best_val_top1"]
        found = "no validation" if top1 is None else f"best validation top-1 {top1:.2f} %"
        console.say(
            f"Phase {entry['name']}: {found} after epoch {entry['best']['epoch']} of "
            f"{entry['epochs']} ({entry['seconds']:.0f} s, "
            f"{entry['images_per_second']:.0f} images/s)"
        )
        if live.progress.phase + 1 == len(live.plan.settings.phases):
            return
        variables = _next_phase(live)
        begin = live.progress.phase_start


def _next_phase(live: loop.Run) -> list:
    """Moves progress to the next phase and returns the [params, stats] that it starts from; the
    method's state goes on from the same checkpoint."""
    live.progress = live.progress.next_phase()
    live.progress.averaged = averaging.is_result(live.phase)
    entry, workdir = live.progress.history[-1], live.session.workdir
    last = live.progress.phase_start
    source = entry["best"]["step"] if live.phase.start_from == "best" else last
    params, stats, _ = checkpoint.load_variables(workdir, source)
    live.method = dataclasses.replace(live.method, state=checkpoint.load_method(workdir, source))
    return list(plans.reinitialised(live.plan, live.progress.phase, params, stats))


def _write_results(
    live: loop.Run, gflops: float, test: Mapping | None = None, compared: Mapping | None = None
) -> dict[str, Any]:
    plan = live.plan
    model = plan.settings.model
    results = {
        "config": live.session.config,
        "dataset": plan.dataset.name,
        "num_classes": plan.num_classes,
        "pretrained": " + ".join(filter(None, (model.pretrained, model.pretrained_b))) or None,
        "params": trees.count(plan.network.params),
        "forward_gflops": gflops,
        "phases": live.progress.history,
        "bad_images": sorted(set(live.progress.bad_images)),
        "complete": live.progress.phase + 1 == len(plan.settings.phases)
        and (test is not None or "test" not in plan.dataset.splits),
        "logits": compared,
        "test": test,
    }
    if jax.process_index() == 0:
        directory.write_json(live.session.workdir / directory.RESULTS, results)
    return results
