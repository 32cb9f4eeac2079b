import json

import numpy as np
import pytest

from configs import common
from fgc_jax.cli import explain
from fgc_jax.data import images, pipeline
from fgc_jax.data.sources import synthetic_birds
from fgc_jax.explain import attention, pictures
from tests import data_files, tiny_run


def seen(maps, side=8, classes=3):
    image = np.full((side, side, 3), 100, np.uint8)
    flat = np.full(classes, 1 / classes, np.float32)
    return attention.Explanation(image, image, image, (1, 5, 2, 8), np.float32(maps), flat, flat)


def with_peaks(*places, side=8):
    maps = np.zeros((side, side, len(places)), np.float32)
    for k, place in enumerate(places):
        if place is not None:
            maps[*place, k] = k + 1
    return maps


def test_the_pointing_game_by_hand():
    game = attention.Pointing()
    covered = np.zeros((8, 8), bool)
    covered[0:2, 0:4] = True  # an eighth of the image, away from its centre
    # The third map is the strongest; the fourth is dead and points nowhere.
    game.add(seen(with_peaks((1, 1), (7, 7), (0, 3), None)), covered)
    game.add(seen(with_peaks((6, 6), (5, 5))), covered)
    around = np.zeros((8, 8), bool)
    around[4, 4] = True
    game.add(seen(with_peaks((4, 4))), around)
    shares = game.shares()
    assert shares["mean_map"] == pytest.approx(100 * 2 / 3)
    assert shares["single_maps"] == pytest.approx(100 * (2 / 3 + 0 + 1) / 3)
    # The first image takes the centre, (4, 4); the others the place of the one before.
    assert shares["shuffled"] == pytest.approx(100 * (0 + 1 + 0) / 3)
    assert shares["centre"] == pytest.approx(100 / 3)
    assert shares["anywhere"] == pytest.approx(100 * (8 + 8 + 1) / 64 / 3)


def test_coverage_follows_the_transform():
    """A box of the picture is where the transform puts it: resized to half and cut from the
    centre."""
    picture = np.zeros((40, 60, 3), np.uint8)
    transform = pipeline.Transform(20, "short_side", 16, False, "bilinear")
    covered = attention.coverage(transform, picture, np.float32([[20, 10, 40, 20]]))
    expected = np.zeros((16, 16), bool)
    # x: (20..40) / 2 - 7 cut from the left; y: (10..20) / 2 - 2.
    expected[3:8, 3:13] = True
    np.testing.assert_array_equal(covered, expected)
    nothing = attention.coverage(transform, picture, np.zeros((0, 4), np.float32))
    assert not nothing.any()


@pytest.mark.parametrize(
    ("species", "index", "parts"),
    [
        (24, 0, ("belly", "wing", "bill")),  # a finch, as are 8 and 16
        (24, 2, ("legs", "belly", "bill")),  # a sandpiper
        (12, 0, ("wing", "bill")),  # 0 and 8: the same belly
        (12, 4, ()),  # alone in its genus
    ],
)
def test_telling_boxes_are_those_of_the_parts_that_differ_between_siblings(species, index, parts):
    birds = synthetic_birds.load("", species=species, train_per_class=1).splits["train"]
    boxes = birds.annotations["telling_boxes"](index)
    wanted = [birds.parts(index)[part] for part in parts]
    wanted = [box for box in wanted if not np.isnan(box).any()]
    assert len(wanted) or not parts
    assert sorted(map(tuple, boxes)) == sorted(map(tuple, wanted))


def test_overlay_shows_the_image_where_nothing_attends():
    image = np.full((4, 4, 3), 100, np.uint8)
    maps = np.zeros((4, 4), np.float32)
    np.testing.assert_array_equal(pictures.overlay(image, maps), image)
    maps[1, 2] = 3.0
    shown = pictures.overlay(image, maps)
    changed = (shown != image).any(-1)
    assert changed[1, 2] and changed.sum() == 1
    bright = 255 * np.array(pictures.COLOURS(1.0)[:3])
    np.testing.assert_allclose(shown[1, 2], np.round(0.35 * 100 + 0.65 * bright), atol=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of CAL, and three photos."""
    folder = tmp_path_factory.mktemp("explain")
    recipe = tiny_run.recipe("")
    birds = {"species": 10, "train_per_class": 2, "val_per_class": 1, "test_per_class": 1}
    recipe.data.update(name="synthetic_birds", options=birds, val_fraction=0.0)
    recipe.model.feature_map = "stage2"
    common.attention(recipe, "cal", maps=3)
    tiny_run.write(folder / "run", recipe)
    data_files.write_folder(folder / "photos", splits={"new": 1})
    return folder


def test_the_script_draws_and_points(folder, capsys):
    assert explain.main([f"--workdir={folder / 'run'}", "--images=3"]) == 0
    out = capsys.readouterr().out
    place = folder / "run" / "explanation" / "test"
    shares = json.loads((place / "pointing.json").read_text())
    assert shares["images"] == 4
    assert 0 < shares["anywhere"] < 40
    assert f"{'a random place':36} {shares['anywhere']:5.1f} %" in out
    assert images.decode(place / "attention.png").shape[1] > 1000


def test_the_script_draws_other_images(folder):
    arguments = [f"--workdir={folder / 'run'}", f"--input={folder / 'photos'}"]
    assert explain.main([*arguments, f"--output={folder / 'seen'}"]) == 0
    assert [path.name for path in (folder / "seen").iterdir()] == ["attention.png"]


def test_what_cannot_be_explained_is_said(folder, tmp_path, capsys):
    assert explain.main([f"--workdir={folder / 'run'}", f"--input={tmp_path}"]) == 1
    assert "the folder has no images" in capsys.readouterr().err
    recipe = tiny_run.recipe("")
    recipe.data.update(name="synthetic_birds", val_fraction=0.0)
    tiny_run.write(tmp_path / "plain", recipe)
    assert explain.main([f"--workdir={tmp_path / 'plain'}"]) == 1
    assert "the run's head is 'gap'; only the head" in capsys.readouterr().err
    assert not (tmp_path / "plain" / "explanation").exists()
