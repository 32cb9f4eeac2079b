"""A run used from outside: trained without its data, and as a function of images."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import special

from fgc_jax import models, predict
from fgc_jax.data import augment, images, pipeline
from fgc_jax.training import restored
from tests import data_files, tiny_run


@pytest.fixture(scope="module")
def predictor(tiny):
    return predict.Predictor(tiny / "run")


@pytest.fixture(scope="module")
def files(tiny):
    return sorted((tiny / "data" / "test").rglob("*.jpg"))


def copy_of(tiny, tmp_path):
    return shutil.copytree(tiny / "run", tmp_path / "run")


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def probabilities_by_hand(trained, files):
    """One forward pass over all images at once, softmax in float64."""
    pixels = [pipeline.transform_image(trained.transform, images.decode(file)) for file in files]
    return special.softmax(logits_by_hand(trained, np.stack(pixels)), axis=1)


def logits_by_hand(trained, pixels):
    preprocess = trained.plan.network.preprocess
    inputs = augment.normalise(pixels, preprocess.mean, preprocess.std)
    graphdef = models.evaluation_graphdef(trained.plan.network.model)

    @jax.jit
    def forward(variables, stats):
        return models.apply(graphdef, variables, stats, lambda model: model(inputs)[0])[0]

    return np.asarray(forward(trained.params, trained.stats), np.float64)


def test_probabilities_are_the_networks_in_the_order_given(predictor, files):
    expected = probabilities_by_hand(predictor.run, files)
    found = predictor(files)
    assert found.dtype == np.float32 and found.shape == (15, 3)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert len(np.unique(found.argmax(1))) > 1  # or the test could not see a wrong order
    np.testing.assert_allclose(predictor(files[::-1]), expected[::-1], atol=2e-4)
    assert predictor.class_names == tiny_run.CLASSES


@pytest.mark.parametrize("number", [0, 1, 5])
def test_any_number_of_images(predictor, files, number):
    found = predictor(files[:number])
    assert found.shape == (number, 3)
    np.testing.assert_allclose(found, predictor(files)[:number], atol=1e-4)


def test_files_pil_images_and_arrays_are_alike(predictor, files):
    array = images.decode(files[0])
    kinds = [files[0], str(files[0]), array, Image.fromarray(array)]
    found = predictor(kinds)
    np.testing.assert_allclose(found, found[[0] * 4], atol=1e-6)
    np.testing.assert_allclose(predictor(np.stack([array, array])), found[:2], atol=1e-4)


def test_pil_images_of_other_modes_are_read_as_their_files(tmp_path):
    colours = Image.fromarray(data_files.picture(1, 0))
    for mode in ("L", "RGBA", "P", "CMYK", "1"):
        path = tmp_path / f"{mode}.tif"
        colours.convert(mode).save(path)
        with Image.open(path) as picture:
            np.testing.assert_allclose(
                predict.as_array(picture, "it").astype(int), images.decode(path), atol=1
            )


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ("a.jpg", "give a list of images, not the single image 'a.jpg'"),
        (Image.new("RGB", (4, 4)), "give a list of images"),
        (["missing.jpg"], "missing.jpg: cannot be read"),
        ([__file__], "test_predict.py: damaged or not an image"),
        ([np.zeros((4, 4, 3))], r"image 0: an array must be uint8 \[H, W, 3\], not float64"),
        (np.zeros((4, 4, 3), np.uint8), r"image 0: an array must be .* not uint8 \[4, 3\]"),
        ([np.zeros((0, 4, 3), np.uint8)], r"not uint8 \[0, 4, 3\]"),
        ([Image.new("I;16", (4, 4))], "image 0: a PIL image of mode 'I;16' has no known range"),
        ([None], "image 0 must be a path, a PIL image or a NumPy array, not NoneType"),
    ],
)
def test_what_is_no_image_is_named(predictor, pictures, message):
    with pytest.raises(ValueError, match=message):
        predictor(pictures)


def test_wrong_views_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="unknown view 'crop4'; allowed: raw, raw_crop, crop3"):
        predict.Predictor(tmp_path / "no run", views="crop4")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"logits": "effect"}, "the head 'gap' has no effect logits, only plain logits"),
        ({"views": "five_crop", "checkpoint": "3"}, "resize=32 equals the crop"),
        ({"views": "multi_scale"}, r"scale\(0.86\) of 64 pixels is 64 again, because sizes"),
        ({"average": "median"}, "unknown average 'median', allowed: logits, probabilities"),
    ],
)
def test_views_that_the_run_cannot_have(tiny, choices, message):
    with pytest.raises(ValueError, match=message):
        predict.Predictor(tiny / "run", **choices)


def test_five_crops_of_the_resized_square(tiny, predictor, files):
    found = predict.Predictor(tiny / "run", views="five_crop")
    assert str(found.run.views) == "five_crop (5 forward passes an image)"
    whole = dataclasses.replace(predictor.run.transform, crop=72)
    squares = [pipeline.transform_image(whole, images.decode(file)) for file in files[:4]]
    corners = ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4))
    cut = [each[top : top + 64, left : left + 64] for top, left in corners for each in squares]
    logits = logits_by_hand(predictor.run, np.stack(cut)).reshape(5, 4, 3).mean(0)
    np.testing.assert_allclose(found(files[:4]), special.softmax(logits, axis=1), atol=2e-4)


def test_an_image_s_prediction_does_not_depend_on_its_batch_mates(tiny, files):
    predictor = predict.Predictor(tiny / "run", views="raw_crop")
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    expected = predictor([files[0]] * 4)
    for mates in ([*noise], files[1:4], [np.zeros((5, 9, 3), np.uint8)] * 3):
        for place in (0, 2):
            together = predictor([*mates[:place], files[0], *mates[place:]])
            np.testing.assert_allclose(together[place], expected[0], atol=1e-5)


def test_checkpoints_and_the_image_size_of_their_phase(tiny):
    for name, number, crop in (
        ("best", tiny_run.BEST, 64),
        ("last", tiny_run.LAST, 64),
        (str(tiny_run.PHASE_0), tiny_run.PHASE_0, 32),
    ):
        trained = restored.load_run(tiny / "run", name)
        expected = np.random.default_rng(number).normal(size=3).astype(np.float32)
        np.testing.assert_array_equal(trained.params["head"]["fc"]["bias"], expected)
        assert (trained.step, trained.transform.crop) == (number, crop)
        assert not trained.transform.random_crop


def test_a_run_loads_without_its_data(tiny, tmp_path, files):
    directory = copy_of(tiny, tmp_path)
    edit_json(directory / "config.json", lambda it: it["data"].update(root="/does/not/exist"))
    predictor = predict.Predictor(directory, batch_size=2)
    assert predictor(files[:3]).shape == (3, 3)
    with pytest.raises(ValueError, match="/does/not/exist: the data root is missing"):
        restored.load_split(predictor.run, directory, "test")


def test_training_batch_sizes_need_not_fit_the_devices(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert restored.load_run(tiny / "run").plan.settings.eval_batch_size == 8
    with pytest.raises(ValueError, match="eval_batch_size=4 cannot be split evenly over 8 devices"):
        restored.load_run(tiny / "run", batch_size=4)


def test_checkpoint_of_another_model(tiny, tmp_path):
    directory = copy_of(tiny, tmp_path)
    edit_json(directory / "dataset.json", lambda it: it["class_names"].append("owl"))
    with pytest.raises(ValueError, match="step 7 does not fit .* 2 arrays .*head/fc/bias"):
        restored.load_run(directory)


def test_splits_are_those_of_the_run(tiny, tmp_path):
    trained = restored.load_run(tiny / "run")
    assert {
        name: len(restored.load_split(trained, tiny / "run", name))
        for name in ("train", "val", "test")
    } == {"train": 18, "val": 6, "test": 15}
    moved = shutil.copytree(tiny / "data", tmp_path / "moved")
    names = restored.load_split(trained, tiny / "run", "val").names
    again = restored.load_split(trained, tiny / "run", "val", str(moved))
    assert list(again.names) == list(names)
    assert again.read(0).shape == (50, 60, 3)
    (moved / "train" / "gull" / "000.jpg").unlink()
    with pytest.raises(ValueError, match="the val split .* has other classes, images or labels"):
        restored.load_split(trained, tiny / "run", "val", str(moved))
    restored.load_split(trained, tiny / "run", "test", str(moved))  # still the same
    shutil.rmtree(moved / "test")
    with pytest.raises(ValueError, match="has no split 'test', only train, val"):
        restored.load_split(trained, tiny / "run", "test", str(moved))
