"""Real servers for tests: each on a free port of this machine, its data in a temporary folder."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def free_port() -> int:
    """A port that nobody listens on.

    Below the range that clients of this machine get theirs from: until a server has taken the port nobody else gets it.
    """
    for _ in range(100):
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")


@contextmanager
def waitress(app: Any, threads: int = 2) -> Iterator[int]:
    """Serve *app* by waitress in a thread until the end of the block; the port.

    The server's sockets are closed by the thread that polls them: closed under its ``select`` they make it fail.
    """
    from waitress.server import create_server

    server: Any = create_server(app, host="127.0.0.1", port=0, threads=threads)
    ended = threading.Event()

    def serve() -> None:
        try:
            while not ended.is_set():
                server.asyncore.loop(timeout=1, map=server._map, count=1)
        finally:
            server.task_dispatcher.shutdown()
            server.asyncore.close_all(server._map)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.effective_port
    finally:
        ended.set()
        server.pull_trigger()
        thread.join(10)
        assert not thread.is_alive(), "waitress does not end"


def program(name: str, *folders: str) -> str:
    """Where a program is; a test that needs it is skipped, in continuous integration it fails."""
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return found


def wait_for(answers: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait until a server answers."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if answers():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} does not answer")


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    command: Sequence[str], port: int, cwd: Path | None = None, stop: signal.Signals = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block."""
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port), command[0])
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(stop)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def wsgiref(app: Any) -> Iterator[int]:
    """Serve *app* by the standard library's server in a thread until the end of the block; the port."""
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@contextmanager
def redis(folder: Path, *options: str, port: int = 0) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A Redis of our own."""
    port = port or free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with running([*command, *options], port) as process:
        yield port, process


@contextmanager
def memcached() -> Iterator[int]:
    """A memcached of our own."""
    port = free_port()
    command = [program("memcached"), "-l", "127.0.0.1", "-p", str(port), "-U", "0"]
    if os.geteuid() == 0:
        command += ["-u", "nobody"]
    with running(command, port):
        yield port


@contextmanager
def postgresql() -> Iterator[int]:
    """A PostgreSQL of our own, as the user ``postgres`` where we are root: it refuses to run as root."""
    # Not below pytest's folder, which each run of pytest closes to everybody but its own user.
    with tempfile.TemporaryDirectory(prefix="lamella-postgresql-", ignore_cleanup_errors=True) as folder:
        with _postgresql(Path(folder)) as port:
            yield port


@contextmanager
def _postgresql(folder: Path) -> Iterator[int]:
    folders = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    initdb, postgres = program("initdb", *folders), program("postgres", *folders)
    port, data = free_port(), folder / "data"
    become: list[str] = []
    if os.geteuid() == 0:
        import pwd

        user = pwd.getpwnam("postgres")
        become = [program("setpriv"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        os.chown(folder, user.pw_uid, user.pw_gid)
    subprocess.run(
        [*become, initdb, "-D", str(data), "-U", "lamella", "--auth=trust", "-E", "UTF8", "--no-sync"],
        check=True,
        cwd="/",
        stdout=subprocess.DEVNULL,
    )
    settings = ["fsync=off", f"unix_socket_directories={folder}", "listen_addresses=127.0.0.1", "max_connections=60"]
    command = [*become, postgres, "-D", str(data), "-p", str(port), *(part for s in settings for part in ("-c", s))]
    with running(command, port, cwd=Path("/"), stop=signal.SIGINT):
        import psycopg

        def answers() -> bool:
            try:
                psycopg.connect(f"postgresql://lamella@127.0.0.1:{port}/postgres").close()
            except psycopg.OperationalError:
                return False
            return True

        wait_for(answers, "postgres")
        yield port
