"""Bad input: one clear error before training starts, an exit code, and nothing left behind."""

import json
import resource
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from configs import finetune_folder, quickstart
from fgc_jax import train
from tests import commands, data_files


def folder_recipe(root, **data):
    recipe = finetune_folder.get_config("tiny")
    recipe.model.backbone = "resnet18"
    recipe.data.root = str(root)
    recipe.data.update(data)
    for phase in recipe.phases:
        phase.update(resize=36, crop=32, batch_size=4)
    return recipe


@pytest.fixture
def images(tmp_path):
    data_files.write_folder(tmp_path / "images", splits=10)
    return tmp_path / "images"


def refused(recipe, workdir, message):
    with pytest.raises(ValueError, match=message):
        train.run(recipe, workdir)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config.model.backbone=resnet51",), "config.model.backbone='resnet51' is unknown"),
        (("--config.model.backbone", "resnet18"), None),
        (("--config.data.flip", "false"), "stray arguments ['false']"),
        (("--config.data={'root': 'x'}",), "config.data: unknown keys [], missing keys"),
        (("--config.phases[0].groups=(('haed/.*','head',1.0),('.*','rest',0.1))",), "haed"),
        (("--config.data.root=/nowhere",), "synthetic_birds"),
        (("--multi_host=two",), "neither 'auto' nor HOST:PORT,COUNT,INDEX"),
    ],
)
def test_command_line(arguments, message, tmp_path):
    workdir = tmp_path / "run"
    if message is None:  # absl takes the next word as the value of a string flag: fine
        arguments = ("--config.model.backbone", "resnet51")
        message = "'resnet51' is unknown"
    _, err = commands.run(
        "--config=configs/quickstart.py:tiny", f"--workdir={workdir}", *arguments, code=1
    )
    assert err.startswith("error: ") and message in err
    assert len(err.strip().splitlines()) == 1, err
    assert not workdir.exists()


def test_unknown_config_key(tmp_path):
    _, err = commands.run(
        "--config=configs/quickstart.py:tiny",
        f"--workdir={tmp_path / 'run'}",
        "--config.model.backbon=resnet18",
        code=1,
    )
    assert "backbone" in err  # "Did you mean"
    assert not (tmp_path / "run").exists()


def test_missing_data_root(tmp_path):
    refused(folder_recipe(tmp_path / "nowhere"), tmp_path / "run", "nowhere")


def test_a_folder_with_one_class(images, tmp_path):
    for entry in sorted(images.iterdir())[1:]:
        shutil.rmtree(entry)
    refused(folder_recipe(images), tmp_path / "run", "at least 2 classes")


def test_a_folder_with_an_empty_class(images, tmp_path):
    (images / "empty").mkdir()
    refused(folder_recipe(images), tmp_path / "run", "empty")


def test_weights_of_the_wrong_shape(images, tmp_path):
    save_file({"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)}, tmp_path / "w.safetensors")
    recipe = folder_recipe(images)
    recipe.model.pretrained = str(tmp_path / "w.safetensors")
    refused(recipe, tmp_path / "run", "conv1")


def test_missing_weights_say_what_to_get(images, tmp_path):
    recipe = folder_recipe(images)
    recipe.model.pretrained = str(tmp_path / "nowhere.safetensors")
    refused(recipe, tmp_path / "run", "nowhere.safetensors")


def test_missing_aircraft_say_what_to_get(tmp_path):
    _, err = commands.run(
        "--config=configs/bcnn_aircraft.py:tiny",
        f"--config.data.root={tmp_path}",
        f"--workdir={tmp_path / 'run'}",
        code=1,
    )
    for fact in ("fgvc-aircraft-2013b.tar.gz", "2.75 GB", "d4acdd33327262359767eeaa97a4f732"):
        assert fact in err


def test_val_fraction_without_effect(tmp_path):
    recipe = quickstart.get_config("tiny")
    recipe.data.val_fraction = 0.1
    refused(recipe, tmp_path / "run", "has its own validation split")


def test_a_workdir_of_another_config(images, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps({"seed": 5}))
    with pytest.raises(ValueError, match="another config"):
        train.run(folder_recipe(images), workdir)
    assert [entry.name for entry in workdir.iterdir()] == ["config.json"]


def damage(images):
    """One unreadable file of each kind in the training images; returns their names."""
    first = sorted(next(iter(sorted(images.iterdir()))).iterdir())
    whole = first[0].read_bytes()
    for path, content in zip(first, (b"", b"no image", whole[: len(whole) // 2]), strict=False):
        path.write_bytes(content)
    return [path.name for path in first[:3]]


def test_bad_images_raise_by_name(images, tmp_path):
    names = damage(images)
    with pytest.raises(ValueError, match="|".join(names)):
        train.run(folder_recipe(images), tmp_path / "run")


def test_bad_images_are_skipped_counted_and_named(images, tmp_path, capsys):
    names = damage(images)
    results = train.run(folder_recipe(images, on_bad_image="skip"), tmp_path / "run")
    tested_bad = results["test"]["unreadable"]
    assert tested_bad + len(results["bad_images"]) <= 3
    out = capsys.readouterr().out
    for name in results["bad_images"]:
        assert name.rsplit("/")[-1] in names
        assert f"skipped an unreadable image: {name}" in out
    assert results["bad_images"]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(images, tmp_path):
    recipe = folder_recipe(images)
    recipe.checkpoint_every = 1
    recipe.phases[1].update(lr=1e30, optimizer="sgd", epochs=5)
    from fgc_jax import checkpoint, meter

    with pytest.raises(meter.NonFiniteLoss, match="in phase 'all'"):
        train.run(recipe, tmp_path / "run")
    variables, _, _ = checkpoint.load_variables(
        tmp_path / "run", checkpoint.find_step(tmp_path / "run", "best")
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))


def test_no_space_left_is_one_error_and_the_run_can_continue(tmp_path):
    workdir = tmp_path / "run"
    command = (*commands.SMALL, "--config.checkpoint_every=2", f"--workdir={workdir}")
    process = commands.start(*command)
    # Files beyond 2 MB cannot be written, as on a full disk; the state takes 45 MB.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    last_line = err.strip().splitlines()[-1]
    assert last_line.startswith("error: could not write") and "disk full" in last_line
    commands.run(*command)
