"""Training: the phases of a recipe one after the other, and the final test."""

import dataclasses
from pathlib import Path

import ml_collections

from fgc_jax import config, console, methods, trees
from fgc_jax.models import network as networks
from fgc_jax.runs import checkpoint, directory, results, session
from fgc_jax.runs.progress import Progress
from fgc_jax.runs.results import Evaluation, Logits, Results
from fgc_jax.runs.writer import check_wandb
from fgc_jax.training import averaging, loop, overview, phases, plans, restored, rules


def run(recipe: ml_collections.ConfigDict, workdir: str | Path) -> Results:
    """Trains all phases in `workdir`, or continues an unfinished run there. Returns its results.

    Raises:
        ValueError: the config, the data, the weights or the directory are wrong. Nothing but the
            lock is written.
        meter.NonFiniteLoss, checkpoint.CheckpointError, stop.Stopped: see these classes.
    """
    workdir = Path(workdir).absolute()
    settings, resolved = rules.parse(recipe), config.resolved(recipe)
    directory.check(workdir, resolved)
    finished = results.finished(workdir)
    if finished:
        console.say(f"{workdir} is finished already.\n\n{results.table(finished)}")
        return finished
    begun = checkpoint.any_in(workdir)
    epochs = [phase.epochs for phase in settings.phases]
    if settings.search and not begun:  # later the run's own checkpoints contain these numbers
        epochs = results.chosen_epochs(Path(settings.search).absolute(), resolved)
    check_wandb(settings.wandb)
    plan = plans.prepare(settings)
    method, task = phases.method_of(plan), phases.task_of(plan)
    directory.check_dataset(workdir, plan.dataset.facts())
    gflops = networks.forward_gflops(plan.network, settings.phases[-1].crop)
    start, told = None, ""
    if not begun:
        *start, told = plans.initial_variables(plan)

    def check():
        if begun:
            _check_continues(plan, method, task, workdir)

    facts = plan.dataset.facts()
    with session.opened(workdir, resolved, facts, settings.wandb, check) as opened:
        averaged = averaging.is_result(settings.phases[0])
        progress = Progress(averaged=averaged, epochs_of_phases=epochs)
        if opened.latest is not None:
            progress = checkpoint.read_progress(opened.manager, opened.latest)
            told = f"Continuing from step {opened.latest} in phase {progress.phase + 1}."
        description = overview.text(plan, gflops, progress.epochs_of_phases)
        console.say(f"{description}\n\n{told}")
        if opened.latest is None:
            opened.writer.start(resolved, description)
        live = loop.Run(plan, method, task, opened, progress)
        begin = progress.phase_start if opened.latest is None else opened.latest
        _run_phases(live, begin, start, gflops)
        test, chosen = task.test(opened, live.phase, live.progress.history[-1].best.step)
        found = _write_results(live, gflops, complete=True, test=test, logits=chosen)
        console.say(f"\n{results.table(found)}\n\nEverything is in {workdir}")
        return found


def _check_continues(plan, method: methods.Method, task: methods.Task, workdir: Path) -> None:
    """Raises ValueError if the newest checkpoint cannot be continued from."""
    newest = checkpoint.find_step(workdir, "last")
    progress = checkpoint.load_progress(workdir, newest)
    ready = phases.prepare(plan, progress.phase, method, task, start=progress.phase_start)
    checkpoint.check_layout(workdir, newest, ready.state_shapes())


def _run_phases(live: loop.Run, begin: int, variables: list | None, gflops: float) -> None:
    """Trains the rest of the run from global step `begin`; `variables`: see `loop.train_phase`."""
    while True:
        if not live.progress.finished:
            loop.train_phase(live, begin, variables)
        checkpoint.finish(live.session.manager)
        _write_results(live, gflops)
        entry = live.progress.history[-1]
        top1 = entry.best_val_top1
        found = "no validation" if top1 is None else f"best validation top-1 {top1:.2f} %"
        console.say(
            f"Phase {entry.name}: {found} after epoch {entry.best.epoch} of {entry.epochs} "
            f"({entry.seconds:.0f} s, {entry.images_per_second:.0f} images/s)"
        )
        if live.progress.phase + 1 == len(live.plan.settings.phases):
            return
        variables = _next_phase(live)
        begin = live.progress.phase_start


def _next_phase(live: loop.Run) -> list:
    """Moves progress to the next phase and returns the [params, stats] that it starts from. The
    method's state comes from the same checkpoint."""
    live.progress = live.progress.next_phase()
    live.progress.averaged = averaging.is_result(live.phase)
    best, last = live.progress.history[-1].best.step, live.progress.phase_start
    source = best if live.phase.start_from == "best" else last
    workdir, index = live.session.workdir, live.progress.phase
    *variables, state = restored.load_start(live.plan, index, workdir, source)
    live.method = dataclasses.replace(live.method, state=state)
    return variables


def _write_results(
    live: loop.Run,
    gflops: float,
    complete: bool = False,
    test: Evaluation | None = None,
    logits: Logits | None = None,
) -> Results:
    plan, progress = live.plan, live.progress
    found = Results(
        config=live.session.config,
        dataset=plan.dataset.name,
        num_classes=plan.num_classes,
        pretrained=plan.settings.model.sources,
        params=trees.count(plan.network.params),
        forward_gflops=gflops,
        phases=tuple(progress.history),
        bad_images=tuple(sorted(set(progress.bad_images))),
        complete=complete,
        logits=logits,
        test=test,
    )
    results.write(live.session.workdir, found)
    return found
