"""ASGIApp: what an ASGI app sees of a WSGI request, what becomes of its answer, and whose thread it is."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastapi
import pytest
import quart
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route

from lamella.apps.asgi import ASGIApp, ClientDisconnectedError, LifespanError
from lamella.middleware.context import ContextMiddleware
from lamella.middleware.dispatch import DispatchMiddleware
from lamella.middleware.edge import EdgeMiddleware
from lamella.middleware.errors import ErrorsMiddleware
from lamella.stack import Layer, Stack, StackFileError, load
from lamella.stack.check import check
from lamella.stack.kernel.asgi import as_wsgi, is_asgi
from lamella.stack.kernel.context import current
from lamella.stack.kernel.errors import ConfigError, LamellaError
from lamella.stack.routes import routes
from lamella.stack.testing import call as send_request
from lamella.stack.testing import environ, lint
from lamella.stack.testing.client import Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Bare = Callable[[Scope, Receive, Send], Awaitable[None]]

TEXT = (b"content-type", b"text/plain")
#: Longer than anything here takes on a busy machine.
PATIENCE = 10.0


def bridge(app: object, **options: Any) -> Any:
    """The bridge, with the WSGI linter around it."""
    return lint(ASGIApp(app, **options))


def call(app: Any, request: dict[str, Any] | None = None) -> Response:
    """Send a request, ``GET /`` if no other."""
    return send_request(app, environ() if request is None else request)


async def answer(send: Send, *blocks: bytes, status: int = 200, headers: Any = ()) -> None:
    """Send a whole answer."""
    await send({"type": "http.response.start", "status": status, "headers": [TEXT, *headers]})
    for block in blocks:
        await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body"})


def seen_scope(**changed: Any) -> Scope:
    """The scope that an app gets for one request."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await answer(send, b"ok")

    request = environ("GET", "/")
    request.update(changed)
    assert call(ASGIApp(app, lifespan="off"), request).code == 200
    return seen[0]


def until(true: Callable[[], object]) -> bool:
    """Wait for something that another thread does."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


# --- the request --------------------------------------------------------------------------------


def test_the_scope_has_every_field() -> None:
    """What ASGI 3.0 names is there, in its types."""
    scope = seen_scope(
        SCRIPT_NAME="/shop", PATH_INFO="/a b/\xc3\xa9", QUERY_STRING="q=%20", REMOTE_PORT="4711", SERVER_PORT="8080"
    )

    assert scope["type"] == "http"
    assert scope["asgi"]["version"] == "3.0"
    assert (scope["http_version"], scope["method"], scope["scheme"]) == ("1.1", "GET", "http")
    assert (scope["path"], scope["root_path"]) == ("/shop/a b/\u00e9", "/shop")
    assert scope["raw_path"] == b"/shop/a%20b/%C3%A9"
    assert scope["query_string"] == b"q=%20"
    assert (scope["client"], scope["server"]) == (("127.0.0.1", 4711), ("localhost", 8080))
    assert (scope["state"], scope["extensions"]) == ({}, {})


def test_headers_are_lower_case_bytes_and_each_once() -> None:
    """CONTENT_TYPE counts, and not what a client sent to look like it."""
    scope = seen_scope(
        CONTENT_TYPE="text/plain",
        HTTP_CONTENT_TYPE="text/evil",
        HTTP_X_A_B="1, 2",
        HTTP_COOKIE="a=\xe9",
        CONTENT_LENGTH="",
    )

    assert (b"content-type", b"text/plain") in scope["headers"]
    assert (b"x-a-b", b"1, 2") in scope["headers"]
    assert (b"cookie", b"a=\xe9") in scope["headers"]
    names = [name for name, _ in scope["headers"]]
    assert len(names) == len(set(names))
    assert b"content-length" not in names


def test_the_raw_path_is_the_clients_own_where_the_server_tells() -> None:
    """``%2F`` survives; an address that a layer outside has moved is not believed."""
    assert seen_scope(PATH_INFO="/a/b", REQUEST_URI="/a%2Fb?x")["raw_path"] == b"/a%2Fb"
    assert seen_scope(PATH_INFO="/a/b", RAW_URI="/other")["raw_path"] == b"/a/b"


@pytest.mark.parametrize(
    ("changed", "client"),
    [({"REMOTE_ADDR": ""}, None), ({"REMOTE_PORT": "x"}, ("127.0.0.1", 0)), ({}, ("127.0.0.1", 0))],
)
def test_a_client_that_is_not_known_is_none(changed: dict[str, str], client: object) -> None:
    """A unix socket has no address; most servers tell no port."""
    assert seen_scope(**changed)["client"] == client


@pytest.mark.parametrize(("protocol", "version"), [("HTTP/1.0", "1.0"), ("HTTP/2.0", "2"), ("HTTP/2", "2")])
def test_the_protocol_is_named_as_asgi_does(protocol: str, version: str) -> None:
    """HTTP/2 is "2"."""
    assert seen_scope(SERVER_PROTOCOL=protocol)["http_version"] == version


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"PATH_INFO": "/\xff"}, id="path"),
        pytest.param({"SCRIPT_NAME": "/\xff"}, id="prefix"),
        pytest.param({"PATH_INFO": "/\u20ac"}, id="path of characters"),
        pytest.param({"PATH_INFO": "relative"}, id="no slash"),
        pytest.param({"QUERY_STRING": "a=\xff"}, id="query"),
        pytest.param({"QUERY_STRING": "a=\u20ac"}, id="query of characters"),
        pytest.param({"QUERY_STRING": "a= b"}, id="space"),
        pytest.param({"QUERY_STRING": "a=\r\nx"}, id="newline"),
        pytest.param({"CONTENT_LENGTH": "-1"}, id="length"),
    ],
)
def test_what_is_no_address_is_refused(changed: dict[str, str]) -> None:
    """A 400, and the app is not asked."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("asked")

    request = environ()
    request.update(changed)

    assert call(ASGIApp(app, lifespan="off"), request).code == 400


