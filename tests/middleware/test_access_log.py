"""AccessLogMiddleware: one true line for each request, whatever happens to it."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication
from wsgiref.util import FileWrapper

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.apps.router import Router
from lamella.middleware import _log_writer
from lamella.middleware._access_escape import remember
from lamella.middleware.access_log import AccessLogMiddleware
from lamella.middleware.dispatch import DispatchMiddleware
from lamella.stack import load
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import CLIENT, IDENTITY, MOUNT, REQUEST_ID, ROUTE, Client, Identity, Route
from lamella.stack.testing import RecordingApp, call, environ, lint

CLF = re.compile(
    r"(?P<client>\S+) - (?P<user>\S+) \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "
    r'"(?P<method>\S+) (?P<target>\S+) (?P<protocol>\S+)" (?P<status>\d{3}|-) (?P<bytes>\d+|-)'
    r'(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?'
)
# A request whose every field has a value, for the exact formats.
FULL: dict[str, Any] = {"user_agent": "curl/8", "referer": "https://x.example/", "REMOTE_USER": "ann"}


def also(keys: dict[str, Any]) -> dict[str, Any]:
    """Environ keys whose names are no Python names."""
    return keys


class Log:
    """A layer that logs into memory."""

    def __init__(self, app: WSGIApplication, **options: Any) -> None:
        self.stream = io.StringIO()
        options.setdefault("format", "json")
        self.app = AccessLogMiddleware(app, output=self.stream, **options)

    @property
    def lines(self) -> list[str]:
        text = self.stream.getvalue()
        assert not text or text.endswith("\n")
        return text.splitlines()

    @property
    def entry(self) -> dict[str, Any]:
        (line,) = self.lines
        found: dict[str, Any] = json.loads(line)
        return found


def test_writes_the_combined_format() -> None:
    """Every field at its place, as Apache and its readers know it."""
    log = Log(RecordingApp(body=[b"he", b"llo"]), format="combined")

    call(lint(log.app), environ("GET", "/a b?q=1", **FULL))

    match = CLF.fullmatch(log.lines[0])
    assert match is not None
    found = match.groupdict()
    assert found.pop("time")
    assert found == {
        "client": "127.0.0.1",
        "user": "ann",
        "method": "GET",
        "target": "/a%20b?q=1",
        "protocol": "HTTP/1.1",
        "status": "200",
        "bytes": "5",
        "referer": "https://x.example/",
        "agent": "curl/8",
    }


def test_writes_the_common_format() -> None:
    """The same without referrer and user agent; what is absent is a dash."""
    log = Log(RecordingApp(status="204 No Content", headers=[], body=[]), format="common")

    call(log.app, environ("DELETE", "/", REMOTE_ADDR=""))

    assert re.fullmatch(r'- - - \[[^]]+\] "DELETE / HTTP/1.1" 204 0', log.lines[0])


def test_writes_json_with_every_key() -> None:
    """A reader finds all keys in each line; null where there is nothing to say."""
    log = Log(RecordingApp())

    call(log.app, environ("GET", "/notes?page=2", mount="/app", **FULL))

    entry = log.entry
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert 0 <= entry.pop("first_byte_ms") <= entry.pop("duration_ms")
    assert entry == {
        "client": "127.0.0.1",
        "user": "ann",
        "method": "GET",
        "path": "/app/notes",
        "query": "page=2",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "aborted": False,
        "exception": None,
        "request_id": None,
        "trace_id": None,
        "mount": None,
        "route": None,
        "host": "localhost",
        "referer": "https://x.example/",
        "user_agent": "curl/8",
    }


def test_writes_logfmt() -> None:
    """Bare words stay bare, others are quoted, absent ones left out."""
    log = Log(RecordingApp(), format="logfmt", sample=0.999999999)

    call(log.app, environ("GET", "/", user_agent='a "b"'))

    line = log.lines[0]
    assert " method=GET path=/ protocol=HTTP/1.1 status=200 bytes=5 first_byte_ms=" in line
    assert line.endswith(r'host=localhost user_agent="a \"b\"" sample=1')
    assert "user=" not in line


def test_sees_what_is_established_behind_a_copied_environ() -> None:
    """Dispatch hands a copy on; user, mount, route, identifier and client from behind it are in the line."""

    def inside(request: dict[str, Any], start_response: Any) -> Any:
        copy = request.copy()
        CLIENT.set(copy, Client("https", "h.example", "203.0.113.7"))
        IDENTITY.set(copy, Identity("bob", "basic"))
        MOUNT.set(copy, "/admin")
        ROUTE.set(copy, Route("/notes/<int:id>", "note", {"id": 1}))
        REQUEST_ID.set(copy, "r-1")
        return RecordingApp()(copy, start_response)

    log = Log(inside)
    call(log.app, environ("GET", "/"))

    keys = ("client", "user", "mount", "route", "request_id")
    assert [log.entry[key] for key in keys] == ["203.0.113.7", "bob", "/admin", "/notes/<int:id>", "r-1"]


def test_names_mount_and_route_of_a_real_stack() -> None:
    """Dispatch and the router leave both where the log finds them."""
    router = Router()
    router.get("/notes/<int:id>")(lambda request, id: f"note {id}")
    log = Log(DispatchMiddleware(RecordingApp(), mounts={"/m": router}))

    call(log.app, environ("GET", "/m/notes/3"))

    assert [log.entry[key] for key in ("mount", "route", "path")] == ["/m", "/notes/<int:id>", "/m/notes/3"]


@pytest.mark.parametrize("format", ["common", "combined", "json", "logfmt"])
def test_the_line_of_what_was_seen_before_is_the_same(format: str) -> None:
    """What is remembered of a request changes nothing of the next one's line."""
    log = Log(RecordingApp(), format=format)
    request = environ("GET", "/a b?token=S3&x=\x01", user_agent='"x"', referer="/?key=S3", REMOTE_USER="a b")

    for _ in range(3):
        call(log.app, request)
    call(log.app, environ("GET", "/other"))

    # All but what tells the time.
    first, second, third, other = (re.sub(r"\[.*?\]|T[\d:.]+Z|ms\D*[\d.]+", "", line) for line in log.lines)
    assert first == second == third != other
    assert "S3" not in "".join(log.lines)


