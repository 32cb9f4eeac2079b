"""Pictures: what is drawn, and that any class names and sizes can be drawn."""

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from fgc_jax.plots import evaluation as pictures
from fgc_jax.plots import style
from tests import commands

AWKWARD = ("$x_1$ of $y$", "two\nlines", "", "  ", "数の鳥", "a" * 300, "tab\there", "100% \\frac{")


def texts(figure):
    labels = [entry for axes in figure.axes for entry in axes.texts]
    ticks = [
        label
        for axes in figure.axes
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
    ]
    return [entry.get_text() for entry in (*figure.texts, *labels, *ticks)]


def saved(figure, path):
    style.save(figure, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def some_matrix(number, seed=0):
    rng = np.random.default_rng(seed)
    return np.diag(rng.integers(5, 20, number)) + rng.binomial(1, 0.02, (number, number))


def tile(**changes):
    image = np.full((40, 60, 3), 128, np.uint8)
    return dict(image=image, label="tern", predicted="gull", probability=0.61, correct=False) | (
        changes
    )


@pytest.mark.parametrize("number", [2, 3, 24, 100, 200])
def test_confusion_matrix_fits_any_number_of_classes(tmp_path, number):
    names = [f"class {index}" for index in range(number)]
    figure = pictures.confusion(some_matrix(number), names, "a title")
    pixels = saved(figure, tmp_path / "confusion.png")
    assert 600 < pixels.shape[0] < 2600 and 600 < pixels.shape[1] < 2600
    found = texts(figure)
    assert "a title" in found
    if number <= 100:
        assert found.count(names[-1]) == 2  # a row and a column
    else:
        assert names[-1] not in found and "190" in found


@pytest.mark.parametrize("number", [60, 130])
def test_class_names_do_not_overlap(number):
    figure = pictures.confusion(some_matrix(number), ["gull"] * number, "")
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    edges = sorted((box.y0, box.y1) for box in boxes)
    assert len(edges) == number
    assert all(below[1] <= above[0] for below, above in itertools.pairwise(edges))


def test_cells_show_counts_and_single_errors_are_seen(tmp_path):
    figure = pictures.confusion(np.array([[4, 0, 0], [1, 999, 0], [0, 0, 0]]), ["a", "b", "c"], "")
    assert [entry.get_text() for entry in figure.axes[0].texts] == ["4", "1", "999"]
    image = figure.axes[0].images[0]
    colours = image.to_rgba(image.get_array())[..., :3]
    assert np.abs(colours[1, 0] - 1).max() > 0.2  # one in a thousand: far from white
    assert np.ma.getmaskarray(image.get_array())[2].all()  # a class without images is blank
    assert saved(figure, tmp_path / "confusion.png").min() < 100


@pytest.mark.parametrize("number", [0, 1, 5, 24])
def test_grid_of_predictions(tmp_path, number):
    figure = pictures.predictions([tile()] * number, "a title")
    saved(figure, tmp_path / "predictions.png")
    assert len(figure.axes) == number
    found = texts(figure)
    assert "a title" in found
    assert found.count("\N{BALLOT X} gull, 61 %") == found.count("true: tern") == number


def test_hits_are_green_and_errors_red():
    figure = pictures.predictions([tile(predicted="tern", correct=True), tile()], "")
    hit, error = (axes.spines["left"].get_edgecolor() for axes in figure.axes)
    assert matplotlib.colors.to_hex(hit) == style.HIT
    assert matplotlib.colors.to_hex(error) == style.ERROR
    assert "\N{CHECK MARK} tern, 61 %" in texts(figure)
    assert texts(figure).count("true: tern") == 1  # not below the hit


def test_tiles_keep_their_proportions():
    figure = pictures.predictions([tile(image=np.zeros((20, 80, 3), np.uint8))], "")
    pixels = figure.axes[0].images[0].get_array()
    assert pixels.shape == (pictures.THUMBNAIL, pictures.THUMBNAIL, 3)
    dark = (np.asarray(pixels).max(-1) < 128).any(1)
    assert dark.mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(np.flatnonzero(dark).mean(), (pictures.THUMBNAIL - 1) / 2, atol=1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (3000, 2)])
def test_images_of_any_shape(tmp_path, shape):
    image = np.zeros((*shape, 3), np.uint8)
    saved(pictures.predictions([tile(image=image)], ""), tmp_path / "predictions.png")


def test_awkward_class_names_are_drawn_without_warnings(tmp_path):
    names = [style.drawable(name, index) for index, name in enumerate(AWKWARD)]
    figure = pictures.confusion(some_matrix(8), AWKWARD, "$a")
    saved(figure, tmp_path / "confusion.png")
    assert not any(label.get_parse_math() for label in figure.axes[0].get_xticklabels())
    tiles = [tile(predicted=name, label=name) for name in names]
    figure = pictures.predictions(tiles, "数: 100 % of $5_ and $6")
    saved(figure, tmp_path / "predictions.png")
    assert "?: 100 % of $5_ and $6" in texts(figure)
    assert not any(entry.get_parse_math() for entry in figure.texts)
    assert max(text.count("\n") for text in texts(figure)) <= 1


def test_drawable():
    assert style.drawable("Boeing 707", 3) == "Boeing 707"
    assert style.drawable("Dürer's  hare\n", 3) == "Dürer's hare"
    assert style.drawable("数の鳥", 3) == "class 3"
    assert style.drawable(" ", 3) == "class 3"


@pytest.mark.parametrize("length", [3, 8, 9, 20])
def test_shortened_keeps_both_ends(length):
    text = "black_billed_plain_bellied_curlew"
    short = style.shortened(text, length)
    assert len(short) == length
    start, end = short.split("\N{HORIZONTAL ELLIPSIS}")
    assert text.startswith(start) and text.endswith(end)
    assert style.shortened("curlew", 6) == "curlew"


def test_nothing_global_changes(tmp_path):
    def settings():  # looking at "backend" would choose one
        return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}

    before = settings()
    style.save(pictures.confusion(some_matrix(3), ["a", "b", "c"], ""), tmp_path / "confusion.png")
    assert settings() == before


def test_pyplot_is_not_imported():
    code = (
        "import sys; from fgc_jax.plots import data, evaluation; assert 'matplotlib.pyplot' not in "
    )
    code += "sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=commands.ROOT, check=True)