def test_utf8_that_a_client_left_unencoded_is_encoded() -> None:
    """curl sends the query as it was typed."""
    assert seen_scope(QUERY_STRING="q=\xc3\xa9&b")["query_string"] == b"q=%C3%A9&b"


def test_a_websocket_is_refused_clearly() -> None:
    """A 426 instead of a 404 that nobody understands."""
    app = fastapi.FastAPI()

    response = call(bridge(app), environ("GET", "/ws", upgrade="websocket", connection="Upgrade"))

    assert response.code == 426
    assert "websocket" in response.text


@pytest.mark.parametrize("with_length", [True, False], ids=["length", "chunked"])
def test_a_body_is_read_as_it_comes(with_length: bool) -> None:
    """Also without a Content-Length, where the server promises an end."""
    data = os.urandom(100_000)
    blocks: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got = b""
        more = True
        while more:
            message = await receive()
            blocks.append(len(message["body"]))
            got += message["body"]
            more = message["more_body"]
        await answer(send, str(got == data).encode())

    request = environ("POST", "/", body=data)
    if not with_length:
        del request["CONTENT_LENGTH"]
        request["wsgi.input_terminated"] = True

    assert call(bridge(app, lifespan="off"), request).body == b"True"
    assert max(blocks) <= 65536


def test_a_body_is_not_read_unless_asked_for() -> None:
    """An app that refuses at once lets the server say so before ``100 Continue``."""

    class Untouched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise AssertionError("read")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, status=403)

    request = environ("POST", "/", body=b"x")
    request["wsgi.input"] = Untouched(b"x")

    assert call(ASGIApp(app, lifespan="off"), request).code == 403


def test_without_a_length_there_is_no_body() -> None:
    """Reading would block for ever on such a server."""
    messages: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages.append(await receive())
        await answer(send)

    request = environ("POST", "/")
    request["wsgi.input"] = io.BytesIO(b"the next request")
    call(ASGIApp(app, lifespan="off"), request)

    assert messages == [{"type": "http.request", "body": b"", "more_body": False}]


def test_both_ways_at_once() -> None:
    """Each piece of the upload is answered before the next is read."""
    log: list[str] = []

    class Talking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            log.append("read")
            return super().read(3)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            message = await receive()
            await send({"type": "http.response.body", "body": message["body"], "more_body": message["more_body"]})
            if not message["more_body"]:
                return

    request = environ("POST", "/", body=b"abcdefghi")
    request["wsgi.input"] = Talking(b"abcdefghi")
    body = ASGIApp(app, lifespan="off")(request, lambda *_: lambda _: None)
    for block in body:
        log.append(block.decode())

    assert log == ["read", "abc", "read", "def", "read", "ghi"]


