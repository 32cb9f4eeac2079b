"""Requests to stop: SIGTERM, Ctrl-C, or a scheduler's preemption of one process of many."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax


class Stopped(Exception):
    """The run was asked to stop and has saved a checkpoint; the same command continues it."""


@contextlib.contextmanager
def requests(manager) -> Iterator[Callable[[int], bool]]:
    """Yields `asked(step)`: whether to save and stop now.

    A single process handles SIGTERM and SIGINT itself. Several processes ask the checkpoint
    manager, which agrees through jax.distributed on one step at which all stop when one is asked
    to; a signal handler here would prevent that.
    """
    if jax.process_count() > 1:
        yield manager.reached_preemption
        return
    with signals(interrupt=True) as received:
        yield lambda step: bool(received)


@contextlib.contextmanager
def signals(interrupt: bool) -> Iterator[list[int]]:
    """Yields a list that grows with each SIGTERM and SIGINT. interrupt: a second Ctrl-C raises
    KeyboardInterrupt, because the user does not want to wait."""
    received: list[int] = []

    def handle(number, frame):
        if interrupt and received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
