"""``lamella run --reload``: a new stack takes over once it is built; until then the old one serves.

The supervisor holds the listening sockets. When a file changes it starts a new process on
the same sockets; only after that one reports that its stack stands is the old one told to
stop. A stack file or module that is broken is reported, and the old process goes on.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Supervisor"]

#: By path: time of the last change in nanoseconds, and size; (0, -1) for a file that is gone.
_States = dict[str, tuple[int, int]]

#: How often files are looked at; a person does not notice less.
POLL_SECONDS = 0.3
#: A stack that is not built after this is broken.
BUILD_SECONDS = 60.0


class Supervisor:
    """Keeps one good serving process on the sockets.

    Args:
        stack_file: Path of the stack file.
        sockets: Listening sockets, handed on to each process.
        profile: Name of a profile, or None.
        threads: Threads of each process.
        say: Shows a line to the person; the second argument is ``"good"``, ``"bad"`` or ``""``.
    """

    def __init__(
        self,
        stack_file: str,
        sockets: Iterable[socket.socket],
        *,
        profile: str | None,
        threads: int,
        say: Callable[[str, str], object],
    ) -> None:
        self._stack_file = stack_file
        self._sockets = list(sockets)
        self._profile = profile
        self._threads = threads
        self._say = say
        self._serving: subprocess.Popen[bytes] | None = None
        self._files: set[str] = {os.path.abspath(stack_file)}
        self._retired: list[subprocess.Popen[bytes]] = []
        self._stopped = False

    def run(self) -> None:
        """Serve and watch until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        seen = self._replace(self._snapshot())
        while not self._stopped:
            time.sleep(POLL_SECONDS)
            now = self._snapshot()
            if now != seen:
                changed = sorted(os.path.relpath(name) for name, state in now.items() if seen.get(name) != state)
                self._say(f"changed: {', '.join(changed) or 'a file is gone'}", "")
                seen = self._replace(now)
            elif self._serving is not None and self._serving.poll() is not None:
                self._say(f"the serving process ended with exit code {self._serving.returncode}", "bad")
                self._serving = None
        for process in (self._serving, *self._retired):
            self._end(process)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _snapshot(self) -> _States:
        """Note the state of each watched file."""
        states = {}
        for name in self._files:
            try:
                status = os.stat(name)
            except OSError:
                states[name] = (0, -1)
            else:
                states[name] = (status.st_mtime_ns, status.st_size)
        return states

    def _replace(self, seen: _States) -> _States:
        """Start a new process; stop the old one only if the new one stands.

        Args:
            seen: The state of the files before; a change while the process is built is a change.

        Returns:
            The same, with the files that are watched from now on.
        """
        began, began_ns = time.monotonic(), time.time_ns()
        process, report = self._start()
        problems = ["the new process ended while it was building the stack"] if report is None else report["problems"]
        if report is not None:
            self._files = {os.path.abspath(self._stack_file), *report["files"]} | (self._files if problems else set())
        if problems:
            for problem in problems:
                self._say(problem, "bad")
            self._say("the old stack goes on serving" if self._serving else "waiting for a change", "")
            self._end(process)
        else:
            old, self._serving = self._serving, process
            took = time.monotonic() - began
            if old is not None:
                self._retire(old)
            self._say(f"{'reloaded' if old else 'built'} in {took:.2f} s", "good")
        return {
            name: seen.get(name, state if state[0] < began_ns else (0, -1)) for name, state in self._snapshot().items()
        }

    def _retire(self, old: subprocess.Popen[bytes]) -> None:
        """Tell the old process to stop, and wait until it accepts nothing more; its last requests go on."""
        old.terminate()
        self._retired = [process for process in self._retired if process.poll() is None]
        try:
            old.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._retired.append(old)

    def _start(self) -> tuple[subprocess.Popen[bytes], dict[str, Any] | None]:
        """Start a process and wait for its report."""
        reading, writing = os.pipe()
        descriptors = [listening.fileno() for listening in self._sockets]
        command = [sys.executable, "-m", "lamella.stack.worker", self._stack_file, "--threads", str(self._threads)]
        command += ["--report", str(writing), *(word for number in descriptors for word in ("--socket", str(number)))]
        if self._profile is not None:
            command += ["--profile", self._profile]
        process = subprocess.Popen(command, pass_fds=[writing, *descriptors])  # noqa: S603
        os.close(writing)
        return process, self._read(reading)

    def _read(self, descriptor: int) -> dict[str, Any] | None:
        """Read the report of a new process, or None where it ends or takes too long."""
        deadline = time.monotonic() + BUILD_SECONDS
        line = b""
        with open(descriptor, "rb", buffering=0) as pipe:
            while not line.endswith(b"\n") and time.monotonic() < deadline and not self._stopped:
                if select.select([pipe], [], [], 0.2)[0]:
                    read = pipe.read(65536)
                    if not read:
                        return None
                    line += read
        if not line.endswith(b"\n"):
            return None
        report: dict[str, Any] = json.loads(line)
        return report

    def _end(self, process: subprocess.Popen[bytes] | None) -> None:
        """Tell a process to stop; its requests in flight finish."""
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
