"""Bad input: one clear error before training starts, an exit code, and nothing left behind."""

import json
import resource
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from configs import finetune_folder
from fgc_jax import config, train
from fgc_jax.cli import train as command
from fgc_jax.runs import checkpoint, directory, meter
from fgc_jax.training import plans, rules
from tests import commands, data_files


def folder_recipe(root, **data):
    recipe = finetune_folder.get_config("tiny")
    recipe.model.update(backbone="resnet18", feature_map="stage1")
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


def mistaken(arguments, message, tmp_path, capsys):
    """`fgc train` says in one line what is wrong, exits with 1 and leaves no run behind."""
    workdir = tmp_path / "run"
    try:
        code = command.main([*arguments, f"--workdir={workdir}"])
    except SystemExit as stopped:
        code = stopped.code
    err = capsys.readouterr().err
    assert code == 1
    assert err.startswith("error: ") and message in err
    assert len(err.strip().splitlines()) == 1, err
    assert not workdir.exists()


QUICKSTART = "--config=configs/quickstart.py:tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((QUICKSTART, "--config.model.backbone=resnet51"), "model.backbone='resnet51' is unknown"),
        ((QUICKSTART, "--config.model.backbone", "resnet51"), "'resnet51' is unknown"),
        ((QUICKSTART, "--config.data.random_crop", "false"), "unknown arguments ['false']"),
        ((QUICKSTART, "--config.data={'root': 'x'}"), "config.data.name must be given"),
        (
            (QUICKSTART, "--config.phases[0].groups=(('haed/.*','head',1.0),('.*','rest',0.1))"),
            "haed",
        ),
        ((QUICKSTART, "--config.data.root=/nowhere"), "synthetic_birds"),
        ((QUICKSTART, "--multi_host=two"), "must be 'auto' or HOST:PORT,COUNT,INDEX"),
        ((QUICKSTART, "--config.model.backbon=x"), "backbone"),
        ((QUICKSTART, "--config.seed=abc"), "seed"),
        ((QUICKSTART, "--confg.seed=1"), "confg.seed"),
        ((QUICKSTART, "stray"), "unrecognized arguments: stray"),
        (("--config=configs/quickstart.py:tinny",), "unknown variant ['tinny']"),
        (("--config=configs/nowhere.py",), "configs/nowhere.py"),
        (("--config=quickstrat",), "there is no configs/quickstrat.py; did you mean 'quickstart'?"),
        ((), "--config"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, tmp_path, capsys):
    mistaken(arguments, message, tmp_path, capsys)


def test_a_workdir_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    mistaken(commands.SMALL, "file", tmp_path / "file", capsys)


def one_class(recipe, images):
    for entry in sorted(images.iterdir())[1:]:
        shutil.rmtree(entry)


def empty_class(recipe, images):
    (images / "empty").mkdir()


def missing_data(recipe, images):
    recipe.data.root = "nowhere"


def missing_weights(recipe, images):
    recipe.model.pretrained = str(images / "nowhere.safetensors")


def other_weights(recipe, images):
    path = images.parent / "w.safetensors"
    save_file({"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)}, path)
    recipe.model.pretrained = str(path)


def small_images(recipe, images):
    recipe.model.update(backbone="vgg11", feature_map="features")
    for phase in recipe.phases:
        phase.update(resize=16, crop=16)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (one_class, "at least 2 classes"),
        (empty_class, "empty"),
        (missing_data, "nowhere"),
        (missing_weights, "nowhere.safetensors"),
        (other_weights, "conv1"),
        (small_images, "crop=16 is too small for vgg11"),
    ],
)
def test_nothing_begins_with(spoil, message, images, tmp_path):
    recipe = folder_recipe(images)
    spoil(recipe, images)
    refused(recipe, tmp_path / "run", message)


def test_missing_aircraft_say_what_to_get(tmp_path, capsys):
    arguments = ["--config=bcnn_aircraft:tiny", f"--config.data.root={tmp_path}"]
    assert command.main([*arguments, f"--workdir={tmp_path / 'run'}"]) == 1
    err = capsys.readouterr().err
    for fact in ("fgvc-aircraft-2013b.tar.gz", "2.75 GB", "d4acdd33327262359767eeaa97a4f732"):
        assert fact in err


def test_data_that_changed_since_the_run_began(images, tmp_path):
    recipe = folder_recipe(images)
    dataset = plans.load_data(rules.parse(recipe))
    directory.begin(tmp_path / "run", config.resolved(recipe), dataset.facts())
    first = sorted(next(iter(sorted(images.iterdir()))).iterdir())[0]
    shutil.copy(first, first.with_name("new.jpg"))
    with pytest.raises(ValueError, match="the data have changed since the run"):
        train.run(recipe, tmp_path / "run")


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
    recipe = folder_recipe(images, on_bad_image="skip")
    results = train.run(recipe, tmp_path / "run")
    tested = json.loads((tmp_path / "run/evaluation/test/metrics.json").read_text())
    assert tested["unreadable"] == results.test.metrics.unreadable
    assert tested["images"] + tested["unreadable"] == 6  # a fifth of 30
    met = [*results.bad_images, *tested["unreadable_images"]]
    assert sorted(name.rsplit("/")[-1] for name in met) == sorted(names)
    out = capsys.readouterr().out
    assert all(f"skipped an unreadable image: {name}" in out for name in results.bad_images)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(images, tmp_path):
    recipe = folder_recipe(images)
    recipe.checkpoint_every = 1
    recipe.phases[1].update(lr=1e30, optimizer="sgd", epochs=5)
    with pytest.raises(meter.NonFiniteLoss, match="in phase 'all'"):
        train.run(recipe, tmp_path / "run")
    kept = list(checkpoint.directory(tmp_path / "run").glob("step_*"))
    assert kept
    for path in kept:
        number = int(path.name.removeprefix("step_"))
        variables, stats, _ = checkpoint.load_variables(tmp_path / "run", number)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((variables, stats)))


def test_no_space_left_is_one_error_and_the_run_can_continue(tmp_path):
    head = "--config.model.head_options={'mlp': True, 'hidden': 16384}"
    arguments = [*commands.SMALL, head, f"--workdir={tmp_path / 'run'}"]
    process = commands.start(*arguments)
    # Files beyond 2 MB cannot be written, as on a full disk; the head's state takes 18 MB.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    last_line = err.strip().splitlines()[-1]
    assert last_line.startswith("error: could not write") and "disk full" in last_line
    assert "Traceback" not in err and "tensorstore" not in last_line
    assert command.main(arguments) == 0
