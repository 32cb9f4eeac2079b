"""The contact sheet of `fgc plot_augmentations`."""

import numpy as np
from PIL import Image

from fgc_jax.cli import plot_augmentations
from fgc_jax.data import augment
from fgc_jax.data.augment import examples
from fgc_jax.plots import augmentations
from tests import data_files

FEW = (("flip", {"p": 1.0}), ("crop", {}), ("cutmix", {}))


def test_every_operation_has_a_row():
    assert {name for name, _ in examples.ROWS} == set(augment.OPS)
    augment.build(examples.ROWS[2:-3])  # all options are right


def test_sheet_shows_the_picture_and_the_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(examples, "ROWS", FEW)
    path = data_files.write_image(tmp_path / "wide.png", data_files.picture(2, 5, (60, 32)))
    output = tmp_path / "new" / "sheet.png"
    flags = [f"--input={path}", f"--output={output}", "--size=32", "--draws=3"]
    assert plot_augmentations.main(flags) == 0
    assert "3 rows" in capsys.readouterr().out
    sheet = np.asarray(Image.open(output))
    step, left = 32 + augmentations.MARGIN, augmentations.NAMES
    assert sheet.shape[:2] == (3 * step + augmentations.MARGIN, left + 4 * step)

    def tile(row, column):
        top = augmentations.MARGIN + row * step
        return sheet[top : top + 32, left + column * step : left + column * step + 32]

    original = np.asarray(Image.open(path))[:, 14:46]
    for row in range(3):
        np.testing.assert_array_equal(tile(row, 0), original)
        assert (sheet[row * step + 8 : row * step + 30, :left] < 200).any()  # its name
    np.testing.assert_array_equal(tile(0, 1), original[:, ::-1])
    assert (tile(1, 1)[:4] == 255).all() and (tile(1, 1)[4:-4, 4:-4] < 255).any()


def test_a_missing_picture_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert plot_augmentations.main(["--input=nowhere.jpg"]) == 1
    assert "nowhere.jpg: cannot be read" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