@pytest.mark.parametrize("error", [None, OSError("gone")], ids=["short", "OSError"])
def test_an_upload_that_was_cut_is_a_400(error: Exception | None) -> None:
    """The app hears of a disconnect, and whatever it makes of that is not an error of ours."""

    class Cut(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data and error is not None:
                raise error
            return data

    app = fastapi.FastAPI()

    @app.post("/")
    async def root(request: Request) -> int:
        return len(await request.body())

    request = environ("POST", "/", body=b"123")
    request["CONTENT_LENGTH"] = "10"
    request["wsgi.input"] = Cut(b"123")

    assert call(ASGIApp(app), request).code == 400


def test_what_a_layer_outside_raises_while_reading_comes_through() -> None:
    """body_limit's refusal reaches body_limit, and the app is cancelled."""
    ended = threading.Event()

    class TooLargeError(Exception):
        pass

    class Limited(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise TooLargeError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
            await receive()
        finally:
            ended.set()

    request = environ("POST", "/", body=b"1")
    request["wsgi.input"] = Limited(b"1")

    with pytest.raises(TooLargeError):
        call(ASGIApp(app, lifespan="off"), request)
    assert ended.wait(PATIENCE)


# --- the answer ---------------------------------------------------------------------------------


def test_each_part_is_a_block() -> None:
    """Nothing is joined, nothing held back."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"a", b"bc", b"", b"d", headers=[(b"x-a", b"1"), (b"x-a", b"2")])

    response = call(bridge(app, lifespan="off"))

    assert (response.status, response.blocks) == ("200 OK", [b"a", b"bc", b"d"])
    assert response.header_list("x-a") == ["1", "2"]


def test_a_block_goes_out_before_the_next_is_made() -> None:
    """An event stream is one: the second event is made after the first was taken."""
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        while not go.is_set():
            await asyncio.sleep(0.001)
        await send({"type": "http.response.body", "body": b"2"})

    body = iter(ASGIApp(app, lifespan="off")(environ(), lambda *_: lambda _: None))

    assert next(body) == b"1"
    go.set()
    assert list(body) == [b"2"]


def test_an_app_that_is_faster_than_its_client_waits() -> None:
    """An endless answer takes no more memory than the buffer."""
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(1000), "more_body": True})
            sent.append(1)

    body: Any = ASGIApp(app, lifespan="off", buffer="10 KB")(environ(), lambda *_: lambda _: None)
    time.sleep(0.2)
    before = len(sent)
    for _ in range(50):
        next(body)

    assert before <= 11
    assert until(lambda: len(sent) >= 50)
    body.close()
    assert until(lambda: len(sent) == len(sent) and not _running())


def _running() -> int:
    """How many requests the loop of this process has."""
    from lamella.apps._asgi_loop import current_loop

    return len(current_loop().tasks)


def test_a_whole_answer_is_a_list() -> None:
    """Layers outside know then that nothing more comes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    assert ASGIApp(app, lifespan="off")(environ(), lambda *_: lambda _: None) == [b"ok"]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_an_answer_without_a_body_has_none(method: str, status: int) -> None:
    """Whatever the app sends; its length is that of a GET, or not there."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"body", status=status, headers=[(b"content-length", b"4")])

    response = call(ASGIApp(app, lifespan="off"), environ(method))

    assert response.body == b""
    assert response.header("content-length") == ("4" if method == "HEAD" else None)


def test_hop_by_hop_headers_stay_behind() -> None:
    """PEP 3333 forbids them; an ASGI app may send them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"x", headers=[(b"transfer-encoding", b"chunked"), (b"connection", b"close"), (b"a", b"b")])

    assert call(bridge(app, lifespan="off")).headers == [("content-type", "text/plain"), ("a", "b")]


# --- mistakes of an app -------------------------------------------------------------------------


def broken(*messages: MutableMapping[str, Any], error: BaseException | None = None) -> Bare:
    """An app that sends these and raises, or returns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
LONG: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
BLOCK: dict[str, Any] = {"type": "http.response.body", "body": b"12345", "more_body": True}
END: dict[str, Any] = {"type": "http.response.body", "body": b"1"}


@pytest.mark.parametrize(
    ("app", "said"),
    [
        pytest.param(broken(), "without an answer", id="nothing"),
        pytest.param(broken(START), "without the end", id="no body"),
        pytest.param(broken(error=KeyError("mine")), "mine", id="raises"),
        pytest.param(broken(START, error=KeyError("mine")), "mine", id="raises after start"),
        pytest.param(broken(error=SystemExit(3)), "SystemExit", id="exits"),
        pytest.param(broken(error=asyncio.CancelledError()), "CancelledError", id="cancels itself"),
        pytest.param(broken(START, START), "twice", id="starts twice"),
        pytest.param(broken(END), "before http.response.start", id="body first"),
        pytest.param(broken({"type": "http.response.trailers"}), "no message", id="unknown"),
        pytest.param(broken({**START, "status": 20000}), "20000", id="status"),
        pytest.param(broken({**START, "status": "200"}), "'200'", id="text for a status"),
        pytest.param(broken({**START, "headers": [(b"a", b"b\r\nc: d")]}), "character", id="injection"),
        pytest.param(broken({**START, "headers": [(b"a b", b"c")]}), "'a b'", id="header name"),
        pytest.param(broken({**START, "headers": [(b"content-length", b"x")]}), "'x'", id="length"),
        pytest.param(broken(LONG, END), "shorter", id="too short"),
        pytest.param(broken(LONG, BLOCK), "longer", id="too long"),
    ],
)
def test_a_mistake_before_the_first_byte_is_raised(app: Bare, said: str) -> None:
    """So that the layer ``errors`` renders it and the log names it."""
    with pytest.raises(Exception, match=said) as caught:
        call(ASGIApp(app, lifespan="off"))
    assert isinstance(caught.value, Exception)


def test_errors_renders_what_an_app_raised() -> None:
    """A page with a 500, as for any WSGI app."""
    response = call(ErrorsMiddleware(ASGIApp(broken(error=ValueError("secret")), lifespan="off")))

    assert response.code == 500
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("app", "said"),
    [
        pytest.param(broken(START, BLOCK, error=KeyError("mine")), "mine", id="raises"),
        pytest.param(broken(START, BLOCK), "without the end", id="returns"),
        pytest.param(broken({**LONG, "headers": [(b"content-length", b"9")]}, BLOCK, END), "shorter", id="too short"),
        pytest.param(broken({**LONG, "headers": [(b"content-length", b"9")]}, BLOCK, BLOCK), "longer", id="too long"),
    ],
)
def test_a_mistake_after_the_first_byte_cuts_the_answer(app: Bare, said: str) -> None:
    """What was sent goes out; then the exception tells the server to cut the connection."""
    got = []
    body: Any = ASGIApp(app, lifespan="off")(environ(), lambda *_: lambda _: None)
    with pytest.raises(Exception, match=said):
        for block in body:
            got.append(block)
    body.close()

    assert got == [b"12345"]


def test_what_an_app_raises_after_its_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """FastAPI answers 500 and raises: the answer is its own, the traceback is in the log."""
    app = fastapi.FastAPI()

    @app.get("/")
    async def root() -> None:
        raise ValueError("the cause")

    with caplog.at_level(logging.ERROR, "lamella.asgi"):
        response = call(ASGIApp(app))
        assert until(lambda: "the cause" in caplog.text)

    assert (response.code, response.text) == (500, "Internal Server Error")


def test_an_app_that_exits_does_not_stop_the_others() -> None:
    """``sys.exit()`` in a task of one app would end the loop of all."""

    async def leaves() -> None:
        sys.exit(3)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.get_running_loop().create_task(leaves())
        await answer(send, b"ok")
        await asyncio.wait([task])

    for _ in range(3):
        assert call(ASGIApp(app, lifespan="off")).body == b"ok"
    assert call(ASGIApp(fastapi.FastAPI()), environ("GET", "/openapi.json")).code == 200


# --- the client leaves --------------------------------------------------------------------------


def test_close_cancels_an_app_that_does_not_listen() -> None:
    """a2wsgi lets it run to its end, however far that is."""
    cancelled = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(BLOCK)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    body: Any = ASGIApp(app, lifespan="off")(environ(), lambda *_: lambda _: None)
    next(body)
    body.close()
    body.close()

    assert cancelled.wait(PATIENCE)


def test_close_is_a_message_for_an_app_that_listens() -> None:
    """``http.disconnect`` comes, and the app ends by itself; after that ``send()`` raises an OSError."""
    got: list[Any] = []
    done = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(START)
        await send(BLOCK)
        try:
            got.append((await receive())["type"])
            got.append((await receive())["type"])
            await send(BLOCK)
        except OSError as error:
            got.append(type(error))
        done.set()

    body: Any = ASGIApp(app, lifespan="off")(environ(), lambda *_: lambda _: None)
    next(body)
    body.close()

    assert done.wait(PATIENCE)
    assert got == ["http.disconnect", "http.disconnect", ClientDisconnectedError]


def test_close_ends_a_send_that_waits() -> None:
    """And the generator of Starlette's StreamingResponse is closed, without a word in the log."""
    ended = threading.Event()

    async def numbers() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(100_000)
        finally:
            ended.set()

    app = fastapi.FastAPI()

    @app.get("/")
    async def root() -> StreamingResponse:
        return StreamingResponse(numbers())

    body: Any = ASGIApp(app)(environ(), lambda *_: lambda _: None)
    next(body)
    time.sleep(0.05)
    body.close()

    assert ended.wait(PATIENCE)


def test_an_app_that_ignores_the_disconnect_is_cancelled_later(caplog: pytest.LogCaptureFixture) -> None:
    """It was told; after a moment it is stopped."""
    cancelled = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(START)
        await send(BLOCK)
        await receive()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    body: Any = ASGIApp(app, lifespan="off")(environ(), lambda *_: lambda _: None)
    next(body)
    body.close()

    assert cancelled.wait(PATIENCE)
    assert not caplog.records


def test_waitress_tells_of_a_client_that_left_before_the_answer() -> None:
    """A long poll ends when its client does."""
    cancelled = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    request = environ()
    request["waitress.client_disconnected"] = lambda: True
    with pytest.raises(ClientDisconnectedError):
        call(ASGIApp(app, lifespan="off"), request)
    assert cancelled.wait(PATIENCE)


def test_background_tasks_hold_nobody_up() -> None:
    """The answer is whole at once; close() leaves the task alone."""
    go, done = threading.Event(), threading.Event()

    async def later() -> None:
        while not go.is_set():
            await asyncio.sleep(0.001)
        done.set()

    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("ok", background=BackgroundTask(later)))])

    response = call(ASGIApp(app))
    assert (response.body, done.is_set()) == (b"ok", False)
    go.set()
    assert done.wait(PATIENCE)


