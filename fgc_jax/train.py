"""Training: the phases, the loop, validation, early stopping, and the final test."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from fgc_jax import config, console, mesh, methods, trees
from fgc_jax.data import images
from fgc_jax.evaluation import multiview, scores, views
from fgc_jax.runs import checkpoint, directory, stop
from fgc_jax.runs.progress import Progress
from fgc_jax.runs.writer import Writer, check_wandb
from fgc_jax.training import averaging, experiment, loop, overview, restored, rules


def run(settings: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains all phases in `directory`, or continues there, and returns results.json's content.

    Raises:
        ValueError: something in config, data, weights or directory is wrong (nothing is written).
        meter.NonFiniteLoss, checkpoint.CheckpointError, stop.Stopped: see there.
    """
    workdir = Path(workdir).absolute()
    parsed, resolved = rules.parse(settings), config.resolved(settings)
    directory.check(workdir, resolved)
    finished = directory.finished_results(workdir)
    if finished:
        console.say(f"{workdir} is finished already.\n\n{directory.results_table(finished)}")
        return finished
    begun = checkpoint.any_in(workdir)
    epochs = [phase.epochs for phase in parsed.phases]
    if parsed.search and not begun:  # later its checkpoints know, whatever became of the search
        epochs = directory.chosen_epochs(Path(parsed.search).absolute(), resolved)
    check_wandb(parsed.wandb)
    plan = experiment.prepare(parsed)
    method = plan.method(restored.load_run)
    directory.check_dataset(workdir, plan.dataset.facts())
    gflops = plan.forward_gflops(plan.settings.phases[-1])
    start = None if begun else experiment.initial_variables(plan)
    first = jax.process_index() == 0
    with directory.locked(workdir) if first else contextlib.nullcontext():
        if first:
            directory.write_json(workdir / directory.CONFIG, resolved)
            directory.write_json(workdir / directory.DATASET, plan.dataset.facts())
        with checkpoint.opened(workdir) as manager, stop.requests(manager) as asked:
            averaged = averaging.is_result(parsed.phases[0])
            progress = Progress(averaged=averaged, epochs_of_phases=epochs)
            latest = manager.latest_step()
            if latest is not None:
                progress = Progress(**checkpoint.read_meta(manager, latest))
            description = overview.text(plan, gflops, progress.epochs_of_phases)
            console.say(description)
            if latest is not None:
                console.say(f"\nContinuing from step {latest} in phase {progress.phase + 1}.")
            else:
                console.say(f"\n{start[2]}")
            writer = Writer(workdir, latest or 0, parsed.wandb)
            try:
                if latest is None:
                    writer.start(resolved, description)
                live = loop.Run(
                    plan,
                    method,
                    resolved,
                    workdir,
                    manager,
                    writer,
                    asked,
                    plan.eval_step(),
                    gflops,
                    progress,
                    start,
                )
                del start
                return _run_phases(live, latest)
            finally:
                writer.close()


def _run_phases(live: loop.Run, latest: int | None) -> dict[str, Any]:
    phases = live.experiment.settings.phases
    while True:
        if not live.progress.finished:
            begin = latest if latest is not None else live.progress.phase_start
            loop.train_phase(live, begin)
        checkpoint.finish(live.manager)
        _write_results(live, test=None)
        entry = live.progress.history[-1]
        top1 = entry["best_val_top1"]
        found = "no validation" if top1 is None else f"best validation top-1 {top1:.2f} %"
        console.say(
            f"Phase {entry['name']}: {found} after epoch {entry['best']['epoch']} of "
            f"{entry['epochs']} ({entry['seconds']:.0f} s, "
            f"{entry['images_per_second']:.0f} images/s)"
        )
        if live.progress.phase + 1 == len(phases):
            break
        live.start, latest = _next_phase(live), None
    test, compared = _test(live, live.progress.history[-1]["best"]["step"])
    results = _write_results(live, test=test, compared=compared)
    console.say(f"\n{directory.results_table(results)}\n\nEverything is in {live.workdir}")
    return results


