"""The task of a classifier: top-1 in training, the metrics of a split, and the final test."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from fgc_jax import config, mesh, methods
from fgc_jax.config.views import LOGITS
from fgc_jax.evaluation import metrics, multiview, scores
from fgc_jax.evaluation.views import RAW, Views
from fgc_jax.methods import losses
from fgc_jax.runs import checkpoint, results
from fgc_jax.runs.results import Evaluation, Logits
from fgc_jax.runs.session import Session
from fgc_jax.training import inputs
from fgc_jax.training.inputs import Inputs
from fgc_jax.training.plans import Plan


def task(plan: Plan) -> methods.Task:
    """Classification as a `Task`. Validation evaluates one view (raw) at the size of the phase."""

    def evaluator(given: Inputs):
        def evaluate(split_name, params, stats):
            rows = _results(plan, given, params, stats, split_name)
            found = metrics.summarise(rows, plan.num_classes)
            return dataclasses.asdict(found), rows.unreadable

        return evaluate

    return methods.Task(
        report=_report,
        evaluator=evaluator,
        monitors={"loss": "lower", "top1": "higher"},
        line=lambda found: (f"loss {found['loss']:.4f}", f"top-1 {found['top1']:.2f} %"),
        test=lambda session, phase, number: _test(plan, session, phase, number),
    )


def _report(outputs, batch) -> dict[str, jax.Array]:
    hits = (jnp.argmax(outputs["logits"], axis=-1) == batch["label"]).astype(jnp.float32)
    return {"top1": 100 * losses.masked_mean(hits, batch["mask"])}


def _results(plan: Plan, given: Inputs, params, stats, split_name: str, views: Views = RAW):
    split = given.splits[split_name]
    infer = metrics.compiled(given.network, plan.mesh, views)
    with inputs.eval_batches(plan.settings, split, given.eval_transform) as batches:
        return metrics.run(infer, params, stats, batches, plan.mesh, len(split))


def views_in_words(data: config.DataSettings, split_name: str | None, views: Views = RAW) -> str:
    """A text for the views of an evaluation, which is reported with each number. It mentions crops
    to ground-truth boxes, because there are no such boxes for new photos."""
    cropped = split_name in data.box_crop
    return f"{views}, cropped to ground-truth boxes" if cropped else str(views)


def _test(
    plan: Plan, session: Session, phase: config.Phase, number: int
) -> tuple[Evaluation | None, Logits | None]:
    """(the evaluation of the test split; the logits that validation chose) for the checkpoint of
    step `number`. This is the only use of the test split in training."""
    params, stats, _ = checkpoint.load_variables(session.workdir, number)
    params, stats = mesh.replicate(plan.mesh, (params, stats))

    def evaluate(split_name, logits):
        views = multiview.of(plan.network, phase, plan.settings.views, logits=logits)
        given = inputs.of(plan.settings, plan.dataset, plan.network, phase, views)
        return views, _results(plan, given, params, stats, split_name, views)

    chosen = _choose_logits(plan, evaluate)
    data = plan.dataset
    if "test" not in data.splits:
        return None, chosen
    views, rows = evaluate("test", chosen.chosen if chosen else "plain")
    found = metrics.summarise(rows, plan.num_classes)
    newest = int(session.manager.latest_step())
    values = {f"test_{name}": value for name, value in dataclasses.asdict(found).items()}
    session.writer.scalars(newest, values)
    words = views_in_words(plan.settings.data, "test", views)
    test = Evaluation(number, "test", words, found)
    folder = session.workdir / "evaluation" / "test"
    scores.write(folder, test, rows, data.splits["test"], data.class_names)
    pictures = {f"test_{name}": folder / f"{name}.png" for name in ("predictions", "confusion")}
    session.writer.pictures(newest, pictures)
    return test, chosen


def _choose_logits(plan: Plan, evaluate) -> Logits | None:
    """The logits that the test uses: those of config.search if it is given; else those with the
    higher validation top-1 in the views of the test; else, without a validation split, the plain
    ones. None for methods that train only one kind."""
    settings = plan.settings
    if not methods.METHODS[settings.method].effect:
        return None
    if settings.search:
        return Logits(results.chosen_logits(Path(settings.search).absolute()), None)
    if "val" not in plan.dataset.splits:
        return Logits("plain", None)
    top1 = {}
    for which in LOGITS:
        _, rows = evaluate("val", which)
        top1[which] = metrics.summarise(rows, plan.num_classes).top1
    return Logits(max(top1, key=top1.get), top1)