# --- context variables --------------------------------------------------------------------------

COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


def test_context_variables_are_carried_in() -> None:
    """What a layer outside has set is there, also in a sync endpoint, for each step of the body."""

    async def blocks() -> AsyncIterator[str]:
        yield COLOUR.get()
        await asyncio.sleep(0)
        yield COLOUR.get()

    app = fastapi.FastAPI()

    @app.get("/sync", response_class=PlainTextResponse)
    def sync() -> str:
        return f"{COLOUR.get()}{current()['PATH_INFO']}"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(blocks())

    wrapped = ContextMiddleware(ASGIApp(app))
    token = COLOUR.set("red")
    try:
        assert call(wrapped, environ("GET", "/sync")).body == b"red/sync"
        assert call(wrapped, environ("GET", "/stream")).body == b"redred"
    finally:
        COLOUR.reset(token)
    assert call(wrapped, environ("GET", "/sync")).body == b"none/sync"


# --- lifespan -----------------------------------------------------------------------------------


def lifespan_app(log: list[str], *, fails: bool = False) -> Starlette:
    """A Starlette that notes when it starts and stops."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        log.append("up")
        if fails and len(log) < 2:
            raise RuntimeError("no database at db:5432")
        yield {"pool": log}
        log.append("down")

    async def root(request: Request) -> PlainTextResponse:
        return PlainTextResponse(",".join(request.state.pool))

    return Starlette(routes=[Route("/", root)], lifespan=lifespan)


def test_the_startup_runs_once_for_all_threads_and_mounts() -> None:
    """Its state is in each request's scope."""
    log: list[str] = []
    app = lifespan_app(log)
    first, second = ASGIApp(app), ASGIApp(app)
    threads = [threading.Thread(target=call, args=(one, environ())) for one in (first, second) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert call(second).text == "up"


def test_a_startup_that_fails_says_why() -> None:
    """In the app's own words; it is tried again a second later, and then serves."""
    wrapped = ASGIApp(lifespan_app([], fails=True))

    for _ in range(2):
        with pytest.raises(LifespanError, match="no database at db:5432"):
            wrapped.start()
    time.sleep(1.05)
    assert call(wrapped).text == "up,up"


def test_an_app_without_a_lifespan_serves() -> None:
    """It raises at a scope that it does not know, or answers it with nonsense."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, b"ok")

    assert call(ASGIApp(app)).body == b"ok"
    with pytest.raises(LifespanError, match="AssertionError"):
        call(ASGIApp(functools.partial(app), lifespan="on"))


def test_a_startup_that_takes_too_long_is_an_error() -> None:
    """It does not hang the server."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)

    with pytest.raises(LifespanError, match=r"longer than 0\.05 s"):
        call(ASGIApp(app, startup_timeout=0.05))


PROGRAM = """
import contextlib, sys, asyncio
sys.path.insert(0, {path!r})
from lamella.apps.asgi import ASGIApp
from lamella.stack.testing import call, environ
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route

@contextlib.asynccontextmanager
async def lifespan(app):
    print("up", flush=True)
    yield
    await asyncio.to_thread(print, "down", flush=True)

async def later():
    await asyncio.sleep(0.2)
    print("background", flush=True)

root = lambda r: PlainTextResponse("ok", background=BackgroundTask(later))
app = Starlette(routes=[Route("/", root)], lifespan=lifespan)
print(call(ASGIApp(app), environ()).text, flush=True)
"""


def test_the_end_of_the_process_waits_and_shuts_down() -> None:
    """Background tasks finish, then the lifespan ends; it may use threads even then."""
    path = next(folder for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(path=path)], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.stdout.split(), done.stderr) == (["up", "ok", "background", "down"], "")


