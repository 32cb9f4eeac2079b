"""Embeddings: what they are, and a cache that is never out of date or half written."""

import dataclasses
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from fgc_jax import models
from fgc_jax.evaluation import metrics
from fgc_jax.training import embeddings, inputs, plans, restored
from tests import tiny_run


@pytest.fixture(scope="module")
def plan(tiny):
    """(plan with data, params, stats, phase) of the small run."""
    trained = restored.load_run(tiny / "run")
    found = plans.load_data(trained.plan.settings)
    plan = dataclasses.replace(trained.plan, dataset=found)
    return plan, trained.params, trained.stats, trained.phase


@pytest.fixture
def computed(monkeypatch):
    """The splits' titles that were computed, not read."""
    titles, real = [], embeddings.compute

    def compute(*arguments):
        titles.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(embeddings, "compute", compute)
    return titles


def val(plan, folder):
    """The embeddings of the validation split."""
    return embeddings.of_splits(*plan, ["val"], folder)[0]["val"]


def test_the_head_makes_the_networks_logits_of_them(plan, tmp_path):
    plan_, variables, stats, phase = plan
    found = val(plan, tmp_path)
    split = plan_.dataset.splits["val"]
    np.testing.assert_array_equal(found.index, np.arange(len(split)))
    np.testing.assert_array_equal(found.labels, split.labels)
    assert found.vectors.shape == (6, 64) and found.vectors.dtype == np.float32
    head = variables["head"]["fc"]
    logits = found.vectors @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    infer = metrics.compiled(plan_.network, plan_.mesh)
    transform = inputs.eval_transform(plan_.settings.data, phase)
    with inputs.eval_batches(plan_.settings, split, transform) as batches:
        results = [infer(variables, stats, _inputs(batch)) for batch in batches]
    losses = np.concatenate([result["loss"] for result in results])[:6]
    np.testing.assert_allclose(metrics.scored(logits, found.labels)["loss"], losses, rtol=1e-5)


def _inputs(batch):
    return {name: batch[name] for name in ("image", "label")}


def test_a_second_time_nothing_is_computed(plan, tmp_path, computed):
    first, read = embeddings.of_splits(*plan, ["train", "val"], tmp_path)
    assert read == [] and computed == ["embedding train", "embedding val"]
    again, read = embeddings.of_splits(*plan, ["train", "val"], tmp_path)
    assert read == ["train", "val"] and len(computed) == 2
    for name, embedded in first.items():
        for field in dataclasses.fields(embedded):
            np.testing.assert_array_equal(
                getattr(embedded, field.name), getattr(again[name], field.name)
            )


def test_whatever_they_depend_on_makes_them_anew(
    plan, tmp_path, computed, monkeypatch, tmp_path_factory
):
    plan_, variables, stats, phase = plan
    val(plan, tmp_path)
    head = jax.tree.map(lambda leaf: leaf + 1, variables["head"])
    val((plan_, {**variables, "head": head}, stats, phase), tmp_path)
    assert len(computed) == 1  # of the head they do not depend
    backbone = jax.tree.map(lambda leaf: leaf * 1.5, variables["backbone"])
    val((plan_, {**variables, "backbone": backbone}, stats, phase), tmp_path)
    val((plan_, variables, jax.tree.map(lambda leaf: leaf + 1, stats), phase), tmp_path)
    val((plan_, variables, stats, dataclasses.replace(phase, crop=48)), tmp_path)
    facts = dataclasses.replace(plan_.network.preprocess, mean=(0.5, 0.5, 0.5))
    network = dataclasses.replace(plan_.network, preprocess=facts)
    val((dataclasses.replace(plan_, network=network), variables, stats, phase), tmp_path)
    settings = plan_.settings
    model = dataclasses.replace(settings.model, backbone_options={"last_stride": 1})
    settings = dataclasses.replace(settings, model=model)
    val((dataclasses.replace(plan_, settings=settings), variables, stats, phase), tmp_path)
    assert len(computed) == 6
    names = plan_.dataset.splits["val"].names
    path = os.path.join(plan_.settings.data.root, names[0])
    before = os.stat(path).st_mtime_ns
    os.utime(path, ns=(1, 1))  # as if another picture had taken its place
    val(plan, tmp_path)
    os.utime(path, ns=(before, before))
    assert len(computed) == 7
    source = Path(embeddings.__file__)
    copy = shutil.copytree(source.parents[1], tmp_path_factory.mktemp("code") / "fgc_jax")
    monkeypatch.setattr(embeddings, "__file__", str(copy / "training" / source.name))
    for number, name in enumerate(
        ("evaluation/inference.py", "training/inputs.py", "models/bridge.py", "data/images.py"), 8
    ):
        (copy / "main.py").write_text(name)  # has no influence
        val(plan, tmp_path)
        assert len(computed) == number - 1
        (copy / name).write_text((copy / name).read_text() + "# changed")
        val(plan, tmp_path)
        assert len(computed) == number == len(list(tmp_path.iterdir()))


def test_a_damaged_file_is_made_anew(plan, tmp_path, computed):
    first = val(plan, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    half = len(whole) // 2
    for damaged in (whole[:half], b"", whole[:half] + b"\0" * 50 + whole[half + 50 :]):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(val(plan, tmp_path).vectors, first.vectors)
        assert path.read_bytes() == whole
    assert len(computed) == 4


def test_a_full_disk_leaves_nothing_half_written(plan, tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space left"):
        val(plan, tmp_path)
    assert not list(tmp_path.iterdir())


def test_unreadable_images_are_listed(plan, tmp_path, monkeypatch):
    plan_, *rest = plan
    split = plan_.dataset.splits["val"]

    def read(index):
        if index == 2:
            raise ValueError("damaged")
        return split.read(index)

    torn = dataclasses.replace(split, read=read)
    data = dataclasses.replace(plan_.dataset, splits={**plan_.dataset.splits, "val": torn})
    found = val((dataclasses.replace(plan_, dataset=data), *rest), None)
    assert list(found.index) == [0, 1, 3, 4, 5] and list(found.unreadable) == [2]


def test_other_heads_have_the_mean_of_their_maps(tiny):
    settings = restored.load_run(tiny / "run").plan.settings.model
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    for head, options, size in (("bilinear", {}, 64), ("gap", {"pool": "avgmax"}, 128)):
        changed = dataclasses.replace(settings, head=head, head_options=options)
        model = models.abstract(changed, len(tiny_run.CLASSES))
        graphdef = models.evaluation_graphdef(model)

        def embed(variables, stats, images, graphdef=graphdef):
            return models.apply(graphdef, variables, stats, lambda live: live.embed(images))[0]

        assert jax.eval_shape(embed, *models.split(model), images).shape == (2, size)
