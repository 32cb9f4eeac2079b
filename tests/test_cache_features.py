"""Training a head on cached embeddings: as on images, exact after stops, refused where it would
not be the same."""

import numpy as np
import pytest

from configs import common
from fgc_jax import train, trees
from fgc_jax.training import embeddings, rules
from tests import commands, watched
from tests.watched import STEPS, TEST_IMAGES, make_recipe, stored, watched_run

MORE = {"lr": 0.1, "epochs": 2, "average": "ema 0.5", "sam_rho": 0.01}


def recipe(root, cached):
    made = make_recipe(
        root,
        {"name": "head", "train": "head", "cache_features": cached, **MORE},
        {"name": "all", "epochs": 1, "lr": 0.01},
    )
    made.data.update(augment=(), random_crop=False)
    made.model.head_options = {}  # dropout draws other numbers where no backbone draws before it
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def losses(workdir):
    return [row["loss"] for row in commands.logged(workdir) if "loss" in row]


def test_as_on_images_and_exact_after_a_stop(images, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        computed, real = [], embeddings.compute
        patch.setattr(
            embeddings, "compute", lambda *given: computed.append(given[-1]) or real(*given)
        )
        cached = watched_run(recipe(images, True), tmp_path / "cached", [])
        assert computed == ["embedding train", "embedding val"]
    plain = watched_run(recipe(images, False), tmp_path / "plain", [])
    np.testing.assert_array_equal(cached.batches[0], plain.batches[0])
    np.testing.assert_allclose(losses(tmp_path / "cached"), losses(tmp_path / "plain"), rtol=2e-3)
    assert cached.evaluated == plain.evaluated == [6] * 5 + [TEST_IMAGES]
    found, expected = (stored(tmp_path / name, 2 * STEPS) for name in ("cached", "plain"))
    frozen = {path for path in found if not path.startswith("head/")}
    assert not watched.differing(
        {path: found[path] for path in frozen}, {path: expected[path] for path in frozen}
    )
    head = {path: leaf for path, leaf in trees.flatten(cached.starts[0].params["head"]).items()}
    assert all((found[f"head/{path}"] != leaf).any() for path, leaf in head.items())
    watched.stopped(recipe(images, True), tmp_path / "stopped", 2, 4)
    # Without the files: what is computed anew is the same, to the bit.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    train.run(recipe(images, True), tmp_path / "stopped")
    for number in (2 * STEPS, 3 * STEPS):
        again, straight = (stored(tmp_path / name, number) for name in ("stopped", "cached"))
        assert trees.fingerprint(again) == trees.fingerprint(straight)
    assert commands.logged(tmp_path / "stopped") == commands.logged(tmp_path / "cached")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "last 1"}, "train='last 1': the backbone changes"),
        ({"train_bn_while_frozen": True}, "train_bn_while_frozen: the backbone changes"),
        ({"data.augment": (("flip", {}),)}, "data.augment: the images change"),
        ({"data.random_crop": True}, "data.random_crop: the images change"),
        ({"model.drop_path": 0.1}, "model.drop_path: the backbone draws random numbers"),
        ({"model.head": "bilinear"}, "model.head='bilinear' reads whole maps"),
        ({"method_options": {"teacher": "runs/a"}}, "method_options.teacher needs images"),
    ],
)
def test_what_it_is_not_possible_with(changes, message):
    made = common.get_config()
    made.data.update(augment=(), random_crop=False)
    made.phases = (common.phase("head", train="head", cache_features=True),)
    rules.parse(made)
    for key, value in changes.items():
        if key in made.phases[0]:
            made.phases[0][key] = value
        elif "." in key:
            part, name = key.split(".")
            made[part][name] = value
        else:
            made[key] = value
    with pytest.raises(ValueError, match=f"cache_features is not possible with.*{message}"):
        rules.parse(made)


def test_unreadable_images_are_said_to_be():
    found = embeddings.Embedded(
        vectors=np.ones((2, 3), np.float32),
        labels=np.zeros(2, np.int32),
        index=np.array([0, 2], np.int32),
        unreadable=np.array([1], np.int32),
    )
    split = embeddings.as_split(found, np.zeros(3, np.int32), ["a", "b", "c"])
    assert split.read(2).shape == (3,)
    with pytest.raises(ValueError, match="b could not be read"):
        split.read(1)
