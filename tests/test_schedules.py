"""Learning rate and momentum by step, against formulas written out in NumPy.

`tests/parity/test_optim.py` compares the same with PyTorch's schedulers.
"""

import jax
import numpy as np
import pytest

from configs import common
from fgc_jax import config
from fgc_jax.training import schedules


def make_phase(**changes) -> config.Phase:
    phase = common.phase("test", **{"lr": 0.1, "epochs": 4, **changes}).to_dict()
    return config.read(config.Phase, phase, "phase test")


def rates(steps_per_epoch=5, **changes) -> np.ndarray:
    """The learning rate of each step of a phase, from the compiled function."""
    phase = make_phase(**changes)
    rate = schedules.build(phase, steps_per_epoch).rate
    return np.asarray(jax.jit(jax.vmap(rate))(np.arange(phase.epochs * steps_per_epoch)))


def half_cosine(start, end, steps) -> np.ndarray:
    return end + (start - end) * (1 + np.cos(np.pi * np.linspace(0, 1, steps))) / 2


def test_constant_is_the_rate():
    assert rates().tolist() == [np.float32(0.1)] * 20


@pytest.mark.parametrize("warmup", ["1 epoch", "5 steps", "25 %", "25%", "1.0 epochs", "25.0 %"])
def test_warmup_rises_linearly_whatever_its_unit(warmup):
    expected = [0.02, 0.04, 0.06, 0.08] + [0.1] * 16
    np.testing.assert_allclose(rates(warmup=warmup), expected, rtol=1e-6)


def test_warmup_need_not_be_whole_steps():
    expected = [0.04, 0.08] + [0.1] * 18
    np.testing.assert_allclose(rates(warmup="0.5 epochs"), expected, rtol=1e-6)


def test_cosine_starts_behind_the_warmup_and_ends_at_its_share():
    fall = half_cosine(0.1, 0.01, 17)[:-1]
    got = rates(schedule="cosine", warmup="4 steps", schedule_options={"final": 0.1})
    np.testing.assert_allclose(got, np.r_[0.025, 0.05, 0.075, 0.1, fall], rtol=1e-6)
    rate = schedules.build(make_phase(schedule="cosine"), 5).rate
    np.testing.assert_allclose([rate(20), rate(99)], 0, atol=1e-12)


