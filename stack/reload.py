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
        self._stopped = False

    def run(self) -> None:
        """Serve and watch until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._replace()
        seen = self._snapshot()
        while not self._stopped:
            time.sleep(POLL_SECONDS)
            now = self._snapshot()
            if now != seen:
                changed = sorted(os.path.relpath(name) for name, state in now.items() if seen.get(name) != state)
                self._say(f"changed: {', '.join(changed) or 'a file is gone'}", "")
                self._replace()
                seen = self._snapshot()
            elif self._serving is not None and self._serving.poll() is not None:
                self._say(f"the serving process ended with exit code {self._serving.returncode}", "bad")
                self._serving = None
        self._end(self._serving)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _snapshot(self) -> dict[str, tuple[int, int]]:
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

    def _replace(self) -> None:
        """Start a new process; stop the old one only if the new one stands."""
        began = time.monotonic()
        process, report = self._start()
        problems = ["the new process ended while it was building the stack"] if report is None else report["problems"]
        if report is not None:
            self._files = {os.path.abspath(self._stack_file), *report["files"]} | (self._files if problems else set())
        if problems:
            for problem in problems:
                self._say(problem, "bad")
            self._say("the old stack goes on serving" if self._serving else "waiting for a change", "")
            self._end(process)
            return
        old, self._serving = self._serving, process
        self._say(f"{'reloaded' if old else 'built'} in {time.monotonic() - began:.2f} s", "good")
        self._end(old)

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
