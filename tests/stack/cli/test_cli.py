"""The command line, called as a person calls it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DEV = next(str(folder) for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())
ENVIRONMENT = {**os.environ, "PYTHONPATH": DEV, "NO_COLOR": "1"}
COMMAND = [sys.executable, "-c", "from lamella.stack.cli import main; main()"]

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"first version"]
"""
STACK = """lamella = 1

[app]
use = "app:application"

[[layer]]
use = "edge"

[[layer]]
use = "request_id"

[[layer]]
use     = "cors"
origins = ["https://shop.example"]
when    = { paths = ["/api/*"] }
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a stack file and an app."""
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    (tmp_path / "stack.toml").write_text(STACK, encoding="utf-8")
    return tmp_path


def lamella(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


class Server:
    """``lamella run`` on a free port."""

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        self.address = f"127.0.0.1:{port}"
        self.log = folder / "server.log"
        with self.log.open("w") as log:
            command = [*COMMAND, "run", "--bind", self.address, *arguments]
            self.process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=log)
        self.wait_for("built in")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until *text* stands in the log that often."""
        deadline = time.monotonic() + 20
        while self.log.read_text().count(text) < times:
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def get(self, path: str = "/") -> str:
        """Ask for a page."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
            body: bytes = answer.read()
        return body.decode()

    def stop(self) -> int:
        """Send SIGTERM and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@pytest.fixture
def serve(services: Any) -> Iterator[Callable[..., Server]]:
    """Starts ``lamella run`` in a folder, with arguments; stops whatever was started."""
    started: list[Server] = []

    def start(folder: Path, *arguments: str) -> Server:
        started.append(Server(folder, services.free_port(), *arguments))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def test_check_is_content_with_a_good_file(project: Path) -> None:
    """It counts the layers and exits with 0."""
    done = lamella(project, "check")

    assert (done.returncode, done.stdout) == (0, "stack.toml: 3 layers\n")


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        pytest.param("lamella = 1", "lamella = ", 2, "stack.toml:1:", id="syntax"),
        pytest.param("origins", "orgins", 3, "did you mean `origins`?", id="types"),
        pytest.param('"request_id"', '"requestid"', 4, "did you mean `request_id`?", id="references"),
        pytest.param("https://shop.example", "shop.example", 6, "stack.toml:14:12: ", id="build"),
        pytest.param('"app:application"', '"app:aplication"', 4, "stack.toml:4:7: ", id="app"),
    ],
)
def test_check_exits_with_the_code_of_the_phase(project: Path, old: str, new: str, code: int, says: str) -> None:
    """One located line, on standard error, no traceback."""
    (project / "stack.toml").write_text(STACK.replace(old, new, 1), encoding="utf-8")

    done = lamella(project, "check")

    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_check_prints_json(project: Path) -> None:
    """For editors and CI."""
    (project / "stack.toml").write_text(STACK.replace("origins", "orgins"), encoding="utf-8")

    told = json.loads(lamella(project, "check", "--json").stdout)

    assert told["exit_code"] == 3
    assert {"file", "line", "column", "message", "phase"} <= set(told["problems"][0])


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """Neither a traceback nor silence."""
    for command in ("check", "show", "run", "routes"):
        done = lamella(tmp_path, command)
        assert done.returncode != 0
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_show_draws_the_pipeline(project: Path) -> None:
    """Every layer, its scope, every option with its place."""
    shown = lamella(project, "show").stdout

    assert shown.index("request_id") < shown.index("cors") < shown.index("app:application")
    assert "when paths /api/*" in shown
    assert 'origins = ["https://shop.example"]  stack.toml:14' in shown
    assert "max_age" not in shown
    assert "max_age" in lamella(project, "show", "--all").stdout


def test_show_prints_json(project: Path) -> None:
    """The same as data, defaults included."""
    told = json.loads(lamella(project, "show", "--json").stdout)

    assert [layer["id"] for layer in told["layers"]] == ["edge", "request_id", "cors"]
    assert told["layers"][2]["options"][0]["origin"] == "stack.toml:14"


def test_routes_lists_every_router(project: Path) -> None:
    """The app's own, and those of mounted apps, Flask's among them, under their prefixes."""
    (project / "app.py").write_text(
        """
from flask import Flask
from lamella.apps.router import Router

