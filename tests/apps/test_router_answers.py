"""What a view returns, and what goes over the wire for it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webob
import webob.exc

from lamella.apps.router import (
    Response,
    ResponseError,
    Router,
    content_disposition,
    redirect,
    safe_target,
    send_file,
)
from lamella.apps.templates import Templates
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import parse_parameters
from lamella.stack.testing import RecordingApp, call, environ, lint
from lamella.stack.testing.client import Response as Answer

# WebOb has no annotations.
WEBOB: Any = webob.Response
EXC: Any = webob.exc
HTML = "text/html; charset=utf-8"


def answer(result: Any, method: str = "GET", **options: Any) -> Answer:
    """What is sent for a view that returns *result*."""
    router = Router()
    router.add("/", lambda request: result)
    return call(lint(router), environ(method, "/", **options))


@pytest.mark.parametrize(
    ("result", "status", "content_type", "body"),
    [
        ("text é", "200 OK", HTML, "text é".encode()),
        (b"bytes", "200 OK", HTML, b"bytes"),
        ({"a": 1}, "200 OK", "application/json", b'{"a":1}'),
        ([1, "x"], "200 OK", "application/json", b'[1,"x"]'),
        (None, "204 No Content", None, b""),
        (("made", 201), "201 Created", HTML, b"made"),
        (("made", "299 Odd"), "299 Odd", HTML, b"made"),
        (("x", {"Content-Type": "text/plain"}), "200 OK", "text/plain", b"x"),
        (("x", 202, [("Content-Type", "text/x")]), "202 Accepted", "text/x", b"x"),
        (({"e": 1}, 400), "400 Bad Request", "application/json", b'{"e":1}'),
        (("none", 204), "204 No Content", None, b""),
        ((None, 304), "304 Not Modified", None, b""),
        (iter(["a", b"b"]), "200 OK", HTML, b"ab"),
        (Response("x", status=418), "418 I'm a teapot", "text/html; charset=UTF-8", b"x"),
        (Response("x"), "200 OK", "text/html; charset=UTF-8", b"x"),
        (WEBOB("x"), "200 OK", "text/html; charset=UTF-8", b"x"),
        ((WEBOB("x"), 201, {"X": "1"}), "201 Created", "text/html; charset=UTF-8", b"x"),
        (WEBOB(status=204), "204 No Content", None, b""),
        (RecordingApp(status="203 App"), "203 App", "text/plain; charset=utf-8", b"hello"),
        (EXC.HTTPFound(location="/x"), "302 Found", "text/plain; charset=utf-8", b"302 Found\n"),
    ],
)
def test_each_kind_of_result(result: Any, status: str, content_type: str | None, body: bytes) -> None:
    """Status, type and body; a true length; nothing where nothing may be."""
    sent = answer(result)

    assert (sent.status, sent.header("Content-Type"), sent.body) == (status, content_type, body)
    if not hasattr(result, "__next__") and not isinstance(result, RecordingApp):
        assert sent.header("Content-Length") == (str(len(body)) if body else None)


@pytest.mark.parametrize("make", [lambda: "hello", lambda: Response("hello"), lambda: WEBOB("hello")])
def test_head_has_the_headers_of_get(make: Any) -> None:
    """And no body."""
    head, get = answer(make(), "HEAD"), answer(make())

    assert head.headers == get.headers
    assert (head.body, get.body) == (b"", b"hello")


def test_a_stream_is_sent_block_by_block_and_closed_on_head() -> None:
    """Nothing is read ahead; a HEAD closes what it does not read."""
    events: list[str] = []

    class Stream:
        def __iter__(self) -> Iterator[str]:
            events.append("read")
            yield "a"
            yield "b"

        def close(self) -> None:
            events.append("closed")

    assert answer(Stream()).blocks == [b"a", b"b"]
    assert answer(Stream(), "HEAD").body == b""
    assert events == ["read", "closed", "closed"]


@pytest.mark.parametrize(
    "result",
    [
        5,
        object(),
        ("x", 200, {}, 1),
        ("x",),
        ("x", 99),
        ("x", 600),
        ("x", "200 OK\r\nX: y"),
        ("x", 200, {"X": "a\r\nY: b"}),
        ("x", 200, {"X Y": "a"}),
        ("x", 200, {"X": "Ā"}),
        ("x", 200, {"Transfer-Encoding": "chunked"}),
        ("x", 200, [("X",)]),
        ("x", 200, {"X": None}),
        (RecordingApp(), 201),
        RecordingApp(headers=[("X", "a\nb")]),
        WEBOB(b"x", headerlist=[("X", "a\r\nb: c")]),
        Response("x", headers={"X\r\n": "a"}),
        iter([5]),
    ],
)
def test_what_cannot_be_sent_is_told_with_the_view(result: Any) -> None:
    """No header is ever split: the error names the view and goes to the layer ``errors``."""
    router = Router()
    router.add("/", lambda request: result, name="the_view")
    if isinstance(result, webob.Response):
        result.headerlist.append(("X-Bad", "a\r\nX-Evil: 1"))

    with pytest.raises(ResponseError, match="the_view"):
        call(router, environ())


def test_a_response_may_be_sent_twice() -> None:
    """What the server or a layer does to the list of headers does not reach it."""
    router = Router()
    constant = Response("x")
    router.add("/", lambda request: constant)
    seen: list[Any] = []

    for _ in range(2):
        router(environ(), lambda status, headers, exc_info=None: seen.append(headers) or headers.clear())  # type: ignore

    assert len(constant.headerlist) == 2


def test_a_conditional_response_is_webobs() -> None:
    """ETag and ranges by WebOb, but nothing that makes it raise reaches it."""
    make: Any = lambda: WEBOB("hello", etag="x", conditional_response=True)  # noqa: E731

    assert answer(make(), if_none_match='"x"').code == 304
    assert answer(make(), range="bytes=0-0").body == b"h"
    assert answer(make(), range="bytes=-", if_modified_since="Fri, 31 Dec 99999 23:59:59 GMT").body == b"hello"


def test_redirects() -> None:
    """Status and target; no other status."""
    sent = answer(redirect("/x?a=1#b", 303))

    assert (sent.status, sent.header("Location"), sent.body) == ("303 See Other", "/x?a=1#b", b"")
    with pytest.raises(ValueError, match="no redirect status"):
        redirect("/", 200)


def test_hostile_redirect_targets_stay_one_header_and_here(corpus: Any) -> None:
    """Never another line, never a 500, never another host by accident."""
    for text in corpus("header_injection")["cases"]:
        for target in (text, "/x" + text, "//" + text, "/\\" + text):
            location = answer(redirect(target)).header("Location")
            assert location is not None
            assert location.isascii()
            assert location.isprintable()
            assert not location.startswith(("//", "/\\"))


def test_safe_target_agrees_with_browsers(corpus: Any) -> None:
    """Where a browser would leave the site, the default is taken."""
    data = corpus("redirect_targets")
    request = environ("GET", "/login/start", host="app.example")
    request["wsgi.url_scheme"] = "https"

    for target in data["must_allow"]:
        assert safe_target(target, request) == target
    for case in data["cases"]:
        if case["verdict"].startswith("must_deny"):
            assert safe_target(case["target"], request, "/home") == "/home", case
    assert safe_target(None, request) == "/"


def test_hostile_download_names_stay_one_header(corpus: Any) -> None:
    """RFC 6266 and RFC 8187: parsed back, it is one name without a path."""
    for text in [*corpus("header_injection")["cases"], "a/../b", 'q"\\x', "é €.txt", "%41", "a;b=c", "../..", "C:\\x"]:
        value = content_disposition(text)
        sent = answer(("x", 200, {"Content-Disposition": value}))
        assert sent.header_list("Content-Disposition") == [value]
        parsed = parse_parameters(value)
        assert parsed is not None
        assert parsed[0] == "attachment"
        assert not {"/", "\\", "\r", "\n"} & set(parsed[1].get("filename", ""))


def test_names_outside_ascii_come_in_both_forms() -> None:
    """For old clients and new ones."""
    assert content_disposition("a b.txt") == 'attachment; filename="a b.txt"'
    assert content_disposition("€.txt") == "attachment; filename=\"_.txt\"; filename*=UTF-8''%E2%82%AC.txt"
    assert content_disposition("x", inline=True) == 'inline; filename="x"'


def test_sends_a_file(tmp_path: Path) -> None:
    """Whole, as a range, as a 304, as a download, and not where there is none."""
    (tmp_path / "a.txt").write_bytes(b"0123456789")
    router = Router()
    router.add("/<path:name>", lambda request, name: send_file(name, request.environ, root=tmp_path, download=True))
    app = lint(router)

    def get(path: str = "/a.txt", method: str = "GET", **headers: Any) -> Answer:
        return call(app, environ(method, path, **headers))

    whole = get()
    etag = whole.header("ETag") or ""

    assert (whole.code, whole.body, whole.header("Content-Length")) == (200, b"0123456789", "10")
    assert whole.header("Content-Type") == "text/plain; charset=utf-8"
    assert whole.header("Content-Disposition") == 'attachment; filename="a.txt"'
    assert (get(method="HEAD").headers, get(method="HEAD").body) == (whole.headers, b"")
    assert get(if_none_match=etag).code == 304
    assert get(if_match='"other"').code == 412
    part = get(range="bytes=2-4")
    assert (part.code, part.body, part.header("Content-Range")) == (206, b"234", "bytes 2-4/10")
    assert get(range="bytes=20-").code == 416
    assert get(range="bytes=20-").header("Content-Range") == "bytes */10"
    for ignored in ("bytes=1-2,4-5", "items=0-1"):
        assert get(range=ignored).body == b"0123456789"
    for malformed in ("bytes=-", "bytes=+1-2"):
        assert get(range=malformed).code == 416
    assert get(range="bytes=0-1", if_range='"old"').code == 200
    assert [get(path).code for path in ("/none.txt", "/sub/", "/" + "x" * 5000)] == [404, 404, 404]


def test_a_file_does_not_leave_its_root(tmp_path: Path) -> None:
    """Neither by dots nor through a link."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")

    for name in ("../secret", "link", str(tmp_path / "secret"), "", "a\x00b"):
        router = Router()
        router.add("/", lambda request, name=name: send_file(name, request.environ, root=root))
        assert call(router, environ()).code == 404


