"""A run whose network has two kinds of logits: validation chooses, everything else follows."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from configs import common
from fgc_jax import models, predict, train
from fgc_jax.cli import evaluate
from fgc_jax.evaluation import metrics, multiview, views
from fgc_jax.plots import style
from fgc_jax.runs import results
from tests import data_files, small_networks

CLASSES = ("gull", "tern", "wren")


def recipe(root):
    recipe = common.get_config()
    recipe.model.update(backbone="small", feature_map="stage2")
    common.attention(recipe, "cal", maps=3)
    recipe.data.update(name="folder", root=str(root), val_fraction=0.25, threads=2)
    recipe.phases = (common.phase("only", epochs=1, batch_size=6, resize=40, crop=32, lr=0.1),)
    recipe.eval_batch_size = 8
    recipe.views = "raw_crop"
    return recipe


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    splits = {"train": 8, "test": 3}
    data_files.write_folder(root, classes=CLASSES, splits=splits, size=(48, 44))
    return root


@pytest.fixture
def small(monkeypatch):
    def dot(figure, path):
        """Drawing takes seconds."""
        Image.new("RGB", (1, 1)).save(path)

    monkeypatch.setattr(style, "save", dot)
    weights = small_networks.STORED
    row = dataclasses.replace(small_networks.SMALL["basic"], weights=weights)
    monkeypatch.setitem(models.BACKBONES, "small", row)


@pytest.mark.usefixtures("small")
def test_validation_chooses_the_logits_of_the_test(root, tmp_path, monkeypatch, capsys):
    settings = recipe(root)
    seen_by, compiled, summarise = [], metrics.compiled, metrics.summarise

    def noted(network, device_mesh, seen=views.RAW):
        seen_by.append(str(seen))
        return compiled(network, device_mesh, seen)

    def better_effect(rows, num_classes):
        """The second and third evaluation are of validation images, with plain and effect logits:
        these are right more often."""
        found = summarise(rows, num_classes)
        top1 = {2: 40.0, 3: 50.0}.get(len(seen_by))
        return found if top1 is None else dataclasses.replace(found, top1=top1)

    monkeypatch.setattr(metrics, "compiled", noted)
    monkeypatch.setattr(metrics, "summarise", better_effect)
    found = train.run(settings, tmp_path / "run")
    crops = "raw_crop (2 forward passes an image)"
    effect = "raw_crop (2 forward passes an image, effect logits)"
    assert seen_by == ["raw", crops, effect, effect]
    compared = results.Logits("effect", {"plain": 40.0, "effect": 50.0})
    assert found.logits == compared and found.test.views == effect
    assert results.chosen_logits(tmp_path / "run") == "effect"
    assert "logits: effect, by validation top-1: plain 40.00 %, effect 50.00 %" in (
        capsys.readouterr().out
    )
    # A final run, without validation, takes what its search has found.
    settings.update(final=True, search=str(tmp_path / "run"))
    found = train.run(settings, tmp_path / "final")
    assert found.logits == results.Logits("effect", None)
    assert found.test.views == effect

    arguments = [f"--workdir={tmp_path / 'run'}"]
    for flags, folder, words in (
        ([], "test", effect),
        (["--views=raw", "--logits=plain"], "test-raw-plain", "raw"),
    ):
        assert evaluate.main(arguments + flags) == 0
        stored = json.loads((tmp_path / "run" / "evaluation" / folder / "metrics.json").read_text())
        assert stored["views"] == words
    own = json.loads((tmp_path / "run" / "results.json").read_text())["test"]
    again = json.loads((tmp_path / "run" / "evaluation" / "test" / "metrics.json").read_text())
    assert again["loss"] == pytest.approx(own["loss"], rel=1e-5)

    pictures = sorted((root / "test").rglob("*.jpg"))
    by_logits = {
        logits: predict.Predictor(tmp_path / "run", logits=logits)(pictures)
        for logits in ("auto", "plain")
    }
    assert np.abs(by_logits["plain"] - by_logits["auto"]).max() > 1e-4


@pytest.mark.usefixtures("small")
def test_equal_logits_and_no_validation_mean_the_plain_ones(tmp_path, monkeypatch):
    """Effect logits are the plain ones here, and there is no test split: a run is complete when
    the logits are chosen, not before."""
    data_files.write_folder(
        tmp_path / "images", classes=CLASSES, splits={"train": 8}, size=(48, 44)
    )
    monkeypatch.setattr(multiview, "_chosen", lambda seen, logits, out: logits)
    written, write = [], results.write
    monkeypatch.setattr(results, "write", lambda *words: written.append(words[1]) or write(*words))
    settings = recipe(tmp_path / "images")
    settings.views = "raw"
    found = train.run(settings, tmp_path / "run")
    assert found.logits.chosen == "plain" and found.test is None
    assert len(set(found.logits.val_top1.values())) == 1
    assert [(each.complete, each.logits) for each in written] == [
        (False, None), (True, found.logits)
    ]  # fmt: skip
    settings.final = True
    found = train.run(settings, tmp_path / "final")
    assert found.logits == results.Logits("plain", None)


@pytest.mark.usefixtures("small")
def test_logits_that_are_not_trained_are_not_chosen(root, tmp_path):
    settings = recipe(root)
    settings.method = "wsdan"
    del settings.method_options["effect_weight"]
    found = train.run(settings, tmp_path / "run")
    assert found.logits is None and found.test.views.startswith("raw_crop")


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("crop9", "unknown view 'crop9'"),
        ("five_crop", "resize=32 equals the crop"),
        ("multi_scale", "is 32 again, because sizes change in steps of 32"),
    ],
)
@pytest.mark.usefixtures("small")
def test_wrong_views_are_found_before_training(root, tmp_path, views, message):
    settings = recipe(root)
    settings.views = views
    settings.phases[0].resize = 32
    with pytest.raises(ValueError, match=message):
        train.run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
