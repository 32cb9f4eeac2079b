"""Requests to stop: what sets them, what a second Ctrl-C does, and what is left afterwards."""

import signal
import types

import jax
import pytest

from fgc_jax import stop

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_for_a_stop_and_ends_nothing(number):
    with stop.requests(None) as asked:
        assert not asked(1)
        signal.raise_signal(number)
        assert asked(1)
        assert asked(2)


@pytest.mark.parametrize("first", SIGNALS)
def test_ctrl_c_after_a_request_interrupts(first):
    with stop.requests(None) as asked:
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert asked(1)


def test_sigterm_may_come_twice():
    """Schedulers repeat themselves; the run is saving itself meanwhile."""
    with stop.requests(None) as asked:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
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
        signal.raise_signal(signal.SIGTERM)
    with stop.requests(None) as asked:
        assert not asked(1)


def test_many_processes_leave_it_to_their_agreement(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    before = handlers()
    manager = types.SimpleNamespace(reached_preemption=lambda step: step == 7)
    with stop.requests(manager) as asked:
        assert handlers() == before
        assert [asked(step) for step in (6, 7)] == [False, True]
