"""The picture of `fgc plot_schedule`, and what it is drawn from."""

import re

import numpy as np
import pytest
from PIL import Image

from configs import common
from fgc_jax.cli import plot_schedule
from fgc_jax.data import dataset
from fgc_jax.plots import schedule
from fgc_jax.training import curves, plans, rules
from tests import tiny_run

RECIPE = "--config=configs/quickstart.py:tiny"
THIRDS = {"lr_thirds": (0.1, 0.3, 1.0), "optimizer": "sgd", "schedule": "one_cycle", "lr": 0.5}


def make_curves(*phases, images=60):
    recipe = tiny_run.recipe("")
    recipe.phases = tuple(
        common.phase(f"phase{index}", batch_size=6, resize=36, crop=32, **each)
        for index, each in enumerate(phases)
    )
    settings = rules.parse(recipe)
    return curves.of_phases(plans.assemble(settings, dataset.without_images(2)), images)


@pytest.fixture(scope="module")
def two_phases():
    return make_curves({"train": "head", "epochs": 2, "lr": 0.1}, {"epochs": 3, **THIRDS})


def test_curves_are_the_rates_of_the_layers(two_phases):
    first, second = two_phases
    assert first["borders"] == (0, 2) and second["borders"] == (2, 5)
    assert (first["steps"], second["steps"]) == (20, 30)
    np.testing.assert_allclose(first["epochs"][[0, -1]], [0.05, 1.95])
    np.testing.assert_allclose(second["epochs"][[0, -1]], [2.05, 4.95])
    np.testing.assert_allclose(first["rates"]["head"], np.full((1, 20), 0.1), rtol=1e-6)
    assert list(first["rates"]) == ["head"] and first["momentum"] is None
    # ResNet-18 has a stem and eight blocks: three layers a third.
    peaks = {label: rates.max() for label, rates in second["rates"].items()}
    assert list(peaks) == [
        "layer3/1 to head", "layer2/0 to layer3/0 x 0.3", "stem to layer1/1 x 0.1",
    ]  # fmt: skip
    np.testing.assert_allclose(list(peaks.values()), [0.5, 0.15, 0.05], rtol=1e-5)
    assert second["momentum"].min() == pytest.approx(0.85, abs=1e-6)


def test_many_rates_are_drawn_as_a_band():
    groups = (("head/.*", "top", 10.0), (".*", "body", 1.0))
    (phase,) = make_curves({"layer_decay": 0.5, "groups": groups, "epochs": 1, "lr": 1.0})
    assert list(phase["rates"]) == ["top: head x 10", "body: stem to layer4/1 x 0.002 to 0.5"]
    band = phase["rates"]["body: stem to layer4/1 x 0.002 to 0.5"]
    np.testing.assert_allclose(band[:, 0], 0.5 ** np.arange(9, 0, -1), rtol=1e-6)
    (axes,) = schedule.figure([phase], "band").axes
    assert len(axes.lines) == 3 and len(axes.collections) == 1


def test_long_phases_are_drawn_at_some_of_their_steps():
    (phase,) = make_curves({"epochs": 1000, "lr": 1.0, "train": "head"}, images=6000)
    assert phase["steps"] == 1_000_000
    assert len(phase["epochs"]) == curves.POINTS
    np.testing.assert_allclose(phase["epochs"][[0, -1]], [0, 1000], atol=1e-3)


def test_picture_has_borders_names_and_momentum(two_phases):
    picture = schedule.figure(two_phases, "a title")
    rates, momentum = picture.axes
    borders = [line for line in rates.lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in borders] == [2]
    assert len(rates.lines) == 1 + 1 + 3
    texts = [text.get_text() for text in rates.texts]
    assert texts == [
        "phase0", "sgd, constant", "32 px, batch 6", "phase1", "sgd, one_cycle", "32 px, batch 6",
    ]  # fmt: skip
    constant, cycled = (line.get_ydata() for line in momentum.lines[:2])
    assert set(constant) == {0.9} and max(cycled) == pytest.approx(0.95)
    (legend,) = picture.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[0] == "head" and len(labels) == len(set(labels)) == 4
    (alone,) = schedule.figure(two_phases[:1], "a title").axes
    assert alone.get_yscale() == "linear"


def test_rates_far_apart_get_a_logarithmic_axis():
    phases = make_curves({"train": "head", "epochs": 1}, {"train": "head", "epochs": 1, "lr": 1e-5})
    (axes,) = schedule.figure(phases, "").axes
    assert axes.get_yscale() == "log"


def test_command_counts_the_images_and_writes_the_picture(tmp_path, capsys):
    output = tmp_path / "new" / "schedule.png"
    changes = ["--config.phases[1].epochs=3", "--config.phases[1].schedule=constant"]
    assert plot_schedule.main([RECIPE, f"--output={output}", *changes]) == 0
    # 24 species with two images each, in batches of 8.
    assert capsys.readouterr().out == f"wrote {output}: 2 phases, 4 epochs, 24 steps\n"
    pixels = np.asarray(Image.open(output).convert("L"))
    assert pixels.shape[1] > 1000 and pixels.min() < 60 and (pixels == 255).mean() > 0.7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=configs/nowhere.py"], "nowhere.py"),
        ([RECIPE, "--config.phases[1].schedule=cosin"], "schedule='cosin' is unknown; allowed:"),
        (
            [RECIPE, "--config.phases[1].warmup=900 steps", "--train_images=80"],
            "warmup='900 steps' must be .* 1 epochs of 10 steps",
        ),
        (
            ["--config=configs/finetune_folder.py:tiny", "--config.data.root=/no/such/place"],
            r"/no/such/place: .*\(or give --train_images=N\)",
        ),
    ],
)
def test_what_it_refuses(flags, message, tmp_path, capsys):
    assert plot_schedule.main([*flags, f"--output={tmp_path / 'a.png'}"]) == 1
    assert not list(tmp_path.iterdir())
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error), error
