"""How a case is described, and how it is measured.

Times are processor time of the thread (``thread_time``): on a shared machine the clock on the wall also
counts what others do.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Build", "Group", "Sample", "Subject", "measure", "memory"]


class Subject(NamedTuple):
    """A WSGI application that has proved its duties, and the request to time."""

    app: Callable[..., Any]
    request: Mapping[str, Any]


class Sample(NamedTuple):
    """What was measured once: processor time in seconds, and memory in MB where it matters."""

    seconds: float
    megabytes: float = 0.0


#: Makes what is measured, in a folder of its own: a request that is repeated, or a function that is called once.
Build = Callable[[Path], "Subject | Callable[[], Sample]"]


class Group(NamedTuple):
    """Cases that are compared with each other.

    Args:
        name: For ``--only``.
        title: Heading of the table.
        cases: By row and column; what is missing is not offered by that peer. None: its module measures it itself.
        reference: The row that ratios refer to: how many times each other row takes.
        unit: ``us``, ``ms``: of the times shown.
        once: The cases are functions that are called in a fresh process each time.
        note: A sentence below the table.
        slow: Columns that ``--quick`` leaves out.
    """

    name: str
    title: str
    cases: Mapping[str, Mapping[str, Build | None]]
    reference: str
    unit: str = "us"
    once: bool = False
    note: str = ""
    slow: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """All columns, in order."""
        return list(dict.fromkeys(column for row in self.cases.values() for column in row))


def _start_response(status: str, headers: Any, exc_info: Any = None) -> None:
    return None


def _drive(subject: Subject, times: int) -> float:
    """Do what a server does, *times* over; return the seconds for one."""
    app, copy = subject.app, subject.request.copy  # type: ignore[attr-defined]
    begun = time.thread_time()
    for _ in range(times):
        body = app(copy(), _start_response)
        for _block in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()
    return (time.thread_time() - begun) / times


def measure(subject: Subject, seconds: float) -> Callable[[], float]:
    """Warm up, and return a function that measures one round of about *seconds*."""
    _drive(subject, 20)
    times = 20
    while _drive(subject, times) * times < seconds / 4:
        times *= 2
    times = max(1, int(times * seconds / max(_drive(subject, times) * times, 1e-6)))
    gc.collect()
    gc.freeze()
    return lambda: _drive(subject, times)


def memory() -> float:
    """Return the memory of this process that is in use, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else ():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