def test_a_forked_process_opens_a_loop_of_its_own() -> None:
    """The parent's thread does not exist there: a2wsgi hangs under gunicorn --preload."""
    log: list[str] = []
    wrapped = ASGIApp(lifespan_app(log))
    assert call(wrapped).text == "up"
    reading, writing = os.pipe()
    child = _fork()
    if child == 0:
        try:
            os.write(writing, call(wrapped).text.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b"up,up"
    os.waitpid(child, 0)
    assert call(wrapped).text == "up"


def _fork() -> int:
    """Fork; Python 3.12 and later warn that there are threads, which is what is tested."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _serve_in_child(pipe: Any) -> None:
    """Run in a process of multiprocessing."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        pipe.send("down")

    call(ASGIApp(Starlette(routes=[], lifespan=lifespan)))
    log.append("served")


def test_a_process_of_multiprocessing_shuts_down_too() -> None:
    """It leaves without atexit; granian's workers are such."""
    here, there = multiprocessing.Pipe()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = multiprocessing.get_context("fork").Process(target=_serve_in_child, args=(there,))
        process.start()

    assert here.poll(PATIENCE)
    assert here.recv() == "down"
    process.join(PATIENCE)
    assert process.exitcode == 0


GREENLETS = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {path!r})
if {late!r}:
    import fastapi
