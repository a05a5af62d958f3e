"""Behind real servers, driven by wrk: processor time of the server for each request.

One server process, one request kind: a session of which one key is read. Requests per second depend on
what else the machine does; the server's processor time does less so.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import scene
import servers
from driver import Effort, Result, Results, progress
from measure import Group

APPS = {
    "bare application": "cases.served:bare",
    "lamella, view returns text": "cases.served:lamella_text",
    "lamella": "cases.served:lamella",
    "Falcon": "cases.served:falcon",
    "Flask": "cases.served:flask",
}
FILE_APPS = {
    "lamella": "cases.served:lamella_files",
    "WhiteNoise": "cases.served:whitenoise_files",
    "WebOb DirectoryApp": "cases.served:webob_files",
    "Werkzeug SharedData": "cases.served:werkzeug_files",
}
SIZES = {"1 KB": "style.css", "10 MB": "big.bin"}
_BIG = 10 * 2**20

GROUPS = [
    Group(
        "served",
        "Served: the server's processor time for each request, session read",
        {name: dict.fromkeys(servers.SERVERS) for name in APPS},
        "bare application",
        note="One process on a processor of its own, 16 connections of wrk on the other.",
    ),
    Group(
        "served-files",
        "Served: the server's processor time for each file",
        {
            name: {
                f"{server}, {size}": None
                for server in (("nginx",) if name == "nginx" else servers.SERVERS)
                for size in (SIZES if name in ("lamella", "WhiteNoise", "nginx") else ("10 MB",))
            }
            for name in (*FILE_APPS, "nginx")
        },
        "lamella",
        note="nginx, with sendfile, is the ceiling; granian is the one without a file wrapper.",
    ),
    Group(
        "keep-alive",
        "Served: small files on one connection to uWSGI",
        {name: {"1 KB": None} for name in ("lamella", "WhiteNoise")},
        "lamella",
        unit="ms",
        note="The time until the answer is there, not processor time. A body that goes through uWSGI's file wrapper "
        "leaves in two packets, and the second waits for the acknowledgement of the first.",
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
    if name == "lamella_text":
        return import_module("peers.lamella_stack").make(folder, "text")
    if name.endswith("_files"):
        makes = import_module("cases.static").SERVERS
        rows = {"lamella": "lamella, live", "whitenoise": "WhiteNoise", "webob": "WebOb DirectoryApp"}
        return makes[rows.get(name.removesuffix("_files"), "Werkzeug SharedData")](folder / "static")
    raise AttributeError(name)


def from_environment() -> Any:
    """The application that ``BENCH_APP`` names, for uWSGI, which knows no ``__getattr__`` of a module."""
    return __getattr__(os.environ["BENCH_APP"])


# --- measuring ----------------------------------------------------------------------------------


def run(group: Group, effort: Effort) -> Results:
    """Measure a group; empty where what it needs is not installed."""
    if group.name == "keep-alive":
        return _keep_alive(50 if effort.all else 20)
    if servers.WRK is None:
        print("wrk is not installed: nothing is measured behind servers", file=sys.stderr)
        return {}
    seconds, rounds = (2.0, 2) if effort.all else (1.0, 1)
    which = servers.SERVERS if effort.all else servers.SERVERS[:1]
    if group.name == "served":
        return _requests(which, seconds, rounds)
    return _files(group, (*which, "nginx"), seconds, rounds)


def _cookie(port: int) -> str:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/app/write/bob", headers={"Authorization": scene.CREDENTIALS, "Origin": scene.ORIGIN})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
    scene.expect(cookie.startswith("session="), answer.status)
    return cookie


def _check_served(port: int, headers: dict[str, str], log: Path) -> None:
    """Fail unless the stack behind the server answers from the session, refuses a stranger and writes its log."""
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    lines = log.read_text().count("\n")
    for sent, status in ((headers, 200), ({}, 401)):
        connection.request("GET", "/app/read/bob", headers=sent)
        answer = connection.getresponse()
        body = answer.read()
        scene.expect(answer.status == status, answer.status)
        scene.expect(status != 200 or (body.startswith(b"read ") and body[5:].isdigit()), body)
    connection.close()
    for _ in range(100):  # a server closes the body when the client has its answer already
        if log.read_text().count("\n") >= lines + 2:
            return
        time.sleep(0.02)
    raise AssertionError("a line is missing in the log")


def _requests(which: Sequence[str], seconds: float, rounds: int) -> Results:
    samples: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for server in which:
            progress(f"served: {server}, round {number + 1} of {rounds}")
            for name in random.sample(list(APPS), len(APPS)):
                with ExitStack() as stack:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamella-bench-")))
                    port = servers.free_port()
                    pid = servers.serve(stack, servers.command(server, APPS[name], port), port, folder)
                    headers = {"Authorization": scene.CREDENTIALS, "Origin": scene.ORIGIN}
                    if name != "bare application":
                        headers["Cookie"] = _cookie(port)
                        _check_served(port, headers, folder / "access.log")
                    url = f"http://127.0.0.1:{port}/app/read/bob"
                    servers.load(pid, url, 1, headers)
                    spent, requests = servers.load(pid, url, seconds, headers)
                    samples.setdefault((name, server), []).append(spent / requests * 1e6)
    return _results(samples, APPS)


def _files(group: Group, which: Sequence[str], seconds: float, rounds: int) -> Results:
    samples: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for server in which:
            progress(f"served-files: {server}, round {number + 1} of {rounds}")
            for name in random.sample(list(FILE_APPS), len(FILE_APPS)) if server != "nginx" else ["nginx"]:
                with ExitStack() as stack:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamella-bench-")))
                    scene.prepare(folder)
                    (folder / "static" / "big.bin").write_bytes(os.urandom(2**16) * (_BIG // 2**16))
                    port = servers.free_port()
                    nginx = server == "nginx"
                    words = servers.nginx(folder, port) if nginx else servers.command(server, FILE_APPS[name], port)
                    if words is None:
                        continue
                    pid = servers.serve(stack, words, port, folder)
                    for size, file in SIZES.items():
                        if f"{server}, {size}" not in group.cases[name]:
                            continue
                        content = (folder / "static" / file).read_bytes()
                        servers.keep_alive(port, f"/static/{file}", content, 1)
                        url = f"http://127.0.0.1:{port}/static/{file}"
                        if size == "1 KB":
                            servers.load(pid, url, 1, {})
                        spent, requests = servers.load(pid, url, seconds, {})
                        samples.setdefault((name, f"{server}, {size}"), []).append(spent / max(requests, 1) * 1e6)
    return _results(samples, [*FILE_APPS, "nginx"])


def _keep_alive(times: int) -> Results:
    """Fifty answers in a row on one connection, on the clock."""
    samples: dict[tuple[str, str], list[float]] = {}
    for name in ("lamella", "WhiteNoise"):
        progress(f"keep-alive: {name}")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamella-bench-")))
            scene.prepare(folder)
            port = servers.free_port()
            words = servers.uwsgi("cases.served:from_environment()", port)
            if words is None:
                print("uWSGI is not installed: small files behind it are not measured", file=sys.stderr)
                return {}
            servers.serve(stack, words, port, folder, BENCH_APP=FILE_APPS[name].partition(":")[2])
            servers.keep_alive(port, "/static/style.css", scene.STYLE, 5)
            taken = servers.keep_alive(port, "/static/style.css", scene.STYLE, times)
            samples[name, "1 KB"] = [seconds * 1e3 for seconds in taken]
    return _results(samples, ["lamella", "WhiteNoise"])


def _results(samples: dict[tuple[str, str], list[float]], rows: Any) -> Results:
    """Medians and spread, in the order of *rows*, whatever the order of measuring was."""
    results: Results = {row: {} for row in rows if any(name == row for name, _ in samples)}
    for (name, column), times in samples.items():
        first, _, third = statistics.quantiles(times, n=4) if len(times) > 3 else (min(times), 0, max(times))
        results[name][column] = Result(statistics.median(times), third - first, 0.0)
    return results