application = Router()
application.add("/notes/<int:id>", lambda request, id: "", name="note", methods=["GET", "PUT"])
old = Flask(__name__)
old.add_url_rule("/users/<name>", "user", lambda name: name)

def plain(environ, start_response):
    start_response("204 No Content", [])
    return []
""",
        encoding="utf-8",
    )
    mounts = '\n[[layer]]\nuse = "dispatch"\nmounts = { "/old" = "app:old", "/plain" = "app:plain" }\n'
    (project / "stack.toml").write_text(STACK + mounts, encoding="utf-8")

    rows = json.loads(lamella(project, "routes", "--json").stdout)
    shown = lamella(project, "routes").stdout

    told = {(row["pattern"], tuple(row["methods"])) for row in rows}
    assert {("/notes/<int:id>", ("GET", "PUT")), ("/old/users/<name>", ("GET",)), ("/plain/…", ())} <= told
    assert "/old/users/<name>" in shown


def test_what_layers_log_stays_out_of_a_command_s_output(project: Path) -> None:
    """The access log writes to standard output; a trace in JSON must stay JSON."""
    (project / "stack.toml").write_text(STACK + '\n[[layer]]\nuse = "access_log"\n', encoding="utf-8")

    done = lamella(project, "trace", "GET", "/", "--json")

    assert json.loads(done.stdout)["status"] == "200 OK"
    assert '"GET / HTTP/1.1" 200' in done.stderr


def test_a_wrong_command_gets_a_suggestion(tmp_path: Path) -> None:
    """``lamella chekc`` is a usage error, exit code 2."""
    done = lamella(tmp_path, "chekc")

    assert done.returncode == 2
    assert "did you mean 'check'?" in done.stderr


@pytest.mark.server
def test_run_serves_and_stops(project: Path, serve: Callable[..., Server]) -> None:
    """SIGTERM ends it with exit code 0."""
    server = serve(project)

    assert server.get() == "first version"
    assert server.stop() == 0


@pytest.mark.server
def test_a_request_in_flight_finishes(project: Path, serve: Callable[..., Server]) -> None:
    """A signal to stop does not cut off an answer."""
    slow = APP.replace("    return", "    import time; open('started', 'w').close(); time.sleep(0.8)\n    return")
    (project / "app.py").write_text(slow, encoding="utf-8")
    server = serve(project)
    host, port = server.address.split(":")

    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while not (project / "started").exists():
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        answer = b""
        while block := client.recv(4096):
            answer += block

    assert answer.endswith(b"first version")
    assert server.process.wait(timeout=10) == 0


@pytest.mark.server
def test_reload_keeps_the_old_stack_while_the_new_one_is_broken(project: Path, serve: Callable[..., Server]) -> None:
    """A change is taken over once it is sound; until then the old stack serves, and the reason is told."""
    server = serve(project, "--reload")
    assert server.get() == "first version"

    (project / "stack.toml").write_text(STACK + "\n[[layer]]\nuse = 'no_such_layer'\n", encoding="utf-8")
    server.wait_for("stack.toml:18:7: ")
    assert server.get() == "first version"

    (project / "app.py").write_text(APP.replace("first", "second"), encoding="utf-8")
    server.wait_for("the old stack goes on serving", 2)
    assert server.get() == "first version"

    (project / "stack.toml").write_text(STACK, encoding="utf-8")
    server.wait_for("reloaded in")
    assert server.get() == "second version"


@pytest.mark.server
def test_an_address_in_use_is_one_line(project: Path) -> None:
    """The error names the option and the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = lamella(project, "run", "--bind", f"127.0.0.1:{taken.getsockname()[1]}")

    assert done.returncode == 1
    assert done.stderr.startswith("lamella: bind: expected an address to listen on (Address already in use)")


@pytest.mark.server
def test_a_new_project_runs_and_its_tests_pass(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """``lamella new blog && cd blog && lamella run`` works at once."""
    assert lamella(tmp_path, "new", "blog").returncode == 0
    blog = tmp_path / "blog"

    checked = lamella(blog, "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=blog, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout + tested.stderr
    server = serve(blog)
    assert '"world"' in server.get("/hello/world")


def test_new_touches_nothing_that_exists(tmp_path: Path) -> None:
    """A folder with something in it is left alone."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious", encoding="utf-8")

    done = lamella(tmp_path, "new", "mine")

    assert done.returncode == 1
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]
