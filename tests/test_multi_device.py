"""1 and 8 devices and 2 processes compute the same, whatever is random or summed."""

import json
import socket

import jax
import numpy as np
import pytest

from configs import quickstart
from fgc_jax import models
from tests import commands, data_files, on_devices, test_bad_input

NAMES = ("transformer", "cal")


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    """Puts back what `on_devices.losses` puts there."""
    for name in ("vit", "basic"):
        monkeypatch.setitem(models.BACKBONES, name, None)


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """(what the program says, what it computes) on eight devices."""
    workdir = tmp_path_factory.mktemp("eight") / "run"
    return on_eight(*NAMES, "views", f"train={workdir}")


def on_eight(*words):
    out, _ = commands.run(*words, module="tests.on_devices", env=commands.devices(8))
    *said, found = out.splitlines()
    return said, json.loads(found)


LOSSES = ("loss", "val_loss", "val_average_loss")


def assert_same_losses(found, expected, required=LOSSES):
    """That rows of metrics.jsonl have the same losses."""
    for name in LOSSES:
        mine, theirs = ([row[name] for row in rows if name in row] for rows in (found, expected))
        assert theirs or name not in required
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_a_run_agrees(eight, tmp_path):
    said, found = eight
    assert any("devices  8 x" in line for line in said)
    assert_same_losses(found["train"], on_devices.train(str(tmp_path / "run")))


def test_views_agree(eight):
    np.testing.assert_allclose(eight[1]["views"], on_devices.views(), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_transformer_and_a_method_agree(eight, name):
    assert_same_steps(name, eight[1][name])


@pytest.mark.slow
def test_other_methods_agree():
    _, found = on_eight("api_net", "pmg", "herbs")
    assert found.pop("devices") == 8
    for name, losses in found.items():
        assert_same_steps(name, losses)


def assert_same_steps(name, found):
    assert len(set(found)) == 3, "nothing is learned"
    np.testing.assert_allclose(found, on_devices.losses(name), rtol=1e-5)


@pytest.mark.parametrize("job", ["short", pytest.param("train", marks=pytest.mark.slow)])
def test_two_processes_agree(job, tmp_path):
    data_files.write_folder(tmp_path / "images", splits={"train": 8})
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    processes = [
        commands.start(
            f"--multi_host=localhost:{port},2,{index}",
            f"{job}={tmp_path / 'together'}",
            module="tests.on_devices",
            env=commands.devices(2),
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    (first, _), (second, _) = outputs
    assert "processes: 2" in first and "4 x" in first
    assert "phase" not in second  # the second one is silent
    expected = on_devices.JOBS[job](str(tmp_path / "alone"))
    required = LOSSES if job == "train" else LOSSES[:2]
    assert_same_losses(commands.logged(tmp_path / "together"), expected, required)


def test_a_batch_that_cannot_be_cut_is_an_error(tmp_path, monkeypatch):
    recipe = quickstart.get_config("tiny")
    recipe.phases[0].batch_size = 6
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    message = "batch_size=6 cannot be split evenly over 4 devices"
    test_bad_input.refused(recipe, tmp_path / "run", message)