def test_keeps_no_secret_and_no_more_than_so_many_texts() -> None:
    """A memo holds a thousand texts of some length, and none in which a value was hidden."""
    known: dict[str, str] = {}

    remember(known, "token=S3", "token=***")
    remember(known, "x" * 1000, "x" * 1000)
    assert known == {}
    for number in range(3000):
        remember(known, str(number), str(number))
    assert 0 < len(known) <= 1024


@pytest.mark.parametrize(("format", "written"), [("combined", "00:01:40 +0000]"), ("json", "T00:01:40.250Z")])
def test_tells_when_the_request_came(format: str, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when it ended, also where other requests came meanwhile; and the clock on the wall may be set."""
    now = 100.25
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(time, "time", lambda: now)
    log = Log(RecordingApp(), format=format)
    body: Any = log.app(environ("GET", "/slow"), lambda *_: lambda data: None)

    now = 105.0
    call(log.app, environ("GET", "/quick"))
    body.close()
    now = 7300.0
    call(log.app, environ("GET", "/late"))

    lines = {name: line for line in log.lines for name in ("slow", "quick", "late") if f"/{name}" in line}
    assert written in lines["slow"]
    assert "00:01:45" in lines["quick"]
    assert "02:01:40" in lines["late"]


def test_survives_an_app_that_clears_its_environ() -> None:
    """The line tells what was asked, not what the app left."""
    log = Log(RecordingApp(before=lambda request: request.clear()))

    call(log.app, environ("GET", "/asked", **also({"lamella.request_id": "r-1"})))

    assert (log.entry["path"], log.entry["request_id"]) == ("/asked", "r-1")


def test_writes_at_the_end_of_the_body_and_once() -> None:
    """Nothing is written while the body runs; a second ``close()`` writes no second line."""
    log = Log(RecordingApp(body=[b"a", b"b"]))
    body: Any = log.app(environ("GET", "/"), lambda *_: lambda data: None)
    for _ in body:
        assert log.lines == []

    body.close()
    body.close()

    assert log.entry["bytes"] == 2


@pytest.mark.parametrize("body", [[b"one", b"two", b"three"], (b"one", b"two", b"three")], ids=["list", "tuple"])
@pytest.mark.parametrize(("taken", "sent"), [(0, 0), (1, 3), (2, 6), (3, 11)])
def test_counts_what_of_a_list_was_handed_out(body: Any, taken: int, sent: int) -> None:
    """A server that stops early took only so many bytes, also where the app returned a plain list."""

    def app(request: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    log = Log(app)

    call(log.app, environ("GET", "/"), blocks=taken)

    assert (log.entry["bytes"], log.entry["aborted"]) == (sent, True)


@pytest.mark.parametrize(("taken", "sent"), [(0, 0), (1, 3)])
def test_counts_what_of_a_stream_was_handed_out(taken: int, sent: int) -> None:
    """A client that leaves a stream leaves a line with what it got, marked ``aborted``."""
    log = Log(RecordingApp(body=[b"one", b"two"]))

    call(log.app, environ("GET", "/"), blocks=taken)

    assert (log.entry["bytes"], log.entry["aborted"]) == (sent, True)


def test_keeps_the_length_of_a_list() -> None:
    """Servers compute a Content-Length from a body of length one."""

    def app(request: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b"hello"]

    log = Log(app)
    body: Any = log.app(environ("GET", "/"), lambda *_: lambda data: None)

    assert len(body) == 1
    assert not isinstance(body, list)  # granian joins lists and never closes them
    assert b"".join(body) == b"hello"


def test_counts_write() -> None:
    """Bytes that go through ``write()`` count too."""
    log = Log(RecordingApp(write=[b"12", b"345"], body=[b"6"]))

    call(log.app, environ("GET", "/"))

    assert log.entry["bytes"] == 6


def test_logs_an_app_that_raises_before_it_starts() -> None:
    """The server will answer 500; the exception goes on to it."""
    log = Log(RecordingApp(raises=KeyError("secret")))

    with pytest.raises(KeyError):
        call(log.app, environ("GET", "/"))

    entry = log.entry
    assert (entry["status"], entry["exception"], entry["aborted"], entry["bytes"]) == (500, "KeyError", False, 0)
    assert "secret" not in log.lines[0]


def test_logs_an_app_that_raises_after_it_started() -> None:
    """With bytes on the wire the status stands and the answer is cut off."""
    log = Log(RecordingApp(body=[b"part"], raises_after=ConfigError("x", 1, "y")))

    call(log.app, environ("GET", "/"), keep_error=True)

    entry = log.entry
    assert (entry["status"], entry["aborted"], entry["bytes"]) == (200, True, 4)
    assert entry["exception"] == "lamella.stack.kernel.errors.ConfigError"


def test_logs_an_app_whose_body_raises_at_once() -> None:
    """Nothing is out yet: the server sends 500 instead of the status that the app had in mind."""
    log = Log(RecordingApp(body=[], raises_after=RuntimeError()))

    call(log.app, environ("GET", "/"), keep_error=True)

    assert (log.entry["status"], log.entry["aborted"]) == (500, False)


def test_an_error_while_closing_changes_no_status() -> None:
    """The answer was complete, also where it is empty; the line names the exception."""

    class Body(list[bytes]):
        def close(self) -> None:
            raise OSError("late")

    def app(request: Any, start_response: Any) -> Any:
        start_response("202 Accepted", [])
        return Body()

    log = Log(app)
    call(log.app, environ("GET", "/"), keep_error=True)

    assert (log.entry["status"], log.entry["aborted"], log.entry["exception"]) == (202, False, "OSError")


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_lets_every_exception_through(error: BaseException) -> None:
    """Also those that end a worker; each leaves its line."""
    log = Log(RecordingApp(raises=error))

    with pytest.raises(type(error)):
        call(log.app, environ("GET", "/"))

    assert log.entry["exception"] == type(error).__name__


def test_tells_of_an_exception_that_errors_has_answered() -> None:
    """Where a layer inside made a page of it, its class is still in the line."""
    app = RecordingApp(
        status="500 Oh", before=lambda request: request["lamella.record"].update({"lamella.exception": "ValueError"})
    )
    log = Log(app)

    call(log.app, environ("GET", "/"))

    assert log.entry["exception"] == "ValueError"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_counts_no_bytes_where_none_may_be(status: str) -> None:
    """Such answers have no content on the wire, and their end is no abort."""
    log = Log(RecordingApp(status=status, headers=[], body=[]))

    call(log.app, environ("GET", "/"), blocks=0)

    assert (log.entry["bytes"], log.entry["aborted"]) == (0, False)


def test_counts_no_bytes_of_a_head_request() -> None:
    """What an app yields for HEAD never reaches the client."""
    log = Log(RecordingApp())

    call(log.app, environ("HEAD", "/"))

    assert log.entry["bytes"] == 0


def test_keeps_the_file_wrapper_and_its_size(tmp_path: Path) -> None:
    """``sendfile`` still works; the line has the Content-Length, or the file's size where there is none."""
    (tmp_path / "f").write_bytes(b"x" * 1000)
    for headers in ([("Content-Length", "1000")], []):
        wrapped: list[FileWrapper] = []

        def app(request: dict[str, Any], start: Any, headers: Any = headers, wrapped: Any = wrapped) -> Any:
            start("200 OK", headers)
            wrapped.append(FileWrapper((tmp_path / "f").open("rb")))
            return wrapped[0]

        log = Log(app)
        request = environ("GET", "/", **also({"wsgi.file_wrapper": FileWrapper}))
        body: Any = log.app(request, lambda *_: lambda data: None)
        assert body is wrapped[0]
        body.close()
        body.close()

        assert log.entry["bytes"] == 1000
        assert wrapped[0].filelike.closed


def test_excludes_paths_but_never_errors() -> None:
    """A health check that works is noise; one that fails is news."""
    log = Log(RecordingApp(), exclude=["/healthz", "/static/*"])
    for path in ("/healthz", "/static/a/b.css", "/healthz2", "/static"):
        call(log.app, environ("GET", path))
    assert [json.loads(line)["path"] for line in log.lines] == ["/healthz2", "/static"]

    failing = Log(RecordingApp(status="503 Service Unavailable"), exclude=["*"])
    call(failing.app, environ("GET", "/healthz"))
    assert failing.entry["status"] == 503
    raising = Log(RecordingApp(raises=ValueError()), exclude=["/healthz"], sample=0)
    call(raising.app, environ("GET", "/healthz"), keep_error=True)
    assert raising.entry["exception"] == "ValueError"


def test_logs_an_ambiguous_path_that_looks_excluded() -> None:
    """What another layer is going to refuse is worth a line."""
    log = Log(RecordingApp(), exclude=["/static/*"])

    call(log.app, environ("GET", "/static/%2e%2e/x"))

    assert len(log.lines) == 1


def test_samples_but_keeps_errors() -> None:
    """About the share that was asked for, every failure, and the share in the line."""
    log = Log(RecordingApp(), sample=0.25)
    for _ in range(2000):
        call(log.app, environ("GET", "/"))
    assert 380 < len(log.lines) < 620
    assert json.loads(log.lines[0])["sample"] == 0.25

    failing = Log(RecordingApp(status="500 Oh"), sample=0)
    for _ in range(50):
        call(failing.app, environ("GET", "/"))
    assert len(failing.lines) == 50


@pytest.mark.parametrize("format", ["common", "combined", "json", "logfmt"])
def test_hides_secrets_in_query_and_referrer(format: str) -> None:
    """By the names of the parameters, and by those one adds."""
    log = Log(RecordingApp(), format=format, redact=["badge"])
    query = "a=1&access_token=S3&api_key=S3&password=S3&sig=S3&code=S3&badge=S3&next=%2F%3Ftoken%3DS3"

    call(log.app, environ("GET", f"/?{query}", referer=f"https://u:S3@x.example/?{query}#id_token=S3"))

    assert "S3" not in log.lines[0]
    assert "a=1" in log.lines[0]
    assert "access_token=***" in log.lines[0]


def test_hides_secret_headers() -> None:
    """A header that is asked for is logged, one that holds a credential only by name."""
    wanted = ["Accept", "Authorization", "Cookie", "X-Api-Key", "X-Team", "X-Absent"]
    log = Log(RecordingApp(), headers=wanted, redact=["x-team"])

    call(log.app, environ("GET", "/", accept="*/*", authorization="Basic x", cookie="a=b", x_api_key="k", x_team="t"))

    hidden = dict.fromkeys(["authorization", "cookie", "x-api-key", "x-team"], "***")
    assert log.entry["headers"] == {"accept": "*/*", **hidden}


def test_logs_headers_in_logfmt() -> None:
    """There each is a pair of its own."""
    log = Log(RecordingApp(), format="logfmt", headers=["Accept-Language"])

    call(log.app, environ("GET", "/", accept_language="de, en"))

    assert 'header_accept_language="de, en"' in log.lines[0]


@pytest.mark.parametrize("format", ["common", "combined", "json", "logfmt"])
def test_writes_one_line_for_every_hostile_input(corpus: Any, format: str) -> None:
    """Exactly one line, ASCII without controls, and the fields can be read back."""
    places = {"path": "PATH_INFO", "user": "REMOTE_USER", "ua": "HTTP_USER_AGENT", "method": "REQUEST_METHOD"}
    places |= {"xff": "REMOTE_ADDR", "origin": "HTTP_REFERER", "request_id": "lamella.request_id"}
    for case in corpus("log_injection")["cases"]:
        log = Log(RecordingApp(), format=format)
        key = places.get(case["where"], "QUERY_STRING")
        call(log.app, {**environ("GET", "/"), key: case["value"]})
        _check_line(log, format, key, case["value"])


_ANY = st.text(alphabet=st.characters(max_codepoint=0x2100), max_size=60)
_KEYS = ["PATH_INFO", "REMOTE_USER", "HTTP_USER_AGENT", "REQUEST_METHOD", "HTTP_REFERER", "QUERY_STRING", "HTTP_HOST"]


@given(
    _ANY, st.sampled_from([*_KEYS, "SERVER_PROTOCOL", "REMOTE_ADDR"]), st.sampled_from(["combined", "json", "logfmt"])
)
def test_writes_one_line_for_any_text(value: str, key: str, format: str) -> None:
    """The same for anything at all in any field."""
    log = Log(RecordingApp(), format=format)

    call(log.app, {**environ("GET", "/"), key: value})

    _check_line(log, format, key, value)


def _check_line(log: Log, format: str, key: str, value: str) -> None:
    """One line of printable ASCII that gives the value back."""
    (line,) = log.stream.getvalue().split("\n")[:-1]
    assert re.fullmatch(r"[\x20-\x7e]*", line)
    assert len(line) < 4096
    if len(value) > 700 or "=" in value or "@" in value:  # cut, or taken for a secret
        return
    if format == "json":
        entry = json.loads(line)
        names = {
            "REMOTE_USER": "user",
            "HTTP_USER_AGENT": "user_agent",
            "HTTP_HOST": "host",
            "REQUEST_METHOD": "method",
        }
        if key in names:
            assert (entry[names[key]] or "") == value
        if key == "PATH_INFO" and value and max(value) <= "\xff":
            assert unquote_to_bytes(entry["path"]).decode("latin-1") == value
    elif format in ("common", "combined"):
        match = CLF.fullmatch(line)
        assert match is not None
        names = {"REMOTE_USER": "user", "HTTP_USER_AGENT": "agent", "REQUEST_METHOD": "method"}
        if format == "combined" and key in names and value:
            assert _unescaped(match[names[key]]) == value


def _unescaped(text: str) -> str:
    return re.sub(
        r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))",
        lambda match: match[4] or chr(int(match[1] or match[2] or match[3], 16)),
        text,
    )


