"""An application that does, on request, what servers differ in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Start = Callable[..., Any]
TEXT = ("Content-Type", "text/plain")
#: What happened in requests that nobody could be told of.
SEEN: dict[str, Any] = {"upload": "not called", "closed": 0}


def application(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    """Answer by the name in the path."""
    probe = globals().get("on_" + environ["PATH_INFO"][1:].replace("/", "_"))
    if probe is None:
        start_response("404 Not Found", [TEXT])
        return [b"no such probe"]
    answer: Iterable[bytes] = probe(environ, start_response)
    return answer


def on_length(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    return [b"hello"]


def on_no_content(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("204 No Content", [("Content-Length", "4")])
    return [b"body"]


def on_not_modified(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("304 Not Modified", [("ETag", '"x"')])
    return iter([b"body"])


def on_echo(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [TEXT, ("Content-Length", str(len(body)))])
    return [body]


def on_refuse(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("403 Forbidden", [TEXT, ("Content-Length", "2")])
    return [b"no"]


def on_upload(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    SEEN["upload"] = "called"
    try:
        SEEN["upload"] = f"{len(environ['wsgi.input'].read())} bytes"
    except OSError:
        SEEN["upload"] = "OSError"
    start_response("200 OK", [TEXT])
    return [b"ok"]


def on_seen(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    body = json.dumps(SEEN).encode()
    start_response("200 OK", [TEXT, ("Content-Length", str(len(body)))])
    return [body]


def on_environ(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    body = json.dumps({key: value for key, value in environ.items() if isinstance(value, str)}).encode()
    start_response("200 OK", [TEXT, ("Content-Length", str(len(body)))])
    return [body]


def on_blocks(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [TEXT])
    yield b"one"
    yield b"two"


class _Forever:
    """Blocks for four seconds, which for a client that left is for ever."""

    def __init__(self) -> None:
        self._until = time.monotonic() + 4

    def __iter__(self) -> _Forever:
        return self

    def __next__(self) -> bytes:
        time.sleep(0.02)
        if time.monotonic() > self._until:
            raise StopIteration
        return b"tick\n" * 200

    def close(self) -> None:
        SEEN["closed"] += 1


def on_forever(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return _Forever()


def on_slow(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    Path("slow.started").touch()
    time.sleep(0.5)
    start_response("200 OK", [TEXT, ("Content-Length", "4")])
    return [b"done"]


def on_short(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "10")])
    yield b"four"


def on_long(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "4")])
    yield b"four"
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


def on_inject(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("X-Name", "value\r\nX-Evil: yes")])
    return [b"ok"]


def on_hop(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "2"), ("Keep-Alive", "x"), ("Transfer-Encoding", "chunked")])
    return [b"ok"]


def on_raise(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    raise RuntimeError("before the first byte")


def on_raise_late(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [TEXT])
    yield b"first"
    raise RuntimeError("after the first byte")


def on_raise_length(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "10")])
    yield b"first"
    raise RuntimeError("after the first byte")


def on_write(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    write = start_response("200 OK", [TEXT])
    write(b"one")
    return [b"two"]
