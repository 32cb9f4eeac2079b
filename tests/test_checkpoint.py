"""Checkpoints: what is kept and read back."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fgc_jax.runs import checkpoint
from fgc_jax.runs.progress import Progress
from tests import made_up


def make_state(value: float) -> dict:
    return {
        "params": {
            "backbone": {"0": {"kernel": jnp.full((3, 2), value)}},
            "head": {"k": jnp.ones(2)},
        },
        "stats": {"bn": {"mean": jnp.full(2, value)}},
        "opt_state": {"trace": jnp.zeros(4)},
        "step": jnp.int32(value),
    }


def steps_in(workdir):
    return sorted(int(path.name.split("_")[1]) for path in checkpoint.directory(workdir).iterdir())


def test_state_and_progress_come_back(tmp_path):
    progress = Progress(phase=1, best=made_up.best(), history=[made_up.phase()])
    with checkpoint.opened(tmp_path) as manager:
        checkpoint.save(manager, 7, make_state(2.5), progress)
        checkpoint.finish(manager)
        restored = checkpoint.restore(manager, 7, make_state(0.0))
        assert checkpoint.read_progress(manager, 7) == progress
    assert checkpoint.load_progress(tmp_path, 7) == progress
    np.testing.assert_array_equal(
        restored["params"]["backbone"]["0"]["kernel"], np.full((3, 2), 2.5)
    )
    assert restored["step"].dtype == jnp.int32


def test_newest_and_best_of_each_phase_are_kept(tmp_path):
    with checkpoint.opened(tmp_path) as manager:
        history = [(1, 0, 0.5), (2, 0, 0.9), (3, 0, 0.9), (4, 0, None), (5, 1, 0.1), (6, 1, 0.3)]
        for step, phase, score in [*history, (7, 1, 0.2), (8, 1, None), (9, 1, None)]:
            checkpoint.save(manager, step, make_state(step), Progress(phase=phase), score=score)
        checkpoint.finish(manager)
    assert steps_in(tmp_path) == [2, 6, 9]  # 2, not 3: the first of equals is the best


def test_variables_load_without_the_optimiser_and_a_target(tmp_path):
    with checkpoint.opened(tmp_path) as manager:
        checkpoint.save(manager, 3, make_state(1.5), Progress())
    variables, stats, progress = checkpoint.load_variables(tmp_path, 3)
    assert set(variables) == {"backbone", "head"}
    np.testing.assert_array_equal(variables["backbone"]["0"]["kernel"], np.full((3, 2), 1.5))
    np.testing.assert_array_equal(stats["bn"]["mean"], [1.5, 1.5])
    assert isinstance(stats["bn"]["mean"], np.ndarray)
    assert progress == Progress()


@pytest.mark.parametrize("kept", [{"centres": np.arange(3.0)}, {}])
def test_the_methods_state_loads(kept, tmp_path):
    with checkpoint.opened(tmp_path) as manager:
        checkpoint.save(manager, 3, {**make_state(1.0), "method": kept}, Progress())
    loaded = checkpoint.load_method(tmp_path, 3)
    assert loaded.keys() == kept.keys()
    for name, values in kept.items():
        np.testing.assert_array_equal(loaded[name], values)


def test_variables_of_a_model_without_statistics_load(tmp_path):
    with checkpoint.opened(tmp_path) as manager:
        checkpoint.save(manager, 3, {**make_state(1.0), "stats": {}}, Progress())
        checkpoint.finish(manager)
        restored = checkpoint.restore(manager, 3, {**make_state(0.0), "stats": {}})
    assert restored["stats"] == {}
    assert checkpoint.load_variables(tmp_path, 3)[1] == {}


def test_find_step(tmp_path):
    assert not checkpoint.any_in(tmp_path)
    with pytest.raises(ValueError, match="contains no run"):
        checkpoint.find_step(tmp_path, "best")
    with checkpoint.opened(tmp_path) as manager:
        with pytest.raises(ValueError, match="no complete checkpoint"):
            checkpoint.find_step(tmp_path, "last")
        checkpoint.save(manager, 2, make_state(0), Progress())
    with pytest.raises(ValueError, match="evaluated"):
        checkpoint.find_step(tmp_path, "best")
    with checkpoint.opened(tmp_path) as manager:
        progress = Progress(best=made_up.best(step=4))
        checkpoint.save(manager, 4, make_state(0), progress, score=1.0)
        # A new phase has begun and has no best of its own yet.
        progress = Progress(phase=1, history=[made_up.phase(best=progress.best)])
        checkpoint.save(manager, 6, make_state(0), progress)
    assert checkpoint.any_in(tmp_path)
    assert checkpoint.find_step(tmp_path, "best") == 4
    assert checkpoint.find_step(tmp_path, "last") == 6
    assert checkpoint.find_step(tmp_path, "4") == 4
    with pytest.raises(ValueError, match=r"'5' is not one of 'best', 'last', \[4, 6\]"):
        checkpoint.find_step(tmp_path, "5")


def test_a_full_disk_is_said_before_writing(tmp_path, monkeypatch):
    usage = checkpoint.shutil.disk_usage(tmp_path)
    with checkpoint.opened(tmp_path) as manager:
        checkpoint.save(manager, 1, make_state(0), Progress())
        checkpoint.finish(manager)
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage._replace(free=10))
        with pytest.raises(checkpoint.CheckpointError, match="no space left.*step 2"):
            checkpoint.save(manager, 2, make_state(0), Progress())
    assert steps_in(tmp_path) == [1]


def test_half_written_checkpoints_are_removed_and_never_read(tmp_path):
    with checkpoint.opened(tmp_path) as manager:
        checkpoint.save(manager, 1, make_state(0), Progress())
    half = checkpoint.directory(tmp_path) / "step_2.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    assert checkpoint.find_step(tmp_path, "last") == 1
    with checkpoint.opened(tmp_path) as manager:
        assert manager.latest_step() == 1
    assert not half.exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    with checkpoint.opened(tmp_path) as manager:
        checkpoint.save(manager, 1, make_state(0), Progress())
    for path in (checkpoint.directory(tmp_path) / "step_1" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"?")
    with pytest.raises(ValueError, match=r"step_1 cannot be read"):
        checkpoint.load_variables(tmp_path, 1)
    with checkpoint.opened(tmp_path) as manager:
        with pytest.raises(ValueError, match=r"step_1 cannot be read"):
            checkpoint.restore(manager, 1, make_state(0))


@pytest.mark.parametrize(
    "optimizer", [optax.sgd(0.1), optax.sgd(0.1, momentum=0.9), optax.adam(0.1)], ids=range(3)
)
def test_a_state_of_another_layout_is_refused(optimizer, tmp_path):
    """Also where the layouts differ only in parts without numbers."""
    params = make_state(0)["params"]
    state, grouped = (
        {**make_state(0), "opt_state": each.init(params)}
        for each in (optimizer, optax.multi_transform({"all": optimizer}, "all"))
    )
    with checkpoint.opened(tmp_path) as manager:
        checkpoint.save(manager, 1, state, Progress())
    checkpoint.check_layout(tmp_path, 1, state)
    with pytest.raises(ValueError, match="another layout, from another version.*new run"):
        checkpoint.check_layout(tmp_path, 1, grouped)
    with checkpoint.opened(tmp_path) as manager:
        checkpoint.save(manager, 2, grouped, Progress())
    checkpoint.check_layout(tmp_path, 2, grouped)