def test_one_cycle_rises_and_falls_by_half_cosines():
    # 30 % of 20 steps end with step 5.
    expected = np.r_[half_cosine(0.1 / 25, 0.1, 6), half_cosine(0.1, 0.1 / 25000, 15)[1:]]
    np.testing.assert_allclose(rates(schedule="one_cycle"), expected, rtol=1e-5)
    schedule = schedules.build(make_phase(schedule="one_cycle"), 5)
    expected = np.r_[half_cosine(0.95, 0.85, 6), half_cosine(0.85, 0.95, 15)[1:]]
    got = [schedule.momentum(step) for step in range(20)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_one_cycles_options():
    options = {"peak": "1 epochs", "div": 10.0, "final": 100, "momenta": ()}
    expected = np.r_[half_cosine(0.01, 0.1, 5), half_cosine(0.1, 0.001, 16)[1:]]
    got = rates(schedule="one_cycle", schedule_options=options)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert schedules.build(make_phase(schedule="cosine"), 5).momentum is None
    phase = make_phase(schedule="one_cycle", schedule_options=options, momentum=0.3)
    assert schedules.build(phase, 5).momentum is None


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_one_cycle_of_a_few_steps_is_finite(steps):
    got = rates(steps_per_epoch=steps, epochs=1, schedule="one_cycle")
    assert np.isfinite(got).all() and (got > 0).all()
    np.testing.assert_allclose(got[-1], 0.1 / 25000, rtol=1e-4)


def test_steps_fall_each_time_a_duration_has_passed():
    got = rates(schedule="step", schedule_options={"every": "2 epochs", "factor": 0.5})
    np.testing.assert_allclose(got, [0.1] * 10 + [0.05] * 10, rtol=1e-6)
    got = rates(schedule="step", schedule_options={"every": "35 %"})
    np.testing.assert_allclose(got, [0.1] * 7 + [0.01] * 7 + [0.001] * 6, rtol=1e-5)


def test_steps_fall_at_the_nearest_whole_step():
    """However quotients round: in float32, 333 is less than 30 times 11.1."""
    options = {"every": "0.3 epochs", "factor": 0.5}
    got = rates(steps_per_epoch=37, lr=1.0, epochs=10, schedule="step", schedule_options=options)
    number = np.arange(370)
    np.testing.assert_array_equal(np.round(np.log2(got)), -((20 * number + 10) // 222))
    options = {"milestones": ("1.3 epochs",)}
    got = rates(steps_per_epoch=7, lr=1.0, schedule="step", schedule_options=options)
    np.testing.assert_allclose(got, [1.0] * 9 + [0.1] * 19, rtol=1e-6)


def test_milestones_count_from_the_start_of_the_phase():
    options = {"milestones": ("1 epochs", "12 steps", "75 %"), "factor": 0.1}
    got = rates(schedule="step", schedule_options=options, warmup="2 steps")
    expected = [0.05] + [0.1] * 4 + [0.01] * 7 + [0.001] * 3 + [0.0001] * 5
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_exponential_falls_with_every_step():
    """As Counterfactual Attention Learning has it: 0.9 ** (epoch / 2), by iterations."""
    got = rates(schedule="exponential", schedule_options={"factor": 0.9, "every": "2 epochs"})
    np.testing.assert_allclose(got, 0.1 * 0.9 ** (np.arange(20) / 10), rtol=1e-6)
    got = rates(schedule="exponential", warmup="2 steps", schedule_options={"every": "1 steps"})
    np.testing.assert_allclose(got, 0.1 * np.r_[0.5, 1, 0.9 ** np.arange(18)], rtol=1e-5)


def test_plateau_leaves_the_rate_and_gives_its_options():
    phase = make_phase(schedule="plateau", schedule_options={"patience": 2})
    assert schedules.options(phase) == {"factor": 0.1, "patience": 2}
    assert rates(schedule="plateau").tolist() == [np.float32(0.1)] * 20


def test_rate_follows_the_batch_size_where_it_is_stated_for_another():
    np.testing.assert_allclose(rates(batch_size=8, lr_batch=256)[0], 0.1 / 32, rtol=1e-6)
    got = rates(batch_size=512, lr_batch=256, schedule="one_cycle")
    np.testing.assert_allclose(got, 2 * rates(schedule="one_cycle"), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup": "2"}, "warmup='2' must be one of 'N steps', 'N epochs', 'N %'"),
        ({"warmup": "-1 epochs"}, "warmup='-1 epochs' must be one of 'N steps'"),
        ({"warmup": "5 epochs"}, "'constant': warmup='5 epochs' must be .* 4 epochs of 5 steps"),
        ({"warmup": "21 steps"}, "warmup='21 steps' must be .*: 4 epochs of 5 steps"),
        ({"warmup": "101 %"}, "at most as long as the phase"),
        ({"warmup": "0 %"}, "longer than 0"),
        ({"schedule": "one_cycle", "warmup": "1 epochs"}, "the cycle itself begins with a rise"),
        (
            {"schedule_options": {"final": 0.1}},
            "'constant': final is unknown: there are no options",
        ),
        (
            {"schedule": "step", "schedule_options": {"gamma": 0.1}},
            "phase test: schedule 'step': gamma is unknown: allowed: 'every', 'miles",
        ),
        ({"schedule": "step"}, "give either every='30 epochs' or milestones="),
        (
            {"schedule": "step", "schedule_options": {"every": "1 epochs", "milestones": ("5 %",)}},
            "give either every",
        ),
        (
            {"schedule": "step", "schedule_options": {"milestones": ("50 %", "1 epochs")}},
            "milestones=.* must be in ascending order",
        ),
        (
            {"schedule": "one_cycle", "schedule_options": {"peak": "100 %"}},
            "peak='100 %' must end before",
        ),
        (
            {"schedule": "one_cycle", "momentum": 0.0},
            "momentum=0 has no effect, because 'one_cycle' changes it between 0.85 and 0.95",
        ),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ValueError, match=f"phase test: .*{message}|{message}"):
        schedules.build(make_phase(**changes), 5)
