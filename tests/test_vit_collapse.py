"""The demonstration of a ViT's collapse: its pictures and recipes. Training them takes minutes."""

import colorsys

import numpy as np

from fgc_jax import config, experiment
from scripts import show_vit_collapse as demonstration
from tests import commands


def test_blobs_have_the_hue_and_cover_a_minor_part():
    for seed in range(20):
        hue = 17.0 * seed
        image = demonstration.picture(hue, np.random.default_rng(seed))
        assert (image.shape, image.dtype) == ((72, 72, 3), np.uint8)
        again = demonstration.picture(hue, np.random.default_rng(seed))
        np.testing.assert_array_equal(image, again)
        # Blobs are smooth: of all colours, theirs comes closest to being there many times.
        cells = image.reshape(-1, 3).astype(int) // 8
        values, counts = np.unique(cells, axis=0, return_counts=True)
        found = colorsys.rgb_to_hsv(*(values[counts.argmax()] * 8 + 4) / 255)[0] * 360
        assert abs((found - hue + 180) % 360 - 180) < 15, seed


def test_the_recipes_differ_in_what_they_are_to_show(tmp_path):
    root = tmp_path / "target"
    demonstration.draw(root, demonstration.TARGET, {"train": 2, "val": 1, "test": 1})
    assert len(list(root.rglob("*.png"))) == 4 * 24
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    recipes = demonstration.recipes(root, "weights.safetensors", seed=1)
    plans = {name: experiment.prepare(config.parse(recipe)) for name, recipe in recipes.items()}
    published, lower, normalised, right, without = (plan.settings for plan in plans.values())
    assert (published.phases[0].lr, lower.phases[0].lr) == (1e-3, 3e-5)
    assert (right.phases[0].optimizer, published.phases[0].optimizer) == ("sgd", "adamw")
    assert [plan.preprocess.std[0] for plan in plans.values()] == [0.229, 0.229, 0.5, 0.5, 0.229]
    assert published.model.pretrained == right.model.pretrained == "weights.safetensors"
    assert normalised.model.pretrained and not without.model.pretrained
    assert {plan.settings.phases[0].epochs for plan in plans.values()} == {demonstration.EPOCHS}
    assert all(plan.settings.data.augment == (("flip", {}),) for plan in plans.values())


def test_what_cannot_be_used_is_named_before_anything_is_drawn(tmp_path):
    (tmp_path / "file").touch()
    bad = {
        (f"--output={tmp_path / 'file'}",): str(tmp_path / "file"),
        (f"--output={tmp_path / 'out'}", "--seeds", "1", "0"): "--seeds: 0 is the seed of",
    }
    for flags, message in bad.items():
        _, err = commands.run(*flags, module="scripts/show_vit_collapse.py", code=1)
        assert err.startswith("error: ") and message in err
        assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
