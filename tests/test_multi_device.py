"""1 and 8 devices and 2 processes compute the same, whatever is random or summed."""

import json
import socket

import jax
import numpy as np
import pytest

from fgc_jax import models
from tests import commands, device_losses

# SGD: Adam divides tiny gradients by their own size, which blows rounding up.
OPTIONS = (
    "--config.phases[0].optimizer=sgd",
    "--config.phases[0].lr=0.02",
    "--config.phases[1].optimizer=sgd",
    "--config.phases[1].lr=0.02",
    "--config.phases[1].batch_size=16",
    "--config.phases[1].accumulate=2",
    "--config.phases[1].average=ema 0.9",
    "--config.data.augment=(('flip', {}), ('rotate', {}), ('mixup_or_cutmix', {}))",
)


def losses(workdir):
    rows = commands.logged(workdir)
    names = ("loss", "val_loss", "val_average_loss")
    return {name: np.array([row[name] for row in rows if name in row]) for name in names}


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one") / "run"
    commands.run(*commands.SMALL, *OPTIONS, f"--workdir={workdir}", env=commands.devices(1))
    return losses(workdir)


def test_devices_agree(one_device, tmp_path):
    workdir = tmp_path / "run"
    out, _ = commands.run(
        *commands.SMALL, *OPTIONS, f"--workdir={workdir}", env=commands.devices(8)
    )
    assert "devices  8 x" in out
    got = losses(workdir)
    for name, expected in one_device.items():
        assert len(expected), name
        np.testing.assert_allclose(got[name], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "names",
    [("transformer", "cal"), pytest.param(("api_net", "pmg", "herbs"), marks=pytest.mark.slow)],
)
def test_a_transformer_and_the_methods_agree(names, monkeypatch):
    for name in ("vit", "basic"):
        monkeypatch.setitem(models.BACKBONES, name, None)  # put back what the program puts there
    assert jax.device_count() == 1
    out, _ = commands.run(*names, module="tests.device_losses", env=commands.devices(8))
    found = json.loads(out)
    assert found["devices"] == 8
    for name in names:
        eight = found[name]
        assert len(set(eight)) == 3, "nothing is learned"
        np.testing.assert_allclose(eight, device_losses.losses(name), rtol=1e-5)


@pytest.mark.slow
def test_two_processes_agree(one_device, tmp_path):
    workdir = tmp_path / "run"
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    processes = [
        commands.start(
            *commands.SMALL,
            *OPTIONS,
            f"--workdir={workdir}",
            f"--multi_host=localhost:{port},2,{index}",
            env=commands.devices(2),
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "2 processes" in outputs[0][0] or "processes: 2" in outputs[0][0]
    assert "phase" not in outputs[1][0]  # the second one is silent
    got = losses(workdir)
    for name, expected in one_device.items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-5)


def test_a_batch_that_cannot_be_cut_is_an_error(tmp_path):
    _, err = commands.run(
        *commands.SMALL,
        "--config.phases[0].batch_size=6",
        f"--workdir={tmp_path / 'run'}",
        env=commands.devices(4),
        code=1,
    )
    assert "batch_size=6 cannot be split evenly over 4 devices" in err
    assert not (tmp_path / "run").exists()
