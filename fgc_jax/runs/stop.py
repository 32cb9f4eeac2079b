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
