"""Real servers as subprocesses, and what loads them: wrk, and a client that keeps one connection.

Where there are two processors the server has one for itself, and what drives it the other: only then is
the processor time of a request the same from run to run.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

from driver import BENCH, variables

__all__ = ["SERVERS", "WRK", "command", "free_port", "keep_alive", "load", "nginx", "serve", "uwsgi"]

SERVERS = ("granian", "gunicorn", "waitress")
WRK = shutil.which("wrk")
CONNECTIONS = 16


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(server: str, app: str, port: int) -> list[str]:
    """Words that start *server*, with one process, for an application ``module:attribute``."""
    programs = Path(sys.executable).parent
    if server == "gunicorn":
        return [str(programs / "gunicorn"), "-b", f"127.0.0.1:{port}", "-w", "1", "-k", "gthread", "--threads", "4",
                "--log-level", "error", "--chdir", str(BENCH), app]  # fmt: skip
    if server == "granian":
        return [str(programs / "granian"), "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port),
                "--workers", "1", "--no-ws", "--log-level", "error", app]  # fmt: skip
    return [str(programs / "waitress-serve"), "--listen", f"127.0.0.1:{port}", "--threads", "4", app]


def uwsgi(module: str, port: int) -> list[str] | None:
    """Words that start uWSGI, which keeps connections with ``http11-socket`` only; None where it is not installed."""
    beside = Path(sys.executable).with_name("uwsgi")
    program = str(beside) if beside.exists() else shutil.which("uwsgi")
    if program is None:
        return None
    return [program, "--http11-socket", f"127.0.0.1:{port}", "--processes", "1", "--need-app", "--lazy-apps",
            "--master", "--die-on-term", "--disable-logging", "--virtualenv", sys.prefix,
            "--module", module]  # fmt: skip


def nginx(folder: Path, port: int) -> list[str] | None:
    """Words that start an nginx of our own for *folder*; None where it is not installed."""
    program = shutil.which("nginx") or next((path for path in ("/usr/sbin/nginx",) if Path(path).exists()), None)
    if program is None:
        return None
    os.chmod(folder, 0o755)
    configuration = folder / "nginx.conf"
    temporary = "".join(f"{name}_temp_path {folder}/{name};" for name in (
        "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))  # fmt: skip
    configuration.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; {temporary}\n"
        f"types {{ text/css css; }} server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    return [program, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")]


def _place(server: bool) -> Callable[[], None] | None:
    """What a child does first: take its side of the processors. None where there is but one."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    every = sorted(os.sched_getaffinity(0))
    if len(every) < 2:
        return None
    side = every[-1:] if server else every[:-1]
    return lambda: os.sched_setaffinity(0, side)


def serve(stack: ExitStack, words: list[str], port: int, folder: Path, **more: str) -> int:
    """Start a server until *stack* ends, and return its process id once it answers.

    Raises:
        SystemExit: It ends, or does not answer.
    """
    process = subprocess.Popen(
        words, cwd=BENCH, env={**variables(), "BENCH_FOLDER": str(folder), **more}, preexec_fn=_place(server=True),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def stop() -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(stop)
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process.pid
        except OSError:
            if process.poll() is not None:
                raise SystemExit(f"the server ended: {' '.join(words)}") from None
            time.sleep(0.05)
    raise SystemExit(f"the server does not answer: {' '.join(words)}")


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += _tree(int(child))
    return found


def _processor_seconds(pid: int) -> float:
    ticks = 0
    for one in _tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def load(pid: int, url: str, seconds: float, headers: dict[str, str]) -> tuple[float, int]:
    """Drive the server with wrk; return its processor seconds and the number of requests.

    Raises:
        SystemExit: An answer is not 2xx.
    """
    fields = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    before = _processor_seconds(pid)
    words = [str(WRK), "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", *fields, url]
    done = subprocess.run(words, capture_output=True, text=True, check=True, preexec_fn=_place(server=False))
    spent = _processor_seconds(pid) - before
    lines = done.stdout.splitlines()
    if any("Non-2xx" in line for line in lines):
        raise SystemExit(f"{url}: not 200\n{done.stdout}")
    number = next(int(line.split()[0]) for line in lines if " requests in " in line)
    return spent, number


def keep_alive(port: int, path: str, body: bytes, times: int) -> list[float]:
    """Ask for *path* again and again on one connection; return the seconds that each answer takes.

    Raises:
        SystemExit: The answer is another, or the server closes the connection.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.connect()
    socket_used = connection.sock
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        found = answer.read()
        taken.append(time.perf_counter() - begun)
        if answer.status != 200 or found != body:
            raise SystemExit(f"{path}: {answer.status}, {len(found)} bytes")
        if connection.sock is not socket_used:
            raise SystemExit(f"{path}: the server does not keep the connection")
    connection.close()
    return taken
