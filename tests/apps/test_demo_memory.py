"""What passes through the demo's layers is never held: a large download and a large upload, on real servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lamella.apps.demo

DEMO = Path(lamella.apps.demo.__path__[0]) / "stack.toml"
DEV = next(str(folder) for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())
MIB = 1024 * 1024
#: A GiB down and up takes ten seconds of a small machine; a quarter shows as well that nothing is held.
TOTAL = 1024 * MIB if os.environ.get("CI") or os.environ.get("LAMELLA_FULL") else 256 * MIB
MOST = 64 * MIB
SOURCE = f"""
from lamella.stack import load

BLOCK = b"x" * 65536

def big(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        total = 0
        while block := environ["wsgi.input"].read(65536):
            total += len(block)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(total).encode()]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (BLOCK for _ in range(int(environ["QUERY_STRING"]) // len(BLOCK)))

stack = load({str(DEMO)!r}).replace("body_limit", limit="2 GiB")
application = stack.replace("dispatch", mounts={{"/big": big}})
"""
WAITRESS = "import big, sys, waitress; waitress.serve(big.application, listen=sys.argv[1], max_request_body_size=2**31)"


@pytest.fixture(params=["waitress", "gunicorn"])
def server(request: pytest.FixtureRequest, services: Any, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The demo with a larger body limit and an app for large bodies: its port, and the process that serves."""
    (tmp_path / "big.py").write_text(SOURCE)
    port = services.free_port()
    command = {
        "waitress": ["-c", WAITRESS, f"127.0.0.1:{port}"],
        "gunicorn": [
            "-m",
            "gunicorn",
            "--worker-class=gthread",
            "-t120",
            f"--bind=127.0.0.1:{port}",
            "big:application",
        ],
    }[request.param]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([DEV, str(tmp_path)]),
        "LAMELLA_DEMO_DB": str(tmp_path / "notes.sqlite3"),
        "TMPDIR": str(tmp_path),
    }
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, *command], env=environment, stdout=file, stderr=file)
    try:
        services.wait_for(lambda: process.poll() is not None or services.listens(port), "the server")
        assert process.poll() is None, log.read_text()
        exchange(port, b"GET /big/?65536 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield port, int(children[0]) if children else process.pid
    finally:
        process.terminate()
        process.wait(timeout=20)


def exchange(port: int, head: bytes, upload: int = 0) -> tuple[bytes, int]:
    """Send a request, with *upload* bytes of content; return the first bytes of the answer, and how many there were."""
    block = bytes(MIB)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(head)
        for _ in range(upload // MIB):
            client.sendall(block)
        start, total = b"", 0
        buffer = bytearray(MIB)
        while count := client.recv_into(buffer):
            total += count
            if len(start) < 4096:
                start += buffer[:count]
    return bytes(start), total


def memory(pid: int, field: str) -> int:
    """Bytes of a process in memory: now (``VmRSS``), or at most (``VmHWM``)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


@pytest.mark.server
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from Linux' /proc"
)
def test_a_large_body_needs_no_memory(server: tuple[int, int]) -> None:
    """Down and up through every layer: the process's peak stays under 64 MiB above what it has at rest."""
    port, pid = server
    idle = memory(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted anew

    _, received = exchange(port, f"GET /big/?{TOTAL} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    after_download = memory(pid, "VmHWM") - idle
    fields = f"Host: localhost\r\nOrigin: http://localhost\r\nConnection: close\r\nContent-Length: {TOTAL}\r\n\r\n"
    answer, _ = exchange(port, f"POST /big/ HTTP/1.1\r\n{fields}".encode(), TOTAL)
    after_upload = memory(pid, "VmHWM") - idle

    assert received >= TOTAL
    assert str(TOTAL).encode() in answer
    assert (after_download < MOST, after_upload < MOST) == (True, True), (after_download, after_upload)
