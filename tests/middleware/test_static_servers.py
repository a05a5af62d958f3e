"""StaticMiddleware beside nginx, and behind servers that send files themselves."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email import message_from_bytes
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lamella.apps.static import StaticApp
from lamella.stack.testing import call, environ, lint

pytestmark = pytest.mark.server

OLD = 1_700_000_000
LETTERS = b"abcdefghijklmnopqrstuvwxyz" * 100


def program(name: str) -> str:
    """The path of a program; without it the test is skipped, and fails where everything must be there."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return found


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server accepts connections."""
    for _ in range(200):
        if process.poll() is not None:
            pytest.fail(f"the server stopped with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail("the server does not answer")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both serve."""
    root = tmp_path_factory.mktemp("tree") / "root"
    for name, content in {
        "letters.txt": LETTERS,
        "empty.txt": b"",
        "large.bin": os.urandom(300_000),
        "app.css": b"body { margin: 0 }" * 40,
        "app.css.gz": b"pretend gzip",
        "docs/index.html": b"<h1>docs</h1>",
        "caf\u00e9 x.txt": b"coffee",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (OLD, OLD))
    return root


@pytest.fixture(scope="module")
def nginx(services: Any, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real nginx on the same tree; its port."""
    binary = program("nginx")
    home = tmp_path_factory.mktemp("nginx")
    port = services.free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;"
        f"events {{}} http {{ access_log off; {temporary} types {{ text/plain txt; text/css css; text/html html; }}"
        f"default_type application/octet-stream; server {{ listen 127.0.0.1:{port}; root {tree};"
        f"absolute_redirect off; gzip_static on; gzip_vary on; }} }}"
    )
    with subprocess.Popen(
        [binary, "-p", str(home), "-c", str(home / "nginx.conf"), "-e", f"{home}/error.log"]
    ) as server:
        try:
            wait_for(port, server)
            yield port
        finally:
            server.terminate()
            server.wait(10)


Answer = tuple[int, dict[str, str], bytes]


def ask_nginx(port: int, method: str, path: str, headers: dict[str, str]) -> Answer:
    """One request on the wire."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={"Accept-Encoding": "", **headers})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def ask_ours(app: Any, method: str, path: str, headers: dict[str, str]) -> Answer:
    """The same request to ours."""
    named: dict[str, Any] = {name.replace("-", "_").lower(): value for name, value in headers.items()}
    response = call(app, environ(method, path, accept_encoding=named.pop("accept_encoding", ""), **named))
    return response.code, {name.lower(): value for name, value in response.headers}, response.body


def comparable(answer: Answer) -> tuple[Any, ...]:
    """Status, content and what describes it; the texts of errors, boundaries and charsets are each one's own."""
    status, headers, body = answer
    content: Any = body if status in (200, 206) else None
    kind = headers.get("content-type", "")
    length = headers.get("content-length") if status in (200, 206) else None
    if kind.startswith("multipart/byteranges"):
        message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        content = [(part["Content-Range"], part.get_payload(decode=True)) for part in message.walk()][1:]
        kind, length = "multipart/byteranges", None
    names = ["content-range", "last-modified", "location", "content-encoding"]
    if status in (412, 416, 405, 404, 301):
        kind = ""
        names = ["content-range", "location"]
    return status, content, kind.partition(";")[0], length, *(headers.get(name) for name in names)


ETAG = "$ETAG"
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
LATER = "Tue, 14 Nov 2023 22:13:21 GMT"
EARLIER = "Tue, 14 Nov 2023 22:13:19 GMT"
CASES: list[tuple[str, str, dict[str, str]]] = [
    ("GET", "/letters.txt", {}),
    ("HEAD", "/letters.txt", {}),
    ("GET", "/empty.txt", {}),
    ("GET", "/large.bin", {}),
    ("GET", "/caf%C3%A9%20x.txt", {}),
    ("GET", "/docs/", {}),
    ("GET", "/docs", {}),
    ("GET", "/docs?a=b", {}),
    ("GET", "/nothing", {}),
    ("GET", "/letters.txt/", {}),
    ("POST", "/letters.txt", {}),
    ("DELETE", "/letters.txt", {}),
    ("GET", "/app.css", {"Accept-Encoding": "gzip"}),
    ("GET", "/app.css", {"Accept-Encoding": "gzip", "Range": "bytes=2-5"}),
    *(
        ("GET", path, {"Range": "bytes=" + spec})
        for path in ("/letters.txt", "/large.bin")
        for spec in (
            "0-0", "0-4", "5-", "-1", "-9999999999", "0-99999999999", "2599-", "2599-2599", "300000-", "-0",
            "0-4,6-9", "20-25,0-4", "0-4,0-4", "0-4, -5", "0-0,400000-", "400000-,500000-",
            "5-4", "a-b", "", "-", "0-1;2-3", "0-4,x-y", ",", "0-1 2-3", "+0-4",
            "0-,0-,0-", "0-1,2-3,4-5,6-7",
        )
    ),
    ("GET", "/empty.txt", {"Range": "bytes=0-0"}),
    ("GET", "/empty.txt", {"Range": "bytes=-5"}),
    ("GET", "/letters.txt", {"Range": "items=0-4"}),
    ("GET", "/letters.txt", {"Range": "BYTES=0-4"}),
    *(
        ("GET", "/letters.txt", {"Range": "bytes=0-4", "If-Range": value})
        for value in (ETAG, "W/" + ETAG, '"other"', DATE, LATER, EARLIER, "nonsense")
    ),
    *(
        (method, "/letters.txt", {name: value})
        for method in ("GET", "HEAD")
        for name in ("If-None-Match", "If-Match")
        for value in (ETAG, '"other"', "*", f'"other", {ETAG}', "W/" + ETAG, '"a","b"')
    ),
    *(
        ("GET", "/letters.txt", {name: value})
        for name in ("If-Modified-Since", "If-Unmodified-Since")
        for value in (DATE, LATER, EARLIER, "nonsense")
    ),
    ("GET", "/letters.txt", {"If-None-Match": ETAG, "If-Modified-Since": EARLIER}),
    ("GET", "/letters.txt", {"If-None-Match": '"other"', "If-Modified-Since": LATER}),
    ("GET", "/letters.txt", {"If-Match": '"other"', "If-None-Match": ETAG}),
    ("GET", "/letters.txt", {"If-None-Match": ETAG, "Range": "bytes=0-4"}),
    ("GET", "/letters.txt", {"If-Match": '"other"', "Range": "bytes=0-4"}),
]  # fmt: skip

#: Where ours differs on purpose; docs/layers/static.md explains each.
DIFFERENCES = {
    "GET /app.css {'Accept-Encoding': 'gzip', 'Range': 'bytes=2-5'}": "nginx cuts no ranges from a .gz sibling",
    f"GET /letters.txt {{'If-Modified-Since': '{LATER}'}}": "nginx wants the exact date; RFC 9110 section 13.1.3",
    "GET /letters.txt {'If-Unmodified-Since': 'nonsense'}": "no date, so ignored; RFC 9110 section 13.1.4",
    f"GET /letters.txt {{'If-None-Match': '{ETAG}', 'If-Modified-Since': '{EARLIER}'}}": "the tag decides; 13.2.2",
}


def test_answers_like_nginx(nginx: int, tree: Path) -> None:
    """The same status, content and range headers for every request of the table."""
    app = lint(StaticApp(root=tree, mode="immutable"))
    differing = {}
    for method, path, headers in CASES:
        answers = []
        for ask in (partial(ask_nginx, nginx), partial(ask_ours, app)):
            tag = ask("GET", path, {})[1].get("etag", '"none"')
            own = {name: value.replace(ETAG, tag) for name, value in headers.items()}
            answers.append(comparable(ask(method, path, own)))
        if answers[0] != answers[1]:
            differing[f"{method} {path} {headers}"] = answers

    assert {name: pair for name, pair in differing.items() if name not in DIFFERENCES} == {}
    assert set(DIFFERENCES) == set(differing), "a listed difference is none any more"


SERVED = """
from lamella.apps.static import StaticApp
from lamella.middleware.access_log import AccessLogMiddleware

application = AccessLogMiddleware(StaticApp(root={root!r}), output={log!r})
"""


@pytest.fixture
def module(tree: Path, tmp_path: Path) -> Path:
    """A module that serves the tree, with the access log outside."""
    path = tmp_path / "served.py"
    path.write_text(SERVED.format(root=str(tree), log=str(tmp_path / "access.log")))
    return path


def test_gunicorn_sends_large_files_with_sendfile(services: Any, module: Path, tree: Path, tmp_path: Path) -> None:
    """Seen in the system calls, with the access log around the layer."""
    strace = program("strace")
    traced = tmp_path / "strace.log"
    port = services.free_port()
    command = [strace, "-f", "-e", "trace=sendfile,sendfile64", "-o", str(traced), sys.executable, "-m", "gunicorn"]
    command += ["-b", f"127.0.0.1:{port}", "--no-control-socket", "--chdir", str(module.parent), "served:application"]
    python_path = os.pathsep.join(path for path in sys.path if path)
    log = (tmp_path / "gunicorn.log").open("wb")
    with log, subprocess.Popen(command, env={**os.environ, "PYTHONPATH": python_path}, stderr=log) as server:
        try:
            wait_for(port, server)
            status, headers, body = ask_nginx(port, "GET", "/large.bin", {})
        finally:
            for child in _children(server.pid):
                os.kill(child, 15)
            server.wait(15)

    assert (status, len(body), headers["content-length"]) == (200, 300_000, "300000")
    assert body == (tree / "large.bin").read_bytes()
    assert "sendfile(" in traced.read_text()


def test_small_files_never_wait_behind_uwsgi(services: Any, module: Path) -> None:
    """On a kept connection a wrapped file leaves in two packets: the second waits 40 ms for an acknowledgement."""
    beside = Path(sys.executable).with_name("uwsgi")
    binary = str(beside) if beside.exists() else program("uwsgi")
    port = services.free_port()
    command = [binary, "--http11-socket", f"127.0.0.1:{port}", "--master", "--die-on-term", "--need-app"]
    command += ["--disable-logging", "--chdir", str(module.parent), "--module", "served:application"]
    if sys.prefix != sys.base_prefix:
        command += ["--virtualenv", sys.prefix]
    python_path = os.pathsep.join(path for path in sys.path if path)
    variables = {**os.environ, "PYTHONPATH": python_path}
    taken = []
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(port, server)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            for _ in range(21):
                begun = time.monotonic()
                connection.request("GET", "/letters.txt")
                assert connection.getresponse().read() == LETTERS
                taken.append(time.monotonic() - begun)
            connection.close()
        finally:
            server.terminate()
            server.wait(15)

    assert sorted(taken)[10] < 0.03


def _children(pid: int) -> list[int]:
    """The processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.parametrize("path", ["/large.bin", "/letters.txt", "/empty.txt"])
def test_waitress_sends_files_and_ranges(services: Any, tree: Path, path: str) -> None:
    """Through its own file buffer, on one kept connection."""
    content = (tree / path[1:]).read_bytes()
    with services.waitress(StaticApp(root=tree)) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for headers, expected in (({}, content), ({"Range": "bytes=3-280000"}, content[3:280001]), ({}, content)):
            connection.request("GET", path, headers=headers)
            assert connection.getresponse().read() == expected
        connection.close()
