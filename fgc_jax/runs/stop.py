"""Requests to stop: SIGTERM, Ctrl-C, or a scheduler's preemption of one process of many."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax


class Stopped(Exception):
    """The run was asked to stop and has saved itself; the same command continues it."""


@contextlib.contextmanager
def requests(manager) -> Iterator[Callable[[int], bool]]:
    """Yields `asked(step)`: whether to save and stop now.

    One process: its own handler for SIGTERM and SIGINT. Many: the checkpoint manager's agreement
    through jax.distributed, so that all stop at the same step when one is told to; an own handler
    would keep that from working.
    """
    if jax.process_count() > 1:
        yield manager.reached_preemption
        return
    received = []

    def handle(number, frame):
        if received and number == signal.SIGINT:  # a second Ctrl-C: the user does not want to wait
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda step: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