@pytest.mark.parametrize("format", ["combined", "json", "logfmt"])
def test_bounds_the_line(format: str) -> None:
    """A line fits into one write to a pipe, whatever the client sends, and shows no secret for it."""
    log = Log(RecordingApp(), format=format)
    query = "x=" + "\x01" * 9000 + "&token=" + "S3" * 9000

    call(
        log.app, environ("\x01" * 9000, "/" + "%01" * 9000 + "?" + query, user_agent="\x01" * 9000, referer="?" + query)
    )

    assert len(log.lines[0]) < 4096
    assert "S3" not in log.lines[0]
    if format == "json":
        assert log.entry["user_agent"].endswith("...")


@pytest.mark.parametrize("status", ["2\n0 OK", "²²² x", ""])
def test_keeps_a_broken_status_out(status: str) -> None:
    """An app may answer with nonsense; the line stays a line."""
    log = Log(RecordingApp(status=status), format="combined")

    call(log.app, environ("GET", "/"), keep_error=True)

    match = CLF.fullmatch(log.lines[0])
    assert match is not None
    assert match["status"] == "-"


def test_writes_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """``-`` is standard output, without a buffer in between."""
    call(AccessLogMiddleware(RecordingApp()), environ("GET", "/out"))

    assert "GET /out" in capfd.readouterr().out