from gevent import monkey, pool
monkey.patch_all()
import time, fastapi
from lamella.apps.asgi import ASGIApp
from lamella.stack.testing import call, environ

app = fastapi.FastAPI()

@app.get("/")
def root():
    time.sleep(0.1)
    return 1

wrapped = ASGIApp(app)
try:
    print(call(wrapped, environ()).text)
except Exception as error:
    sys.exit(str(error))
began = time.monotonic()
ticks = []
def tick():
    while len(ticks) < 8:
        time.sleep(0.01)
        ticks.append(1)
group = pool.Group()
group.spawn(tick)
for _ in range(10):
    group.spawn(call, wrapped, environ())
group.join()
print(time.monotonic() - began < 0.8, len(ticks))
"""


def _with_gevent(*, late: bool) -> subprocess.CompletedProcess[str]:
    """Run the program above."""
    pytest.importorskip("gevent")
    path = next(folder for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())
    program = GREENLETS.format(path=path, late=late)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_greenlets_wait_without_holding_up_their_thread() -> None:
    """Ten sync endpoints at a time, and others go on meanwhile: the loop runs in a real thread."""
    done = _with_gevent(late=False)

    assert done.stdout.split() == ["1", "True", "8"], done.stderr


def test_gevent_after_the_framework_is_refused() -> None:
    """gunicorn --preload with gevent: each sync endpoint would hang."""
    done = _with_gevent(late=True)

    assert done.returncode == 1
    assert "without --preload" in done.stderr


def test_uwsgi_without_threads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default gives Python's threads no time, and every request would hang."""
    from types import ModuleType

    from lamella.apps._asgi_loop import Loop

    uwsgi: Any = ModuleType("uwsgi")
    uwsgi.opt = {"master": True, b"lazy-apps": True}
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    with pytest.raises(LamellaError, match="--enable-threads"):
        Loop()
    uwsgi.opt["enable-threads"] = True
    Loop().close()


