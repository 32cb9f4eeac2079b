"""Weights & Biases: what it is told, in which run there, and what stands where it is missing."""

import importlib.util
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from fgc_jax import train
from fgc_jax.runs.writer import Writer, check_wandb
from tests import commands, tiny_run


class Error(Exception):
    """Stands in for wandb.Error."""


@pytest.fixture
def calls(monkeypatch):
    """A stand-in for the package, which records what it is called with."""
    calls = []

    def init(**arguments):
        calls.append(("init", arguments))
        return types.SimpleNamespace(
            log=lambda values, step: calls.append(("log", step, values)),
            config=types.SimpleNamespace(update=lambda values, **_: calls.append(("hp", values))),
            finish=lambda: calls.append(("finish",)),
        )

    double = types.ModuleType("wandb")
    double.__spec__ = types.SimpleNamespace(origin="a stand-in")
    double.init, double.Error = init, Error
    double.login = lambda **_: calls.append(("login",))
    double.Settings = double.Html = lambda text="", **_: text
    double.Image = lambda image: image.shape
    monkeypatch.setitem(sys.modules, "wandb", double)
    return calls


def test_it_is_told_what_tensorboard_is(tmp_path, calls):
    writer = Writer(tmp_path, 0, "birds")
    writer.start({"seed": 3, "phases": [{"lr": 0.5}]}, "a < b")
    writer.images(0, {"train_images": np.zeros((2, 4, 5, 3), np.uint8)})
    writer.scalars(7, {"loss": np.float32(0.5)})
    writer.close()
    (_, init), *told = calls
    assert (init["project"], init["dir"], init["name"]) == ("birds", tmp_path, tmp_path.name)
    assert ("hp", {"seed": 3, "phases.0.lr": 0.5}) in told
    (texts,) = [values for kind, step, values in told[1:-1] if "overview" in values]
    assert "a &lt; b" in texts["overview"]
    assert ("log", 0, {"train_images": [(4, 5, 3)] * 2}) in told
    assert ("log", 7, {"loss": 0.5}) in told
    assert told[-1] == ("finish",)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 7, "loss": 0.5}


def test_a_continued_run_continues_the_run_there(tmp_path, calls):
    for folder in ("a", "a", "b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        Writer(tmp_path / folder, 0, "birds").close()
    started = [arguments for kind, *(arguments, *_) in filter(lambda c: len(c) > 1, calls)]
    assert [each["resume"] for each in started] == ["allow"] * 3
    first, second, other = (each["id"] for each in started)
    assert first == second != other


def test_without_a_project_it_is_not_touched(tmp_path, calls):
    check_wandb("")
    Writer(tmp_path, 0).close()
    assert not calls and not (tmp_path / "wandb_run").exists()


def test_what_it_complains_of_is_one_error(tmp_path, calls, monkeypatch):
    def refuse(**arguments):
        raise Error("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(ValueError, match="no API key; .*WANDB_MODE=offline"):
        Writer(tmp_path, 0, "birds")
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_missing_login_is_one_error_before_anything_is_written(tmp_path, calls, monkeypatch):
    def refuse(**arguments):
        raise Error("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "login", refuse)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    recipe = tiny_run.recipe(tmp_path / "data")
    recipe.wandb = "birds"
    with pytest.raises(ValueError, match="no API key; .*WANDB_MODE=offline"):
        train.run(recipe, tmp_path / "run")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_wandb("birds")  # needs no login


@pytest.mark.parametrize("found", [None, types.SimpleNamespace(origin=None)])
def test_a_missing_package_is_one_error_before_training(found, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(ValueError, match="config.wandb='birds' needs the package wandb"):
        check_wandb("birds")


OFFLINE = """
import pathlib, sys
import numpy as np
from fgc_jax.runs.writer import Writer, check_wandb
check_wandb("birds")
folder, first = pathlib.Path(sys.argv[1]), int(sys.argv[2])
writer = Writer(folder, first, "birds")
if not first:
    writer.start({"model": {"head": "bilinear"}}, "an overview")
    writer.images(0, {"train_images": np.zeros((1, 8, 8, 3), np.uint8)})
writer.scalars(first + 1, {"val_top1": 50.0})
writer.close()
"""


@pytest.mark.parametrize("starts", ["0", pytest.param("01", marks=pytest.mark.slow)])
@pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="wandb is not installed")
def test_the_real_package_offline(starts, tmp_path):
    paths = os.pathsep.join(filter(None, (str(commands.ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "WANDB_MODE": "offline", "PYTHONPATH": paths}
    for first in starts:
        subprocess.run(
            [sys.executable, "-c", OFFLINE, tmp_path, first],
            env=environment,
            cwd=tmp_path,
            check=True,
            timeout=300,
        )
    number = (tmp_path / "wandb_run").read_text()
    files = sorted(tmp_path.glob(f"wandb/offline-run-*-{number}/run-{number}.wandb"))
    assert len(files) == len(starts)  # both for the same run there
    for word in (b"val_top1", b"bilinear", b"train_images"):
        assert word in files[0].read_bytes()
    assert b"val_top1" in files[-1].read_bytes()