def test_follows_a_replaced_standard_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that replaces ``sys.stderr`` gets the lines there."""
    call(AccessLogMiddleware(RecordingApp(), output="stderr"), environ("GET", "/err"))

    assert "GET /err" in capsys.readouterr().err


def test_opens_the_file_again_after_rotation(tmp_path: Path) -> None:
    """logrotate renames the file: the next line is in a new one, the old has what it had."""
    path = tmp_path / "access.log"
    app = AccessLogMiddleware(RecordingApp(), output=path)

    call(app, environ("GET", "/first"))
    path.rename(tmp_path / "access.log.1")
    call(app, environ("GET", "/second"))
    path.unlink()
    call(app, environ("GET", "/third"))

    assert "/first" in (tmp_path / "access.log.1").read_text()
    assert path.read_text().count("\n") == 1
    assert "/third" in path.read_text()


def test_follows_a_rotation_within_a_second_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy log looks twenty times a second; no line is lost meanwhile."""
    now = 100.0
    monkeypatch.setattr(_log_writer, "perf_counter", lambda: now)
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    app = AccessLogMiddleware(RecordingApp(), output=path)
    for _ in range(20):
        call(app, environ("GET", "/busy"))
    path.rename(moved)

    call(app, environ("GET", "/same-second"))
    now = 101.0
    call(app, environ("GET", "/next-second"))

    assert moved.read_text().count("/busy") == 20
    assert moved.read_text().count("/same-second") == 1
    assert path.read_text().count("/next-second") == path.read_text().count("\n") == 1