def test_a_process_that_ends_says_so() -> None:
    """Instead of waiting for an answer that nobody makes."""
    from lamella.apps._asgi_loop import Loop

    async def work() -> None: ...

    loop = Loop()
    loop.close()
    loop.close()
    with pytest.raises(LamellaError, match="ending"):
        loop.submit(work())
    loop.call(print)


# --- where an app is named ----------------------------------------------------------------------


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI app for stack files."""
    await answer(send, scope["root_path"].encode(), b"|", scope["path"].encode())


async def two(environ: Any, start_response: Any) -> list[bytes]:
    """An async function that is neither."""
    return []


def plain(environ: Any, start_response: Any) -> list[bytes]:
    """A WSGI app."""
    return []


class Streamed:
    """A WSGI app that is a class, as tutorials have it."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        yield b""


def test_tells_asgi_from_wsgi() -> None:
    """By what it is, not by its name."""
    quart_app: Any = quart.Quart("q")
    for app in (bare, functools.partial(bare), fastapi.FastAPI(), Starlette(), quart_app, fastapi.FastAPI().__call__):
        assert is_asgi(app)
    for app in (plain, Streamed, two, print, len, object(), EdgeMiddleware(plain)):
        assert not is_asgi(app)
    assert as_wsgi("app", plain) is plain


@pytest.mark.parametrize("wrong", [two, None, 3, "no.such:app", "os:sep"])
def test_refuses_what_is_no_asgi_app(wrong: Any) -> None:
    """When it is built."""
    with pytest.raises((ConfigError, ModuleNotFoundError)):
        ASGIApp(wrong)


@pytest.mark.parametrize("options", [{"lifespan": "maybe"}, {"startup_timeout": 0}, {"buffer": "x"}])
def test_refuses_wrong_options(options: dict[str, Any]) -> None:
    """When it is built."""
    with pytest.raises(ConfigError):
        ASGIApp(bare, **options)


def test_a_stack_and_a_mount_take_an_asgi_app() -> None:
    """In Python: the bridge is put around it."""
    stack = Stack([], app=DispatchMiddleware(plain, mounts={"/api": bare}))

    assert call(stack, environ("GET", "/api/x")).body == b"/api|/api/x"
    assert call(Stack([], app=bare), environ("GET", "/x")).body == b"|/x"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with modules that a stack file can name."""
    (tmp_path / "asgi_apps_of_a_test.py").write_text(
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': scope['path'].encode()})\n"
        "async def neither(one, two): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def stack_file(folder: Path, text: str) -> Path:
    """Write a stack file."""
    path = folder / "stack.toml"
    path.write_text("lamella = 1\n" + text)
    return path


@pytest.mark.parametrize(
    "app",
    [
        'use = "asgi_apps_of_a_test:app"',
        'use = "lamella.apps.asgi:ASGIApp"\napp = "asgi_apps_of_a_test:app"\nlifespan = "off"',
    ],
    ids=["as it is", "with options"],
)
def test_a_stack_file_takes_an_asgi_app(folder: Path, app: str) -> None:
    """As the app, plain or with the bridge's options; and as a mount, imported on first use."""
    mounts = 'mounts = { "/m" = "asgi_apps_of_a_test:app" }'
    path = stack_file(folder, f'[app]\n{app}\n[[layer]]\nuse = "dispatch"\n{mounts}\n')

    assert [one.message for one in check(path).errors] == []
    stack = load(path)
    assert call(stack, environ("GET", "/x")).body == b"/x"
    assert call(stack, environ("GET", "/m/x")).body == b"/m/x"