def test_an_open_file_goes_through_the_servers_wrapper() -> None:
    """The server recognises its own class, and sends it its own way."""

    class Wrapper:
        def __init__(self, file: Any, size: int) -> None:
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.file.read, b"")

        def close(self) -> None:
            self.file.close()

    file = io.BytesIO(b"content")
    router = Router()
    router.add("/", lambda request: send_file(file, request.environ, filename="a.bin"))

    body = router({**environ(), "wsgi.file_wrapper": Wrapper}, lambda *_: lambda data: None)

    assert type(body) is Wrapper
    assert b"".join(body) == b"content"


def test_an_open_file_without_a_wrapper_is_read_in_blocks() -> None:
    """And closed at the end."""
    file = io.BytesIO(b"content")
    router = Router()
    router.add("/", lambda request: send_file(file, request.environ, content_type="text/x"))

    sent = call(lint(router), environ())

    assert (sent.body, sent.header("Content-Type"), file.closed) == (b"content", "text/x", True)


def test_templates_escape_and_know_url_for(tmp_path: Path) -> None:
    """Whatever the template is called."""
    (tmp_path / "page.txt").write_text("{{ text }} {{ url_for('page', q='a b') }} {{ request.method }} {{ 2 | twice }}")
    router = Router(templates=Templates(tmp_path, filters={"twice": lambda x: x * 2}))

    @router.get("/page")
    def page(request: Any) -> str:
        return router.render(request, "page.txt", text="<b>")

    sent = call(lint(router), environ("GET", "/page", mount="/m"))

    assert sent.text == "&lt;b&gt; /m/page?q=a+b GET 4"
    with pytest.raises(ConfigError):
        Router().render(None, "page.txt")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Templates(5)