def test_goes_on_in_the_old_file_while_the_new_one_cannot_be_opened(tmp_path: Path) -> None:
    """A folder that is gone loses the log its name, not the request its answer."""
    folder = tmp_path / "logs"
    folder.mkdir()
    app = AccessLogMiddleware(RecordingApp(), output=folder / "a.log")
    (folder / "a.log").rename(tmp_path / "kept")
    folder.rmdir()

    response = call(app, environ("GET", "/kept"))

    assert response.body == b"hello"
    assert "/kept" in (tmp_path / "kept").read_text()


def test_a_full_disk_fails_no_request(capsys: pytest.CaptureFixture[str]) -> None:
    """The answer goes out, and standard error is told once."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    app = AccessLogMiddleware(RecordingApp(), output="/dev/full")

    for _ in range(3):
        assert call(app, environ("GET", "/")).body == b"hello"

    assert capsys.readouterr().err.count("No space left") == 1


def test_a_closed_stream_fails_no_request() -> None:
    """A log that was closed under us is lost, the answer is not."""
    stream = io.StringIO()
    app = AccessLogMiddleware(RecordingApp(), output=stream)
    stream.close()

    assert call(app, environ("GET", "/")).body == b"hello"


def test_a_pipe_without_reader_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """EPIPE is the log reader's end, not ours."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        response = call(AccessLogMiddleware(RecordingApp()), environ("GET", "/"))

    assert response.body == b"hello"


