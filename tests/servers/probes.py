"""What is tried on every server, in HTTP/1.1 written by hand, so that nothing repairs what a server does.

Each probe returns a word; ``docs/servers.md`` has the words that are expected.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

__all__ = ["PROBES", "Answer", "Connection", "fetch"]


class Answer:
    """One answer.

    Attributes:
        status: The code; 0 where none came.
        headers: Names in lower case, values of equal names joined.
        body: What came of it.
        end: How it ended: ``length``, ``chunked``, ``closed`` (the end is the connection's), ``none`` (an answer
            without a body), ``cut`` (less than was announced) or ``hangs``.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.end = "cut"

    def __repr__(self) -> str:
        return f"<{self.status} {self.end} {self.body[:60]!r} {self.headers}>"


class Connection:
    """One connection.

    Args:
        port: Of a server on this machine.
        seconds: How long to wait for the next byte.
    """

    def __init__(self, port: int, seconds: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self._rest = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def request(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> None:
        """Send a request; Host and Content-Length are added."""
        lines = [f"{method} {target} HTTP/1.1", "Host: probe.example", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def _more(self) -> bool:
        """Read once; False at the end of the connection."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return False
        self._rest += data
        return bool(data)

    def _line(self) -> bytes | None:
        while b"\r\n" not in self._rest:
            if not self._more():
                return None
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def _exactly(self, count: int) -> bytes:
        while len(self._rest) < count and self._more():
            pass
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def read(self, *, method: str = "GET") -> Answer:
        """Read one answer; interim ones are skipped."""
        answer = Answer()
        try:
            self._read(answer, method)
        except TimeoutError:
            answer.end = "hangs"
        return answer

    def _read(self, answer: Answer, method: str) -> None:
        line = self._line()
        if line is None:
            return
        words = line.split(b" ", 2)
        if len(words) < 2 or not words[1].isdigit():
            answer.body = line + b"\r\n" + self._rest
            return
        answer.status = int(words[1])
        while field := self._line():
            name, _, value = field.decode("latin-1").partition(":")
            name, value = name.strip().lower(), value.strip()
            answer.headers[name] = f"{answer.headers[name]}, {value}" if name in answer.headers else value
        if answer.status == 100:
            answer.headers.clear()
            self._read(answer, method)
            return
        if method == "HEAD" or answer.status in (204, 304):
            answer.end = "none"
        elif "chunked" in answer.headers.get("transfer-encoding", "").lower():
            self._read_chunks(answer)
        elif "content-length" in answer.headers:
            length = int(answer.headers["content-length"])
            answer.body = self._exactly(length)
            answer.end = "length" if len(answer.body) == length else "cut"
        else:
            while self._more():
                answer.body, self._rest = answer.body + self._rest, b""
            answer.body, self._rest = answer.body + self._rest, b""
            answer.end = "closed"

    def _read_chunks(self, answer: Answer) -> None:
        while True:
            line = self._line()
            if line is None:
                return
            size = int(line.split(b";")[0], 16)
            if size == 0:
                while self._line():
                    pass
                answer.end = "chunked"
                return
            answer.body += self._exactly(size)
            self._line()

    def read_some(self, seconds: float) -> bytes:
        """Read what comes within a time; empty where nothing does."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(65536)
        except (TimeoutError, ConnectionError):
            return b""
        finally:
            self.socket.settimeout(before)

    def left_over(self, seconds: float = 0.05) -> bytes:
        """Read what came after an answer."""
        return self.read_some(seconds)


def fetch(port: int, target: str, *headers: str, method: str = "GET", body: bytes = b"", **options: Any) -> Answer:
    """Send one request on a connection of its own, to be closed after the answer."""
    with Connection(port, **options) as connection:
        connection.request(target, "Connection: close", *headers, method=method, body=body)
        return connection.read(method=method)


def until(true: Any, seconds: float = 2.0) -> bool:
    """Wait for something that the server does."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# --- the probes ---------------------------------------------------------------------------------

Probe = Callable[[int], str]
PROBES: dict[str, Probe] = {}


def probe(name: str) -> Callable[[Probe], Probe]:
    """Give a probe the name that its row in the table has."""

    def named(function: Probe) -> Probe:
        PROBES[name] = function
        return function

    return named


def seen(port: int, target: str = "/seen") -> dict[str, Any]:
    """What the app noted."""
    found: dict[str, Any] = json.loads(fetch(port, target).body)
    return found


def verdict(answer: Answer, status: int, body: bytes | None = None) -> str:
    """``ok``, or what came instead."""
    if answer.status == status and (body is None or answer.body == body) and answer.end not in ("cut", "hangs"):
        return "ok"
    return f"{answer.status} {answer.end} {answer.body[:40]!r}"


def _without_body(port: int, target: str, status: int, method: str = "GET", length: str | None = None) -> str:
    """Nothing may follow the headers, or the next answer is out of step."""
    with Connection(port) as connection:
        connection.request(target, method=method)
        answer = connection.read(method=method)
        rest = connection.left_over()
    if answer.status != status or rest:
        return f"{answer!r} then {rest[:40]!r}"
    found = answer.headers.get("content-length")
    return "ok" if found == length else f"Content-Length: {found}"


@probe("HEAD has a length and no body")
def head(port: int) -> str:
    return _without_body(port, "/length", 200, "HEAD", "5")


@probe("204 and 304 have no body")
def bodiless(port: int) -> str:
    first = _without_body(port, "/no/content", 204)
    second = _without_body(port, "/not/modified", 304)
    return first if first != "ok" else second


@probe("connections are kept")
def kept(port: int) -> str:
    with Connection(port) as connection:
        for _ in range(3):
            connection.request("/length")
            answer = connection.read()
            if answer.status == 0:
                return "no"
            if answer.body != b"hello":
                return repr(answer)
    return "yes"


@probe("pipelined requests")
def pipelined(port: int) -> str:
    one = "GET /length HTTP/1.1\r\nHost: probe.example\r\n\r\n"
    with Connection(port) as connection:
        connection.send((one + one.replace("/length", "/refuse")).encode())
        answers = [connection.read().status, connection.read().status]
    return {(200, 403): "both", (200, 0): "first"}.get((answers[0], answers[1]), repr(answers))


@probe("a request in chunks")
def chunked_in(port: int) -> str:
    with Connection(port) as connection:
        connection.request("/echo", "Transfer-Encoding: chunked", "Connection: close", method="POST")
        connection.send(b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nX-Trailer: 1\r\n\r\n")
        answer = connection.read()
    return "411" if answer.status == 411 else verdict(answer, 200, b"hello, world")


@probe("an answer of unknown length")
def chunked_out(port: int) -> str:
    with Connection(port) as connection:
        connection.request("/blocks")
        answer = connection.read()
    return answer.end if answer.body == b"onetwo" else repr(answer)


@probe("`Expect: 100-continue`")
def expect(port: int) -> str:
    with Connection(port) as connection:
        connection.request("/refuse", "Expect: 100-continue", "Content-Length: 5", method="POST")
        first = connection.read_some(10)
    if b" 100 " in first.split(b"\r\n")[0]:
        return "at once"
    if b" 403 " not in first.split(b"\r\n")[0]:
        return repr(first)
    with Connection(port) as connection:
        connection.request("/echo", "Expect: 100-continue", "Content-Length: 5", method="POST")
        first = connection.read_some(0.8)
        connection.send(b"hello")
        answer = connection.read()
    if not first:
        return "never" if answer.body == b"hello" else repr(answer)
    return "on read" if b" 100 " in first else repr(first)


@probe("an upload that is cut")
def cut_upload(port: int) -> str:
    with Connection(port) as connection:
        connection.request("/upload", "Content-Length: 1000", method="POST")
        connection.send(b"x" * 10)
        time.sleep(0.1)
    until(lambda: seen(port)["upload"] not in ("called", "not called"), 1)
    found = str(seen(port)["upload"])
    return "short read" if found.endswith(" bytes") and found != "1000 bytes" else found


@probe("a client that leaves a stream")
def left(port: int) -> str:
    before = seen(port)["closed"]
    with Connection(port) as connection:
        connection.request("/forever")
        connection.read_some(10)
    return "noticed" if until(lambda: seen(port)["closed"] > before, 2.5) else "not noticed"


@probe("a body shorter than its length")
def short(port: int) -> str:
    with Connection(port) as connection:
        connection.request("/short")
        answer = connection.read()
    return answer.end if answer.body in (b"four", b"") else repr(answer)


@probe("a body longer than its length")
def long(port: int) -> str:
    with Connection(port) as connection:
        connection.request("/long")
        answer = connection.read()
        rest = connection.left_over()
    return "truncated" if answer.body == b"four" and not rest else f"{answer!r} then {rest[:40]!r}"


@probe("a line break in a header of the app")
def injection(port: int) -> str:
    answer = fetch(port, "/inject")
    return "sent" if "x-evil" in answer.headers else str(answer.status)


@probe("hop-by-hop headers of the app")
def hop(port: int) -> str:
    answer = fetch(port, "/hop")
    if answer.headers.get("keep-alive") == "x" or "chunked" in answer.headers.get("transfer-encoding", ""):
        return "sent"
    return "dropped" if answer.body == b"ok" else repr(answer)


def _environ(port: int, *headers: str, target: str = "/environ") -> dict[str, str]:
    answer = fetch(port, target, *headers)
    return json.loads(answer.body) if answer.status == 200 else {"status": str(answer.status)}


@probe("`X_Name: b` beside `X-Name: a`")
def underscore(port: int) -> str:
    return _environ(port, "X-Name: a", "X_Name: b").get("HTTP_X_NAME", "none").replace(", ", ",")


@probe("`X-Name: a` twice")
def twice(port: int) -> str:
    return _environ(port, "X-Name: a", "X-Name: b").get("HTTP_X_NAME", "none").replace(", ", ",")


@probe("`GET http://host/path`")
def absolute(port: int) -> str:
    found = _environ(port, target="http://other.example/environ")
    return "ok" if found.get("PATH_INFO") == "/environ" else found.get("status", repr(found.get("PATH_INFO")))


@probe("`REMOTE_USER` from the process")
def remote_user(port: int) -> str:
    return _environ(port).get("REMOTE_USER", "removed")


@probe("an exception before the first byte")
def early(port: int) -> str:
    answer = fetch(port, "/raise")
    return "500" if answer.status == 500 and answer.headers.get("x-request-id") and answer.body else repr(answer)


@probe("an exception after the first byte")
def late(port: int) -> str:
    with Connection(port) as connection:
        connection.request("/raise/late")
        answer = connection.read()
    return {"chunked": "looks whole", "closed": "looks whole"}.get(answer.end, answer.end)


@probe("the same with a length")
def late_with_length(port: int) -> str:
    with Connection(port) as connection:
        connection.request("/raise/length")
        return connection.read().end


@probe("`write()`")
def write(port: int) -> str:
    return "ok" if fetch(port, "/write").body == b"onetwo" else "lost"


@probe("length and chunks at once")
def smuggled(port: int) -> str:
    with Connection(port) as connection:
        connection.request("/echo", "Content-Length: 4", "Transfer-Encoding: chunked", method="POST")
        connection.send(b"0\r\n\r\n")
        return str(connection.read().status)


@probe("hostile paths")
def hostile(port: int) -> str:
    found = {target: fetch(port, target).status for target in ("/a//b", "/a/../b", "/%ff", "/a%00b", "/a%5cb")}
    others = {target: status for target, status in found.items() if status != 400}
    return ", ".join(f"`{target}` {status}" for target, status in others.items()) or "400"


@probe("a request without Host")
def no_host(port: int) -> str:
    with Connection(port) as connection:
        connection.send(b"GET /length HTTP/1.1\r\nConnection: close\r\n\r\n")
        return str(connection.read().status)


@probe("a static file")
def static(port: int) -> str:
    whole = fetch(port, "/files/hello.txt")
    part = fetch(port, "/files/hello.txt", "Range: bytes=0-4")
    same = fetch(port, "/files/hello.txt", f"If-None-Match: {whole.headers.get('etag')}")
    found = (whole.body, part.status, part.body, same.status)
    return "ok" if found == (b"hello, file\n", 206, b"hello", 304) else repr(found)


@probe("FastAPI: startup, threads, uploads")
def asgi(port: int) -> str:
    sync = fetch(port, "/asgi/sync")
    echo = fetch(port, "/asgi/echo", method="POST", body=b"x" * 100_000)
    error = fetch(port, "/asgi/raise")
    found = (sync.body, len(echo.body), error.status, seen(port, "/asgi/seen")["started"])
    return "ok" if found == (b'{"url":"/asgi/sync"}', 100_000, 500, 1) else repr(found)


@probe("FastAPI: a client that leaves a stream")
def asgi_left(port: int) -> str:
    before = seen(port, "/asgi/seen")["cancelled"]
    with Connection(port) as connection:
        connection.request("/asgi/forever")
        connection.read_some(10)
    return "noticed" if until(lambda: seen(port, "/asgi/seen")["cancelled"] > before, 2.5) else "not noticed"


@probe("the demo")
def demo(port: int) -> str:
    page = fetch(port, "/demo/")
    notes = fetch(port, "/demo/api/notes")
    legacy = fetch(port, "/demo/legacy/")
    missing = fetch(port, "/demo/no/such/page")
    found = (page.status, b"<html" in page.body.lower(), notes.status, legacy.status, missing.status)
    return "ok" if found == (200, True, 200, 200, 404) else repr(found)


@probe("SIGTERM while a request is answered")
def last_request(port: int) -> str:
    """Run last, and a SIGTERM is sent meanwhile."""
    return verdict(fetch(port, "/slow"), 200, b"done")
