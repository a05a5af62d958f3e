"""Running named checks side by side, each within its time, whatever they do."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["Check", "Outcome", "run_checks"]

_log = logging.getLogger("lamella.health")


class Outcome(NamedTuple):
    """How one check ended."""

    #: ``pass``, ``fail`` or ``timeout``.
    status: str
    milliseconds: float


class _Run:
    """One call of a check, in its own thread."""

    __slots__ = ("begun", "ended", "outcome", "pid")

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.ended = threading.Event()
        self.outcome = Outcome("timeout", 0.0)
        self.pid = os.getpid()


class Check:
    """A named check; at most one call of it runs at a time, and requests that come meanwhile share its result.

    Args:
        name: For the answer and the log.
        function: Called without arguments. False, or an exception, is a failure; anything else is well.
        fresh: Seconds for which a result is used again.
    """

    def __init__(self, name: str, function: Callable[[], object], fresh: float) -> None:
        self._name = name
        self._function = function
        self._fresh = fresh
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def begin(self) -> _Run:
        """Return the running call, a fresh result, or a new call."""
        with self._lock:
            run = self._run
            usable = run is not None and run.pid == os.getpid()  # a thread does not survive a fork
            if run is not None and usable and not (run.ended.is_set() and self._is_stale(run)):
                return run
            run = self._run = _Run()
        threading.Thread(target=self._call, args=(run,), name=f"health-{self._name}", daemon=True).start()
        return run

    def _is_stale(self, run: _Run) -> bool:
        return time.monotonic() - run.begun >= self._fresh

    def _call(self, run: _Run) -> None:
        status = "fail"
        try:
            if self._function() is not False:
                status = "pass"
            else:
                _log.warning("the check %s failed", self._name)
        except Exception:  # noqa: BLE001  a check may raise anything
            _log.exception("the check %s failed", self._name)
        finally:
            run.outcome = Outcome(status, (time.monotonic() - run.begun) * 1000)
            run.ended.set()

    def wait(self, run: _Run, timeout: float) -> Outcome:
        """Return the outcome of *run*, or a timeout once it took that long: a call that hangs is waited for once."""
        if run.ended.wait(max(0.0, run.begun + timeout - time.monotonic())):
            return run.outcome
        _log.warning("the check %s did not end in time", self._name)
        return Outcome("timeout", (time.monotonic() - run.begun) * 1000)


def run_checks(checks: Mapping[str, Check], timeout: float) -> dict[str, Outcome]:
    """Run all *checks* at the same time, and return their outcomes after *timeout* seconds at the latest."""
    runs = {name: check.begin() for name, check in checks.items()}
    return {name: checks[name].wait(run, timeout) for name, run in runs.items()}
