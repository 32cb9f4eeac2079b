"""The step metrics' reader, and what it writes."""

import json

import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from fgc_jax import console
from fgc_jax.runs import meter
from fgc_jax.runs.writer import Writer


def make_meter(writer, log_every=2):
    return meter.Meter("head", 4, lambda step: 0.1 * (step + 1), 10, writer, log_every)


def read_lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_logged_one_step_late_and_at_their_own_step(tmp_path):
    writer = Writer(tmp_path, 0)
    reader = make_meter(writer)
    for step in range(11, 16):
        reader.add(step, {"loss": float(step), "top1": 50.0}, 1.0)
    assert reader.epoch_loss() == (11 + 12 + 13 + 14) / 4
    reader.flush()
    assert reader.epoch_loss() == 15
    writer.close()
    lines = read_lines(tmp_path)
    assert [line["step"] for line in lines] == [12, 14]
    assert lines[0] == {"step": 12, "loss": 12.0, "top1": 50.0, "learning_rate": pytest.approx(0.2)}


def test_scalars_reach_tensorboard(tmp_path):
    writer = Writer(tmp_path, 0)
    writer.start({"seed": 3, "phases": [{"lr": 0.5}]}, "overview")
    writer.scalars(4, {"loss": 1.5})
    writer.close()
    events = event_accumulator.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    (value,) = events.Tensors("loss")
    assert (value.step, float(tensor_util.make_ndarray(value.tensor_proto))) == (4, 1.5)
    assert (
        "overview/text_summary" in events.Tags()["tensors"]
        or "overview" in events.Tags()["tensors"]
    )


@pytest.mark.parametrize("name", ["loss", "grad_norm", "update_norm"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stops_the_run_with_step_and_phase(tmp_path, name, bad):
    writer = Writer(tmp_path, 0)
    reader = make_meter(writer)
    reader.add(11, {"loss": 1.0}, 1.0)
    reader.add(12, {"loss": 1.0, name: bad}, 1.0)
    with pytest.raises(meter.NonFiniteLoss, match=f"{name} is .* at step 12 in phase 'head'"):
        reader.add(13, {"loss": 1.0}, 1.0)
    writer.close()


def test_speed_counts_steps_only(tmp_path, monkeypatch):
    clock = iter([1.0, 3.0, 5.0, 100.0, 102.0])
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(clock))
    writer = Writer(tmp_path, 0)
    reader = make_meter(writer, log_every=100)
    for step in range(11, 14):  # read at 1, 3, 5 s: the first step is compilation
        reader.add(step, {"loss": 1.0}, 1.0)
    reader.flush()
    reader.restart_clock()
    for step in range(14, 16):
        reader.add(step, {"loss": 1.0}, 1.0)
    reader.flush()
    writer.close()
    assert (reader.train_seconds, reader.images) == (6.0, 12)


def test_lines_beyond_the_checkpoint_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1}\n{"step": 5, "loss": 1}\n{"step": 6, "lo')
    writer = Writer(tmp_path, 4)
    writer.scalars(5, {"loss": float("nan")})
    writer.close()
    assert read_lines(tmp_path) == [{"step": 1, "loss": 1}, {"step": 5, "loss": None}]


def test_table_aligns():
    text = console.table([("name", "n"), ("a", "1"), ("long name", "23")])
    assert text.splitlines() == ["name        n", "-------------", "a           1", "long name  23"]
