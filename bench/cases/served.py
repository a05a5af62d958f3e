"""Behind real servers, driven by wrk: processor time of the server for each request.

One server process, one request kind: a session of which one key is read. Requests per second depend on
what else the machine does; the server's processor time does less so.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import scene
from driver import BENCH, Effort, Result, Results, variables
from measure import Group

APPS = {
    "bare application": "cases.served:bare",
    "lamella": "cases.served:lamella",
    "Falcon": "cases.served:falcon",
    "Flask": "cases.served:flask",
}
FILE_APPS = {
    "lamella": "cases.served:lamella_files",
    "WhiteNoise": "cases.served:whitenoise_files",
}
SERVERS = ("granian", "gunicorn", "waitress")
_BIG = 10 * 2**20

GROUPS = [
    Group(
        "served",
        "Served: the server's processor time for each request, session read",
        {name: dict.fromkeys(SERVERS) for name in APPS},  # type: ignore[misc]
        "bare application",
    ),
    Group(
        "served-files",
        "Served: the server's processor time for each file",
        {
            name: {
                f"{server}, {size}": None
                for server in ((*SERVERS, "nginx") if name == "nginx" else SERVERS)
                for size in ("1 KB", "10 MB")
            }
            for name in (*FILE_APPS, "nginx")
        },  # type: ignore[misc]
        "lamella",
        note="nginx, with sendfile, is the ceiling.",
    ),
]


# --- the applications, made when a server asks for them -----------------------------------------


def __getattr__(name: str) -> Any:
    folder = Path(os.environ.get("BENCH_FOLDER", "."))
    from importlib import import_module

    if name == "bare":
        from cases.layers import bare

        return bare
    if name in ("lamella", "falcon", "flask"):
        return import_module(f"peers.{name}_stack").make(folder)
    if name == "lamella_files":
        from cases.layers import bare
        from lamella.middleware.static import StaticMiddleware

        return StaticMiddleware(bare, root=folder / "static", prefix="/static")
    if name == "whitenoise_files":
        from whitenoise import WhiteNoise

        from cases.layers import bare

        return WhiteNoise(bare, root=str(folder / "static"), prefix="/static/")
    raise AttributeError(name)


# --- servers ------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(server: str, app: str, port: int) -> list[str]:
    bin = Path(sys.executable).parent
    if server == "gunicorn":
        return [str(bin / "gunicorn"), "-b", f"127.0.0.1:{port}", "-w", "1", "-k", "gthread", "--threads", "4",
                "--log-level", "error", "--chdir", str(BENCH), app]  # fmt: skip
    if server == "granian":
        return [str(bin / "granian"), "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port),
                "--workers", "1", "--no-ws", "--log-level", "error", app]  # fmt: skip
    return [str(bin / "waitress-serve"), "--listen", f"127.0.0.1:{port}", "--threads", "4", app]


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


def _serve(stack: ExitStack, command: list[str], port: int, folder: Path) -> int:
    process = subprocess.Popen(
        command, cwd=BENCH, env={**variables(), "BENCH_FOLDER": str(folder)},
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
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process.pid
        except OSError:
            if process.poll() is not None:
                raise SystemExit(f"the server ended: {' '.join(command)}") from None
            time.sleep(0.05)
    raise SystemExit(f"the server does not answer: {' '.join(command)}")


def _load(pid: int, url: str, seconds: float, headers: dict[str, str]) -> tuple[float, int]:
    """Drive the server with wrk; return its processor seconds and the number of requests."""
    fields = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    before = _processor_seconds(pid)
    done = subprocess.run(
        ["wrk", "-t1", "-c8", f"-d{seconds:.0f}s", *fields, url], capture_output=True, text=True, check=True
    )
    spent = _processor_seconds(pid) - before
    lines = done.stdout.splitlines()
    if any("Non-2xx" in line for line in lines):
        raise SystemExit(f"{url}: not 200\n{done.stdout}")
    number = next(int(line.split()[0]) for line in lines if " requests in " in line)
    return spent, number


def _cookie(port: int) -> str:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/app/write/bob", headers={"Authorization": scene.CREDENTIALS, "Origin": scene.ORIGIN})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return (answer.getheader("Set-Cookie") or "").partition(";")[0]


def run(group: Group, effort: Effort) -> Results:
    """Measure a group; empty without wrk."""
    if shutil.which("wrk") is None:
        print("wrk is not installed: nothing is measured behind servers", file=sys.stderr)
        return {}
    seconds, rounds = (2.0, 2) if effort.all else (1.0, 1)
    return (_requests if group.name == "served" else _files)(seconds, rounds)


def _requests(seconds: float, rounds: int) -> Results:
    samples: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for server in SERVERS:
            for name, app in APPS.items():
                with ExitStack() as stack:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamella-bench-")))
                    port = _free_port()
                    pid = _serve(stack, _command(server, app, port), port, folder)
                    headers = {"Authorization": scene.CREDENTIALS, "Origin": scene.ORIGIN}
                    if name != "bare application":
                        headers["Cookie"] = _cookie(port)
                    url = f"http://127.0.0.1:{port}/app/read/bob"
                    _load(pid, url, 1, headers)
                    spent, number = _load(pid, url, seconds, headers)
                    samples.setdefault((name, server), []).append(spent / number * 1e6)
    return _results(samples)


def _files(seconds: float, rounds: int) -> Results:
    samples: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for server in (*SERVERS, "nginx"):
            for name, app in FILE_APPS.items() if server != "nginx" else {"nginx": ""}.items():
                with ExitStack() as stack:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamella-bench-")))
                    scene.prepare(folder)
                    (folder / "static" / "big.bin").write_bytes(os.urandom(2**16) * (_BIG // 2**16))
                    port = _free_port()
                    if server == "nginx":
                        command = _nginx(folder, port)
                        if command is None:
                            continue
                    else:
                        command = _command(server, app, port)
                    pid = _serve(stack, command, port, folder)
                    for size, file in (("1 KB", "style.css"), ("10 MB", "big.bin")):
                        url = f"http://127.0.0.1:{port}/static/{file}"
                        _load(pid, url, 1, {})
                        spent, number = _load(pid, url, seconds, {})
                        samples.setdefault((name, f"{server}, {size}"), []).append(spent / max(number, 1) * 1e6)
    return _results(samples)


def _nginx(folder: Path, port: int) -> list[str] | None:
    """The command of an nginx of our own; None where it is not installed."""
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


def _results(samples: dict[tuple[str, str], list[float]]) -> Results:
    import statistics

    results: Results = {}
    for (name, column), times in samples.items():
        spread = max(times) - min(times)
        results.setdefault(name, {})[column] = Result(statistics.median(times), spread, 0.0)
    return results
