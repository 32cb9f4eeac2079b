"""The demonstration of a ViT's collapse: its pictures and recipes. Training them takes minutes."""

import colorsys

import numpy as np

from fgc_jax import config
from fgc_jax.training import plans, rules
from scripts import show_vit_collapse as demonstration


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


OPTIONS = {"phases.0.schedule_options.final"}


def flat(tree, prefix=""):
    """{"a.0.b": leaf} of nested dicts, and of lists of them."""
    found = {}
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        path = f"{prefix}{key}"
        nested = isinstance(value, dict) or (key == "phases" and isinstance(value, (list, tuple)))
        found |= flat(value, f"{path}.") if nested or prefix == "phases." else {path: value}
    return found


def test_the_recipes_differ_in_what_they_are_to_show(tmp_path):
    root = tmp_path / "target"
    demonstration.draw(root, demonstration.TARGET, {"train": 2, "val": 1, "test": 1})
    assert len(list(root.rglob("*.png"))) == 4 * 24
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    recipes = demonstration.recipes(root, "weights.safetensors", seed=1)
    resolved = {name: flat(config.resolved(recipe)) for name, recipe in recipes.items()}
    for recipe in recipes.values():
        plans.prepare(rules.parse(recipe))

    def changed(name, base):
        return {key for key, value in resolved[name].items() if value != resolved[base].get(key)}

    assert changed("published, lr 3e-5", "published") == {"phases.0.lr"}
    assert changed("published, the weights' mean and std", "published") == {"data.mean", "data.std"}
    assert changed("published, random weights", "published") == {"model.pretrained"}
    optimiser = {f"phases.0.{key}" for key in demonstration.PUBLISHED} | OPTIONS
    assert changed("right, but AdamW at 1e-3", "right") <= optimiser
    assert not changed("right, but AdamW at 1e-3", "published") & optimiser
    assert changed("right", "published") >= {"phases.0.optimizer", "phases.0.lr", "data.mean"}
    for values in resolved.values():
        assert values["phases.0.epochs"] == demonstration.EPOCHS
        assert values["data.augment"] == [["flip", {}]]
        assert values["seed"] == 1


def test_what_cannot_be_used_is_named_before_anything_is_drawn(tmp_path, capsys):
    (tmp_path / "file").touch()
    bad = {
        (f"--output={tmp_path / 'file'}",): str(tmp_path / "file"),
        (f"--output={tmp_path / 'out'}", "--seeds=1,0"): "--seeds: 0 is the seed of",
        (f"--output={tmp_path / 'out'}", "--seeds=1,1"): "--seeds=1,1: a number is given twice",
    }
    for flags, message in bad.items():
        assert demonstration.main(flags) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ") and message in err
        assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
