"""Every server, by ``lamella run --server``: what it does is what the table in ``docs/servers.md`` says."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("servers")]

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "docs" / "servers.md"
#: Column of the table: words after ``lamella run``.
SERVERS = {
    "waitress": ["--server", "waitress"],
    "gunicorn sync": ["--server", "gunicorn", "--threads", "1"],
    "gunicorn gthread": ["--server", "gunicorn"],
    "gunicorn --preload": ["--server", "gunicorn"],
    "gunicorn gevent": ["--server", "gevent"],
    "granian": ["--server", "granian"],
    "uWSGI": ["--server", "uwsgi"],
    "cheroot": ["--server", "cheroot"],
    "wsgiref": ["--server", "wsgiref"],
    "uvicorn": ["--server", "uvicorn"],
}
STOP = "SIGTERM while a request is answered"


def _module(name: str) -> Any:
    """A module beside this one; tests are no package."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


probes = _module("probes")
PROBES = probes.PROBES


def table() -> dict[str, dict[str, str]]:
    """The rows of the table of differences: probe, then server, then word."""
    text = TABLE.read_text(encoding="utf-8").partition("<!-- differences -->")[2].partition("<!-- /differences -->")[0]
    lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.strip().splitlines()]
    names = lines[0][1:]
    return {line[0]: dict(zip(names, line[1:], strict=True)) for line in lines[2:]}


def _missing(server: str) -> str | None:
    """Why a server cannot be started here."""
    package = {"uWSGI": "", "gunicorn gevent": "gevent", "wsgiref": ""}.get(server, server.partition(" ")[0])
    if package and importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if server == "uWSGI":
        beside = os.path.dirname(sys.executable)
        if not (shutil.which("uwsgi", path=beside) or shutil.which("uwsgi")):
            return "uwsgi is not installed"
    return None


class Running:
    """One server, started as a person would, and what was seen of it."""

    def __init__(self, server: str, folder: Path, port: int) -> None:
        self.server = server
        self.port = port
        self.words: dict[str, str] = {}
        self.exit_code: int | None = None
        self._log = folder / "server.log"
        self._started = folder / "slow.started"
        path = next(one for one in sys.path if (Path(one) / "lamella" / "middleware").is_dir())
        variables = {**os.environ, "PYTHONPATH": path, "REMOTE_USER": "root", "PYTHONWARNINGS": "ignore"}
        if "--preload" in server:
            variables["GUNICORN_CMD_ARGS"] = "--preload"
        code = "from lamella.stack.cli import main; main()"
        bind = f"127.0.0.1:{port}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, "run", "stack.toml", "--bind", bind, *SERVERS[server]],
                cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def log(self) -> str:
        """What it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def look(self) -> None:
        """Try every probe, then stop it."""
        try:
            self._wait()
            for name, probe in PROBES.items():
                if name != STOP:
                    self.words[name] = self._try(probe)
            self.words[STOP] = self._stop()
        except Exception as error:  # the tests of this server say so
            self.words.setdefault(STOP, f"{type(error).__name__}: {error}")
        finally:
            if self._process.poll() is None:
                self._process.kill()
            self.exit_code = self._process.wait()

    def _try(self, probe: Any) -> str:
        try:
            return str(probe(self.port))
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def _wait(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if probes.fetch(self.port, "/length").status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("it does not answer")

    def _stop(self) -> str:
        """Send SIGTERM in the middle of a request."""
        words: list[str] = []
        client = threading.Thread(target=lambda: words.append(self._try(PROBES[STOP])))
        client.start()
        probes.until(self._started.exists, 20)
        self._process.send_signal(signal.SIGTERM)
        client.join()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            return "goes on"
        return "it is finished" if words == ["ok"] else f"{words}"


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, services: Any) -> dict[str, Running]:
    """All servers that are installed, at the same time, and everything that was seen of each."""
    started = {}
    for server in SERVERS:
        if _missing(server) is None:
            folder = tmp_path_factory.mktemp("server") / "site"
            shutil.copytree(HERE / "served", folder, ignore=shutil.ignore_patterns("__pycache__"))
            started[server] = Running(server, folder, services.free_port())
    threads = [threading.Thread(target=one.look) for one in started.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return started


def running(fleet: dict[str, Running], server: str) -> Running:
    """A server of the fleet; skipped where it is not installed, which in continuous integration is a failure."""
    why = _missing(server)
    if why is not None:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return fleet[server]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("probe", PROBES)
def test_each_server_does_what_the_table_says(fleet: dict[str, Running], server: str, probe: str) -> None:
    """One cell of the table."""
    found = running(fleet, server)

    assert found.words.get(probe, found.words[STOP]) == table()[probe][server], found.log[-2000:]


def test_the_table_has_these_rows_and_columns() -> None:
    """No row without a probe, no server without a column."""
    rows = table()

    assert list(rows) == list(PROBES)
    assert all(list(row) == list(SERVERS) for row in rows.values())


@pytest.mark.parametrize("server", SERVERS)
def test_an_asgi_app_is_shut_down_with_its_server(fleet: dict[str, Running], server: str) -> None:
    """Its lifespan ends in every worker process, whichever way that leaves; threads can be used even then."""
    found = running(fleet, server)

    assert found.log.count("lifespan: shut down") == 1
    assert found.exit_code in (0, -signal.SIGTERM)


@pytest.mark.parametrize("server", ["gunicorn sync", "granian", "uWSGI", "uvicorn"])
def test_the_command_is_shown(fleet: dict[str, Running], server: str) -> None:
    """What was started can be typed."""
    found = running(fleet, server)

    line = next(line for line in found.log.splitlines() if line.startswith("$ "))
    assert server.partition(" ")[0].lower() in line
    assert "PYTHONPATH=" in line