class _Failing(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("no")


def test_logs_through_logging(caplog: pytest.LogCaptureFixture) -> None:
    """A logger by name or object gets one record a line."""
    caplog.set_level("INFO", "site.access")

    for logger in ("site.access", logging.getLogger("site.access")):
        call(AccessLogMiddleware(RecordingApp(), logger=logger), environ("GET", "/%25s"))

    assert [record.name for record in caplog.records] == ["site.access"] * 2
    assert "GET /%25s HTTP/1.1" in caplog.records[0].getMessage()


def test_a_failing_logger_fails_no_request() -> None:
    """A handler that raises loses its line only."""
    logger = logging.Logger("failing")  # not in the tree of loggers
    logger.addHandler(_Failing())

    assert call(AccessLogMiddleware(RecordingApp(), logger=logger), environ("GET", "/")).body == b"hello"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_lines_of_threads_and_processes_never_mix(tmp_path: Path) -> None:
    """Four processes with four threads each: every line is whole."""
    path = tmp_path / "access.log"
    app = AccessLogMiddleware(RecordingApp(), format="json", output=path)

    def drive(worker: int) -> None:
        for number in range(100):
            call(app, environ("GET", f"/{worker}/{number}", user_agent="x" * (number * 17)))

    children = []
    for worker in range(4):
        child = os.fork()
        if child == 0:  # pragma: no cover  (measured in the parent only)
            threads = [threading.Thread(target=drive, args=(worker * 10 + n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0

    lines = path.read_text().splitlines()
    assert len({json.loads(line)["path"] for line in lines}) == len(lines) == 1600


SERVERS = {
    "waitress": ["waitress", "--listen=127.0.0.1:{port}"],
    "gunicorn": ["gunicorn", "--no-control-socket", "--threads=2", "--bind=127.0.0.1:{port}"],
    "granian": ["granian", "--interface=wsgi", "--port={port}"],
}
SERVED = """
import time
from lamella.middleware.access_log import AccessLogMiddleware

def inner(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/list":
        return [b"hello"]
    if environ["PATH_INFO"] == "/file":
        wrapper = environ.get("wsgi.file_wrapper", lambda file: [file.read()])
        return wrapper(open(__file__, "rb"))
    return stream()

def stream():
    for _ in range(500):
        yield bytes(65536)
        time.sleep(0.01)

app = AccessLogMiddleware(inner, format="json", output="access.log")
"""


@pytest.mark.server
@pytest.mark.parametrize("server", SERVERS)
def test_every_server_gets_its_lines(server: str, tmp_path: Path) -> None:
    """A list, a file, and a client that leaves a stream: one line each, with the bytes that went out."""
    if importlib.util.find_spec(server) is None:
        assert not os.environ.get("CI"), f"{server} is not installed"
        pytest.skip(f"{server} is not installed")
    (tmp_path / "served.py").write_text(SERVED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *(part.format(port=port) for part in SERVERS[server]), "served:app"]
    path = os.pathsep.join(filter(None, [str(tmp_path), *sys.path]))
    log = tmp_path / "access.log"
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        assert _get(port, "/list").endswith(b"hello"), (tmp_path / "out").read_text()
        _get(port, "/file")
        _get(port, "/stream", leave_after=100_000)
        deadline = time.monotonic() + 10
        while log.read_text().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(20)

    entries = {entry["path"]: entry for entry in map(json.loads, log.read_text().splitlines())}
    assert (entries["/list"]["bytes"], entries["/list"]["aborted"]) == (5, False)
    assert (entries["/file"]["bytes"], entries["/file"]["aborted"]) == (len(SERVED), False)
    assert entries["/stream"]["aborted"] is True
    assert 100_000 <= entries["/stream"]["bytes"] < 500 * 65536


def _get(port: int, path: str, leave_after: int = 1 << 30) -> bytes:
    """The raw answer; waits for a server that is just starting, and leaves after that many bytes."""
    deadline = time.monotonic() + 15
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    with connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        received = b""
        while len(received) < leave_after and (block := connection.recv(65536)):
            received += block
    return received


@pytest.mark.parametrize(("output", "name"), [("logs.txt", "logs.txt"), ("stderr", None), ("-", None)])
def test_a_path_in_a_stack_file_is_relative_to_it(
    output: str, name: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The two streams are no files."""
    stack = tmp_path / "stack.toml"
    stack.write_text(
        f'lamella = 1\napp = {{ use = "wsgiref.simple_server:demo_app" }}\n'
        f'[[layer]]\nuse = "lamella.middleware.access_log:AccessLogMiddleware"\noutput = "{output}"\n'
    )

    call(load(stack), environ("GET", "/here"))

    streams = capfd.readouterr()
    written = (tmp_path / name).read_text() if name else streams.err if output == "stderr" else streams.out
    assert "GET /here" in written
    assert [path.name for path in tmp_path.iterdir() if path != stack] == ([name] if name else [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "apache"}, "format: expected one of 'common'"),
        ({"sample": 2}, "sample: expected a share"),
        ({"sample": True}, "sample: expected a share"),
        ({"exclude": "/healthz"}, "exclude: expected a list"),
        ({"exclude": ["healthz"]}, "exclude: expected a list of paths"),
        ({"headers": ["Accept"]}, "headers: expected a format with room"),
        ({"headers": ["a b"], "format": "json"}, "headers: expected a list of header names"),
        ({"logger": 3}, "logger: expected a logger"),
        ({"logger": "a", "output": "stderr"}, "output: expected no output"),
        ({"output": "/no/such/folder/access.log"}, "output: expected a file that can be written"),
        ({"output": 3}, "output: expected"),
        ({"redact": "token"}, "redact: expected a list"),
    ],
)
def test_refuses_wrong_options(options: dict[str, Any], message: str) -> None:
    """When the stack is built, in one line."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        AccessLogMiddleware(RecordingApp(), **options)
