"""Run the cases of a group: each in its own process, all in turns, in shuffled order."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from measure import Group

BENCH = Path(__file__).resolve().parent
WORKER = BENCH / "worker.py"


class Effort(NamedTuple):
    """How much is done: seconds of a round, rounds, fresh processes of what is measured once; and all columns."""

    seconds: float
    rounds: int
    processes: int
    all: bool


FULL = Effort(0.02, 11, 3, True)
QUICK = Effort(0.008, 5, 2, False)


class Result(NamedTuple):
    """One case: median and spread (between the quartiles) of its time, in the group's unit; memory in MB."""

    median: float
    spread: float
    megabytes: float


Results = dict[str, dict[str, Result]]
_begun = time.monotonic()


def progress(what: str) -> None:
    """Say on a terminal what is measured now, in one line that the next one writes over; empty to remove it."""
    if sys.stderr.isatty():
        seconds = int(time.monotonic() - _begun)
        line = f"{seconds // 60}:{seconds % 60:02} {what}" if what else ""
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def variables() -> dict[str, str]:
    """The environment of every process: the checkout's packages, and hashes that stay the same."""
    path = os.pathsep.join([str(BENCH.parent / "tools" / "dev"), str(BENCH)])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}


def run(module: str, group: Group, effort: Effort, python: str = sys.executable) -> Results:
    """Measure all cases of a group, column by column, so that the rows are compared under the same conditions.

    Args:
        module: Where the group is, in ``cases``.
        group: What to measure.
        effort: How long.
        python: The interpreter that runs the cases.
    """
    results: Results = {row: {} for row in group.cases}
    for column in group.columns:
        if column in group.slow and not effort.all:
            continue
        rows = [row for row, columns in group.cases.items() if column in columns]
        progress(f"{group.name}: {column}")
        measured = (_once if group.once else _in_turns)(module, group, rows, column, effort, python)
        factor = {"us": 1e6, "ms": 1e3}[group.unit]
        for row, samples in measured.items():
            if samples:
                results[row][column] = _summary(samples, factor)
    return results


def _summary(samples: list[tuple[float, float]], factor: float) -> Result:
    times = sorted(seconds * factor for seconds, _ in samples)
    spread = 0.0
    if len(times) > 2:
        first, _, third = statistics.quantiles(times, n=4)
        spread = third - first
    return Result(statistics.median(times), spread, statistics.median(memory for _, memory in samples))


def _start(
    stack: ExitStack, module: str, group: Group, row: str, column: str, effort: Effort, python: str, folder: str = ""
) -> subprocess.Popen[str]:
    folder = folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="lamella-bench-"))
    process = subprocess.Popen(
        [python, str(WORKER), module, group.name, row, column, str(effort.seconds), folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables(),
    )  # fmt: skip
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()


def _ready(process: subprocess.Popen[str], what: str) -> None:
    """Wait until the case is built.

    Raises:
        SystemExit: It could not be, or does not do its duty.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{what}:\n{process.stderr.read()}")


def _sample(process: subprocess.Popen[str], what: str) -> tuple[float, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write("round\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{what}:\n{process.stderr.read()}")
    seconds, megabytes = line.split()
    return float(seconds), float(megabytes)


def _in_turns(
    module: str, group: Group, rows: list[str], column: str, effort: Effort, python: str
) -> dict[str, list[Any]]:
    """One process for each row; every round asks each of them once."""
    samples: dict[str, list[Any]] = {row: [] for row in rows}
    with ExitStack() as stack:
        processes = {row: _start(stack, module, group, row, column, effort, python) for row in rows}
        for row, process in processes.items():
            _ready(process, f"{group.name}: {row}, {column}")
        for _ in range(effort.rounds):
            for row in random.sample(rows, len(rows)):
                samples[row].append(_sample(processes[row], f"{group.name}: {row}, {column}"))
    return samples


def _once(module: str, group: Group, rows: list[str], column: str, effort: Effort, python: str) -> dict[str, list[Any]]:
    """A fresh process for every sample; one more that is not counted fills the disk's cache.

    Not so where a case takes seconds, and a few milliseconds of reading a module do not show.
    """
    samples: dict[str, list[Any]] = {row: [] for row in rows}
    first = 0 if column in group.slow else -1
    with tempfile.TemporaryDirectory(prefix="lamella-bench-") as folder:  # 100,000 files are not made each time
        for number in range(first, effort.processes):
            for row in random.sample(rows, len(rows)):
                with ExitStack() as stack:
                    process = _start(stack, module, group, row, column, effort, python, folder)
                    _ready(process, f"{group.name}: {row}, {column}")
                    sample = _sample(process, f"{group.name}: {row}, {column}")
                if number >= 0:
                    samples[row].append(sample)
    return samples
