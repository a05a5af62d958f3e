"""A session behind gunicorn: four workers, and a signing key that changes while requests run."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

# In continuous integration, 10,000 on the store that most will use first.
FULL = {"sqlite": 10_000, "redis": 3_000, "cookie": 3_000} if os.environ.get("LAMELLA_FULL") else {}
CLIENTS = 8
OLD, NEW = "old-key-0123456789abcdefghijklmnopqrstuv", "new-key-0123456789abcdefghijklmnopqrstuv"
APP = """
import pathlib
from lamella.middleware.session import SessionMiddleware

def app(environ, start_response):
    session = environ["lamella.session"]
    session["n"] = session.get("n", 0) + 1
    body = str(session["n"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

here = pathlib.Path(__file__).parent
application = SessionMiddleware(
    app, secret=(here / "keys").read_text().split(), store=(here / "store").read_text(), secure=False
)
"""


class Client(threading.Thread):
    """One browser: counts in its session, and notes where the count is not the next number."""

    def __init__(self, port: int, requests: int) -> None:
        super().__init__()
        self._port = port
        self._requests = requests
        self.done = 0
        self.lost: list[str] = []

    def run(self) -> None:
        cookie = ""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while self.done < self._requests:
            try:
                connection.request("GET", "/", headers={"Cookie": cookie} if cookie else {})
                answer = connection.getresponse()
                body = answer.read()
            except (http.client.HTTPException, OSError):  # a worker that stops closes its idle connections
                connection.close()
                time.sleep(0.01)
                continue
            if sent := answer.headers.get("Set-Cookie"):
                cookie = sent.partition(";")[0]
            self.done += 1
            if int(body) < self.done:
                self.lost.append(f"request {self.done} saw {body!r}")
        connection.close()


@pytest.mark.server
@pytest.mark.parametrize("kind", ["cookie", "sqlite", "redis"])
def test_no_session_is_lost_while_the_key_changes(
    kind: str, tmp_path: Path, services: Any, request: pytest.FixtureRequest
) -> None:
    """Workers with the old key and with the new one serve side by side; the count of each browser goes on."""
    requests = FULL.get(kind, 480)
    store = "cookie" if kind == "cookie" else f"sqlite:///{tmp_path}/sessions.db"
    if kind == "redis":
        store = request.getfixturevalue("redis_url")
    (tmp_path / "served.py").write_text(APP)
    (tmp_path / "store").write_text(store)
    # First all workers learn to verify with the new key, then it signs.
    (tmp_path / "keys").write_text(f"{OLD}\n{NEW}")
    port = services.free_port()
    command = [sys.executable, "-m", "gunicorn", "-w", "4", "-k", "gthread", "--threads", "2"]
    command += ["-b", f"127.0.0.1:{port}", "--no-control-socket", "--graceful-timeout", "5", "served:application"]
    if (
        "--no-control-socket"
        not in subprocess.run([*command[:3], "--help"], capture_output=True, text=True, check=True).stdout
    ):
        command.remove("--no-control-socket")
    with services.running(command, port, cwd=tmp_path) as server:
        clients = [Client(port, requests // CLIENTS) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        while sum(client.done for client in clients) < requests // 3:
            time.sleep(0.01)
        (tmp_path / "keys").write_text(f"{NEW}\n{OLD}")
        server.send_signal(signal.SIGHUP)
        for client in clients:
            client.join(240)

    assert [client.lost for client in clients] == [[]] * CLIENTS
    assert [client.done for client in clients] == [requests // CLIENTS] * CLIENTS