def test_an_async_function_that_is_neither_is_located(folder: Path) -> None:
    """As the app when loading, as a mount when checking."""
    with pytest.raises(StackFileError, match=r"stack.toml:3:7: .*an ASGI one"):
        load(stack_file(folder, '[app]\nuse = "asgi_apps_of_a_test:neither"\n'))
    mounts = 'mounts = { "/m" = "asgi_apps_of_a_test:neither" }'
    path = stack_file(folder, f'[app]\nuse = "asgi_apps_of_a_test:app"\n[[layer]]\nuse = "dispatch"\n{mounts}\n')
    assert ["an ASGI one" in one.message for one in check(path).errors] == [True]


# --- real frameworks ----------------------------------------------------------------------------


def test_fastapi_is_right_under_a_prefix() -> None:
    """Docs page, OpenAPI servers, url_for, redirects and forms know where they are mounted."""
    app = fastapi.FastAPI()

    @app.get("/items/{number}")
    def item(request: Request, number: int) -> dict[str, str]:
        return {"url": str(request.url_for("item", number=number + 1)), "path": request.url.path}

    @app.get("/go")
    def go(request: Request) -> RedirectResponse:
        return RedirectResponse(request.url_for("item", number=3))

    @app.post("/form")
    async def form(request: Request) -> dict[str, str]:
        return {key: str(value) for key, value in (await request.form()).items()}

    stack = EdgeMiddleware(DispatchMiddleware(plain, mounts={"/shop": app}))
    expected = b'{"url":"http://localhost/shop/items/2","path":"/shop/items/1"}'
    assert call(stack, environ("GET", "/shop/items/1")).body == expected
    assert "url: '/shop/openapi.json'" in call(stack, environ("GET", "/shop/docs")).text
    assert '"servers":[{"url":"/shop"}]' in call(stack, environ("GET", "/shop/openapi.json")).text
    assert call(stack, environ("GET", "/shop/go")).header("location") == "http://localhost/shop/items/3"
    slash = call(stack, environ("GET", "/shop/items/1/"))
    assert (slash.code, slash.header("location")) == (307, "http://localhost/shop/items/1")
    posted = environ("POST", "/shop/form", body=b"a=%C3%A9", content_type="application/x-www-form-urlencoded")
    assert call(stack, posted).body == '{"a":"\u00e9"}'.encode()
    assert call(stack, environ("GET", "/shop/missing")).code == 404


def test_its_routes_are_listed() -> None:
    """``lamella routes`` and ``lamella audit`` see through the bridge."""
    inner = Starlette(routes=[Route("/c", lambda request: PlainTextResponse("c"), methods=["GET", "POST"])])
    app = Starlette(routes=[Route("/b/{x}", lambda request: PlainTextResponse("b"), name="b"), Mount("/m", inner)])
    stack = Stack([Layer("dispatch", mounts={"/a": ASGIApp(app)})], app=app)

    rows = [(row.pattern, row.methods, row.endpoint) for row in routes(stack)]

    assert rows[:2] == [("/a/b/{x}", ("GET",), "b"), ("/a/m/…", (), "")]
    assert rows[2] == ("/b/{x}", ("GET",), "b")


def test_starlette_mounts_below_a_mount() -> None:
    """Its own sub-apps go on shifting root_path."""

    def where(request: Request) -> JSONResponse:
        return JSONResponse([request.scope["root_path"], request.scope["path"]])

    app = Starlette(routes=[Mount("/b", routes=[Route("/c", where)])])

    assert call(DispatchMiddleware(plain, mounts={"/a": app}), environ("GET", "/a/b/c")).body == b'["/a/b","/a/b/c"]'


def test_quart_serves_streams_and_takes_uploads() -> None:
    """Under a prefix, with its own startup hook."""
    app: Any = quart.Quart("quart_of_a_test")
    log: list[str] = []

    async def up() -> None:
        log.append("up")

    async def echo() -> Any:
        return await quart.request.get_data()

    async def stream() -> Any:
        async def blocks() -> AsyncIterator[bytes]:
            yield b"1"
            yield b"2"

        return blocks(), 200

    async def url() -> str:
        return quart.url_for("url")

    app.before_serving(up)
    app.post("/echo")(echo)
    app.get("/stream")(stream)
    app.get("/url")(url)
    stack = DispatchMiddleware(plain, mounts={"/q": app})
    assert call(stack, environ("POST", "/q/echo", body=b"x" * 70_000)).body == b"x" * 70_000
    assert call(stack, environ("GET", "/q/stream")).blocks == [b"1", b"2"]
    assert call(stack, environ("GET", "/q/url")).body == b"/q/url"
    assert log == ["up"]
