"""Simulated time."""

import heapq
import itertools
import math
import threading
from collections.abc import Callable


class Clock:
    """
    Simulated time, for threads of which only one runs at any moment.

    A thread runs until it sleeps or ends. Then the next one in time continues.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._errors: list[BaseException] = []

    def at(self, moment: float, process: Callable[[], object]) -> None:
        """Let a process begin at that moment, in its own thread."""

        def run() -> None:
            try:
                process()
            except BaseException as error:  # noqa: BLE001 (`wait_for_all` raises it)
                self._errors.append(error)
            self._continue_next()

        self._wait_until(moment, threading.Thread(target=run, daemon=True).start)

    def sleep(self, seconds: float) -> None:
        """Let the given number of seconds pass for this thread."""
        woken = threading.Event()
        self._wait_until(self.now + seconds, woken.set)
        self._continue_next()
        woken.wait()

    def wait_for_all(self) -> None:
        """Wait until the last process has ended; raise an error that one raised."""
        self.sleep(math.inf)
        if self._errors:
            raise self._errors[0]

    def _wait_until(self, moment: float, wake: Callable[[], None]) -> None:
        heapq.heappush(self._waiting, (moment, next(self._order), wake))

    def _continue_next(self) -> None:
        self.now, _, wake = heapq.heappop(self._waiting)
        wake()
