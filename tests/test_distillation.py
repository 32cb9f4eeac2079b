"""A run that learns from another: the loss by its formula, refusals, a whole run, its resume."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import special

from configs import common
from fgc_jax import methods, models, train, trees
from fgc_jax.data import dataset
from fgc_jax.runs import checkpoint, results
from fgc_jax.training import phases, plans, restored, rules
from tests import commands, made_up, test_losses, tiny_run, watched

SHARE, TEMPERATURE = 0.75, 4.0
OPTIONS = {"teacher_share": SHARE, "temperature": TEMPERATURE, "label_smoothing": 0.1}


@pytest.fixture
def finished(tmp_path):
    results.write(tmp_path, made_up.results())
    return tmp_path


def facts_with(run):
    return dataclasses.replace(test_losses.FACTS, load_run=lambda workdir: run)


def one_layer_run(mean=(0.5,) * 3, std=(0.25,) * 3, names=test_losses.NAMES):
    """What restored.load_run returns, as far as a teacher needs it."""
    model = test_losses.OneLayer()
    variables, stats = models.split(model)
    variables = jax.tree.map(lambda leaf: 3 * leaf + 0.5, variables)
    facts = dataclasses.replace(test_losses.FACTS.preprocess, mean=mean, std=std)
    plan = types.SimpleNamespace(network=test_losses.network_of(model, facts))
    return types.SimpleNamespace(plan=plan, params=variables, stats=stats, class_names=names)


@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.1, 0.4, 0.8)])
def test_the_loss_is_its_formula_whatever_normalisation_the_teacher_has(finished, mean):
    std = (0.25, 0.25, 0.25) if mean[0] == 0.5 else (0.2, 0.5, 0.3)
    run = one_layer_run(mean, std)
    method = methods.build("plain", OPTIONS | {"teacher": str(finished)}, facts_with(run))
    batch = test_losses.make_batch(mixed=True)
    logits = np.random.default_rng(1).normal(0, 3, (5, 3)).astype(np.float32)
    value, report = test_losses.call(method, test_losses.answering(logits), batch)
    pixels = batch["image"] * 0.25 + 0.5
    seen = (pixels - np.reshape(mean, (1, 1, 1, 3))) / np.reshape(std, (1, 1, 1, 3))
    layer = jax.tree.map(np.asarray, run.params["fc"])
    taught = seen.mean((1, 2)) @ layer["kernel"] + layer["bias"][None]
    wanted = special.softmax(taught / TEMPERATURE, axis=-1)
    given = special.softmax(logits / TEMPERATURE, axis=-1)
    divergence = (wanted * np.log(wanted / given)).sum(-1)
    teacher_loss = TEMPERATURE**2 * (divergence * batch["mask"]).sum() / batch["mask"].sum()
    label_loss = test_losses.expected(logits, batch, {"label_smoothing": 0.1}, False)
    np.testing.assert_allclose(report.scalars["teacher_loss"], teacher_loss, rtol=1e-5)
    np.testing.assert_allclose(report.scalars["label_loss"], label_loss, rtol=1e-5)
    by_hand = (1 - SHARE) * label_loss + SHARE * teacher_loss
    np.testing.assert_allclose(value, by_hand, rtol=1e-5)


def test_no_gradient_reaches_the_teacher(finished):
    options = OPTIONS | {"teacher": str(finished)}
    method = methods.build("plain", options, facts_with(one_layer_run()))
    student = one_layer_run()
    graphdef = nnx.graphdef(student.plan.network.model)
    batch = test_losses.make_batch()

    def value(variables, constants):
        taught = dataclasses.replace(method, constants=constants)
        call = lambda live: test_losses.call(taught, live, batch)[0]  # noqa: E731
        return models.apply(graphdef, variables, {}, call)[0]

    ours = jax.tree.map(lambda leaf: -leaf, student.params)
    to_student, to_teacher = jax.grad(value, (0, 1))(ours, method.constants)
    assert np.abs(to_student["fc"]["kernel"]).max() > 0.01
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(to_teacher))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("gull", "tern"), "it has 2 classes, the data have 3"),
        (
            ("gull", "wren", "tern"),
            "class 1, 'wren' there and 'tern' in the data",
        ),
    ],
)
def test_a_teacher_of_other_classes_is_refused(finished, names, message):
    facts = facts_with(one_layer_run(names=names))
    with pytest.raises(ValueError, match=message):
        methods.build("plain", OPTIONS | {"teacher": str(finished)}, facts)


def test_a_teacher_must_have_finished(tmp_path):
    with pytest.raises(ValueError, match="teacher='.*': there is no finished run"):
        methods.build("plain", OPTIONS | {"teacher": str(tmp_path)}, facts_with(one_layer_run()))


def small_recipe(images):
    """An epoch of 3 steps, of the head alone."""
    recipe = watched.make_recipe(
        images, {"name": "small", "train": "head", "epochs": 1, "lr": 0.02}
    )
    recipe.model.head_options = {}
    return recipe


@pytest.fixture(scope="module")
def teacher(images, tmp_path_factory):
    """A finished run; its normalisation is not the student's."""
    workdir = tmp_path_factory.mktemp("teacher") / "run"
    recipe = small_recipe(images)
    recipe.data.update(mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.1))
    train.run(recipe, workdir)
    return workdir


