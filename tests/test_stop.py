"""Requests to stop: what sets them, what a second Ctrl-C does, and what is left afterwards."""

import signal
import types

import jax
import pytest

from fgc_jax.runs import stop

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def send(*numbers):
    """Raises signals that must not interrupt; an interrupt would end pytest itself."""
    try:
        for number in numbers:
            signal.raise_signal(number)
    except KeyboardInterrupt:
        pytest.fail("the request interrupted the run")


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_for_a_stop_and_ends_nothing(number):
    with stop.requests(None) as asked:
        assert not asked(1)
        send(number, signal.SIGTERM, signal.SIGTERM)  # schedulers repeat themselves
        assert asked(1) and asked(2)


@pytest.mark.parametrize("first", SIGNALS)
def test_ctrl_c_after_a_request_interrupts(first):
    with stop.requests(None) as asked:
        send(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert asked(1)


def test_handlers_are_restored():
    before = handlers()
    with stop.requests(None):
        assert all(now != old for now, old in zip(handlers(), before, strict=True))
    assert handlers() == before
    with pytest.raises(RuntimeError, match="the run failed"), stop.requests(None):
        raise RuntimeError("the run failed")
    assert handlers() == before


def test_a_request_does_not_outlive_its_run():
    with stop.requests(None):
        send(signal.SIGTERM)
    with stop.requests(None) as asked:
        assert not asked(1)


def test_many_processes_leave_it_to_their_agreement(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    before = handlers()
    manager = types.SimpleNamespace(reached_preemption=lambda step: step == 7)
    with stop.requests(manager) as asked:
        assert handlers() == before
        assert [asked(step) for step in (6, 7)] == [False, True]