def _next_phase(live: loop.Run) -> tuple[Any, Any, str]:
    """Moves progress to the next phase and returns the variables that it starts from; the method's
    state goes on from the same checkpoint."""
    live.progress = live.progress.next_phase()
    live.progress.averaged = averaging.is_result(live.phase)
    entry = live.progress.history[-1]
    last = live.progress.phase_start
    source = entry["best"]["step"] if live.phase.start_from == "best" else last
    variables, stats, _ = checkpoint.load_variables(live.workdir, source)
    state = checkpoint.load_method(live.workdir, source)
    live.method = dataclasses.replace(live.method, state=state)
    variables, stats = experiment.reinitialised(
        live.experiment, live.progress.phase, variables, stats
    )
    return variables, stats, f"from step {source}"


def _test(live: loop.Run, number: int) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """(results of the one look at the test split, what validation said of the logits to score): the
    last phase's best checkpoint."""
    plan = live.experiment
    variables, stats, _ = checkpoint.load_variables(live.workdir, number)
    variables, stats = mesh.replicate(plan.mesh, (variables, stats))
    compared = _compare_logits(live, variables, stats)
    if "test" not in plan.dataset.splits:
        return None, compared
    seen = multiview.of(plan, live.phase, logits=compared["chosen"] if compared else "plain")
    values, results = loop.evaluate_split(live, "test", variables, stats, seen)
    live.writer.scalars(
        live.progress.phase_start + live.progress.history[-1]["steps"],
        {f"test_{name}": value for name, value in values.items()},
    )
    facts = {"checkpoint": number, "split": "test", "views": plan.views("test", seen)}
    if jax.process_index() == 0:
        folder = live.workdir / "evaluation" / "test"
        test_split, class_names = plan.dataset.splits["test"], plan.dataset.class_names
        scores.write(folder, facts, results, test_split, class_names)
        for name in ("predictions", "confusion"):
            picture = images.decode(folder / f"{name}.png")
            live.writer.images(int(live.manager.latest_step()), {f"test_{name}": picture[None]})
    return {**facts, **values}, compared


def _compare_logits(live: loop.Run, variables, stats) -> dict[str, Any] | None:
    """Which logits the test scores, {"chosen", "val_top1"}: those that are right more often on
    validation images, seen as the test ones will be; those of config.search where it is given; the
    plain ones where there is neither. None for methods that train one kind only."""
    plan, settings = live.experiment, live.experiment.settings
    if not methods.METHODS[settings.method].effect:
        return None
    if settings.search:
        found = directory.chosen_logits(Path(settings.search).absolute())
        return {"chosen": found, "val_top1": None}
    if "val" not in plan.dataset.splits:
        return {"chosen": "plain", "val_top1": None}
    top1 = {}
    for which in views.LOGITS:
        seen = multiview.of(plan, live.phase, logits=which)
        top1[which] = loop.evaluate_split(live, "val", variables, stats, seen)[0]["top1"]
    return {"chosen": max(top1, key=top1.get), "val_top1": top1}


def _write_results(
    live: loop.Run, test: Mapping | None, compared: Mapping | None = None
) -> dict[str, Any]:
    plan = live.experiment
    results = {
        "config": live.config,
        "dataset": plan.dataset.name,
        "num_classes": plan.num_classes,
        "pretrained": " + ".join(
            str(source)
            for source in (plan.settings.model.pretrained, plan.settings.model.pretrained_b)
            if source
        )
        or None,
        "params": trees.count(plan.params),
        "forward_gflops": live.forward_gflops,
        "phases": live.progress.history,
        "bad_images": sorted(set(live.progress.bad_images)),
        "complete": live.progress.phase + 1 == len(plan.settings.phases)
        and (test is not None or "test" not in plan.dataset.splits),
        "logits": compared,
        "test": test,
    }
    if jax.process_index() == 0:
        directory.write_json(live.workdir / directory.RESULTS, results)
    return results