def taught(images, teacher):
    recipe = small_recipe(images)
    recipe.method_options.update(OPTIONS, teacher=str(teacher))
    recipe.data.sampling = "3 classes x 2"
    return recipe


def fingerprint(workdir):
    with checkpoint.opened(workdir) as manager:
        state = manager.restore(manager.latest_step()).state
    # The teacher's weights are not in the student's checkpoints; a watched run counts its steps.
    assert set(state.pop("method")) <= {"steps"}
    return trees.fingerprint(state)


def test_a_taught_run_trains_and_continues_to_the_same_bits(images, teacher, tmp_path):
    before = fingerprint(teacher)
    straight = watched.watched_run(taught(images, teacher), tmp_path / "straight", ())
    split = plans.prepare(rules.parse(taught(images, teacher))).dataset.splits["train"]
    for positions in straight.batches[0]:
        np.testing.assert_array_equal(np.bincount(split.labels[positions]), [2, 2, 2])
    rows = [row for row in commands.logged(tmp_path / "straight") if "teacher_loss" in row]
    assert len(rows) == watched.STEPS
    for row in rows:
        mean = (1 - SHARE) * row["label_loss"] + SHARE * row["teacher_loss"]
        np.testing.assert_allclose(row["loss"], mean, rtol=1e-5)
    watched.stopped(taught(images, teacher), tmp_path / "stopped", 2)
    continued = train.run(taught(images, teacher), tmp_path / "stopped")
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "straight")
    assert continued.test == straight.results.test
    assert fingerprint(teacher) == before
    teacher.rename(tmp_path / "moved")  # to use the student nobody needs it
    assert restored.load_run(tmp_path / "stopped").class_names == tiny_run.CLASSES


def test_a_teacher_must_take_the_students_images(finished, monkeypatch):
    def plan(backbone, crop, **options):
        recipe = tiny_run.recipe("unused")
        recipe.model.backbone = backbone
        recipe.phases = tuple(
            common.phase(f"phase{size}", resize=size, crop=size) for size in (32, crop)
        )
        recipe.method_options.update(options)
        data = dataset.Dataset("none", tiny_run.CLASSES, {})
        return plans.assemble(rules.parse(recipe), data)

    run = types.SimpleNamespace(plan=plan("vit_tiny_patch16_224", 64))
    monkeypatch.setattr(restored, "load_run", lambda workdir: run)
    student = plan("resnet18", 40, teacher=str(finished), **OPTIONS)
    with pytest.raises(ValueError, match="teacher='.*': phase phase40: crop=40: .*the patch, 16"):
        phases.method_of(student)
