"""Tracing: what each layer did, who answered, what is masked, and that nothing changes."""

from __future__ import annotations

import html
import json
import time
from typing import Any

import pytest

from lamella.stack import Layer, Stack
from lamella.stack.headers import CASES, header_matrix
from lamella.stack.kernel.keys import SESSION
from lamella.stack.kernel.response import answer, edit_headers, on_close, set_header
from lamella.stack.testing import RecordingApp, call, environ
from lamella.stack.trace import Tracer, trace

SECRET = "0123456789abcdefghijklmnopqrstuvwxyz"


def adds(app: Any, *, name: str = "X-Added", value: str = "1") -> Any:
    """Adds a header and an environ key."""

    def layer(request: Any, start_response: Any) -> Any:
        request["adds.note"] = "added"
        return app(request, edit_headers(start_response, lambda headers: set_header(headers, name, value)))

    return layer


def rewrites(app: Any) -> Any:
    """Changes the path and removes a header."""

    def layer(request: Any, start_response: Any) -> Any:
        inner = {**request, "PATH_INFO": "/other"}
        del inner["HTTP_X_DROP"]
        return app(inner, edit_headers(start_response, lambda headers: headers[1:]))

    return layer


def guards(app: Any) -> Any:
    """Answers itself."""

    def layer(request: Any, start_response: Any) -> Any:
        return answer(request, start_response, "403 Forbidden", b"no")

    return layer


def replaces(app: Any) -> Any:
    """Asks the app and answers something else."""

    def layer(request: Any, start_response: Any) -> Any:
        body = app(request, lambda *arguments: lambda data: None)
        body.close()
        return answer(request, start_response, "503 Service Unavailable", b"busy")

    return layer


def reads(app: Any) -> Any:
    """Reads the request's body and puts it back."""

    def layer(request: Any, start_response: Any) -> Any:
        import io

        request["wsgi.input"] = io.BytesIO(request["wsgi.input"].read(int(request["CONTENT_LENGTH"])))
        return app(request, start_response)

    return layer


def catches(app: Any) -> Any:
    """Turns an exception into an answer."""

    def layer(request: Any, start_response: Any) -> Any:
        try:
            return app(request, start_response)
        except ValueError:
            return answer(request, start_response, "500 Internal Server Error", b"sorry")

    return layer


def works(app: Any) -> Any:
    """Takes a while."""

    def layer(request: Any, start_response: Any) -> Any:
        time.sleep(0.02)
        return app(request, start_response)

    return layer


def test_shows_what_a_layer_did_to_request_and_answer() -> None:
    """Keys and headers are compared with what the layer got from outside and from inside."""
    stack = Stack([Layer(adds), Layer(rewrites)], app=RecordingApp())

    traced = trace(stack, environ("GET", "/path", x_drop="1"))

    outer, inner, app = traced.steps
    assert [str(change) for change in outer.environ] == ["+ adds.note = 'added'"]
    assert [str(change) for change in outer.header_changes] == ["+ X-Added = 1"]
    assert [str(change) for change in inner.environ] == ["- HTTP_X_DROP", "~ PATH_INFO = '/other' (was '/path')"]
    assert [(change.kind, change.name) for change in inner.header_changes] == [("removed", "Content-Type")]
    assert (app.id, app.status, app.blocks, app.bytes, app.closes) == ("app", "200 OK", 1, 5, 1)
    assert (traced.answered_by, traced.status, traced.error) == ("app", "200 OK", None)


@pytest.mark.parametrize(("layer", "by"), [(guards, "guards"), (replaces, "replaces"), (adds, "app")])
def test_says_who_answered(layer: Any, by: str) -> None:
    """The answer of the one that made it, not of those that passed it on."""
    stack = Stack([Layer(adds, id="outer", name="X-Outer"), Layer(layer)], app=RecordingApp())

    assert trace(stack, environ("GET", "/")).answered_by == by


def test_counts_the_body_s_bytes_where_they_were_read() -> None:
    """A layer that reads for the app is seen to, and nothing is counted twice."""
    stack = Stack([Layer(adds), Layer(reads)], app=RecordingApp(read=-1))

    steps = {step.id: step.read for step in trace(stack, environ("POST", "/", body=b"12345")).walk()}

    assert steps == {"adds": 0, "reads": 5, "app": 5}


def test_follows_an_exception_outwards() -> None:
    """It is shown at each layer that it passed, up to the one that caught it."""
    stack = Stack([Layer(catches), Layer(adds)], app=RecordingApp(raises=ValueError("boom")))

    caught = trace(stack, environ("GET", "/"))
    escaped = trace(stack.without("catches"), environ("GET", "/"))
    late = trace(stack, environ("GET", "/"))

    assert (caught.raised_by, caught.answered_by, caught.error) == (["app", "adds"], "catches", None)
    assert isinstance(escaped.error, ValueError)
    assert (escaped.status, escaped.answered_by) == ("", "")
    assert "raised  ValueError: boom" in late.text()


def test_an_error_in_the_body_reaches_the_trace() -> None:
    """It passed every layer whose body was being read."""
    stack = Stack([Layer(adds)], app=RecordingApp(raises_after=KeyError("late")))

    traced = trace(stack, environ("GET", "/"))

    assert isinstance(traced.error, KeyError)
    assert traced.raised_by == ["app", "adds"]
    assert [step.closes for step in traced.walk()] == [1, 1]


@pytest.mark.timing
def test_time_is_given_to_the_layer_that_took_it() -> None:
    """Own time is that of the layer; the total has what is inside."""
    stack = Stack([Layer(adds), Layer(works)], app=RecordingApp())

    outer, slow, app = trace(stack, environ("GET", "/")).steps

    assert slow.own >= 0.02 > 10 * outer.own
    assert outer.total >= slow.total >= slow.own
    assert app.first_byte is not None
    assert app.first_byte >= 0.02


def test_a_client_that_leaves_closes_every_body() -> None:
    """After one block, all layers were closed once, and nothing more was read."""
    app = RecordingApp(body=[b"a", b"b", b"c"])

    traced = trace(Stack([Layer(adds)], app=app), environ("GET", "/"), blocks=1)

    assert (app.yielded, app.closed) == (1, 1)
    assert [(step.blocks, step.closes) for step in traced.walk()] == [(1, 1), (1, 1)]


def test_secrets_are_masked_everywhere() -> None:
    """Credentials, cookies, tokens in queries and in redirects are in no form of a trace."""
    headers = (("Set-Cookie", "sid=hush1; Path=/"), ("Location", "/?token=hush2"), ("X-Api-Key", "hush3"))

    def leaks(app: Any) -> Any:
        def layer(request: Any, start_response: Any) -> Any:
            request["HTTP_AUTHORIZATION"] = "Basic hush4"
            request["lamella.csrf_token"] = "hush5"
            request["QUERY_STRING"] = "a=1&access_token=hush6"
            request["HTTP_COOKIE"] = "sid=hush7"
            return app(request, start_response)

        return layer

    stack = Stack(
        [Layer(leaks), Layer("session", secret=SECRET)],
        app=RecordingApp(headers=headers, before=lambda request: SESSION.require(request).update(word="hush8")),
    )

    traced = trace(stack, environ("GET", "/?password=hush9"))
    shown = traced.text() + traced.html() + traced.to_json() + repr(traced) + str(traced.headers)

    assert "hush" not in shown
    assert SECRET not in shown
    assert "sid=***; Path=/" in shown
    assert "a=1&access_token=***" in shown


def test_the_forms_say_the_same() -> None:
    """JSON, text, tree and page show the same steps; the page escapes what came from outside."""
    import io

    from rich.console import Console

    traced = trace(Stack([Layer(adds, value="<script>")], app=RecordingApp()), environ("GET", "/a%3Cb%3E"))
    text = io.StringIO()
    Console(file=text, width=200).print(traced.tree())

    data = json.loads(traced.to_json())
    assert data["root"]["children"][0]["id"] == "app"
    assert data["root"]["headers"][0] == {"kind": "added", "name": "X-Added", "before": "", "after": "<script>"}
    for shown in (traced.text(), text.getvalue()):
        assert "+ X-Added = <script>" in shown
        assert "GET /a<b> → 200 OK by app" in shown
    assert "<script>" not in traced.html()
    assert "&lt;script&gt;" in traced.html()


def test_sub_stacks_are_followed() -> None:
    """A layer in a mounted stack is traced with its full id."""
    staff = Stack([Layer(adds)], app=RecordingApp(body=[b"staff"]), name="staff")
    stack = Stack([Layer("dispatch", mounts={"/admin": staff})], app=RecordingApp())

    traced = trace(stack, "GET /admin/users")

    assert [step.id for step in traced.walk()] == ["dispatch", "staff/adds", "staff/app"]
    assert traced.answered_by == "staff/app"
    assert trace(stack, "/").answered_by == "app"


def test_accepts_what_people_have_at_hand() -> None:
    """Text, an environ, an object that has one; the environ given is not changed."""

    class Request:
        environ = environ("GET", "/object")

    stack = Stack([Layer(adds)], app=RecordingApp())
    request = environ("GET", "/dict")

    assert [stack.trace(given).target for given in ("/text", "GET /text?q=1", request, Request())] == [
        "/text",
        "/text?q=1",
        "/dict",
        "/object",
    ]
    assert "adds.note" not in request


def test_a_stack_that_is_not_traced_has_no_probes() -> None:
    """Off costs nothing: the stack calls the very same objects before and after a trace."""
    stack = Stack([Layer("request_id"), Layer("context")], app=RecordingApp())
    before = stack.wsgi_closure

    trace(stack, environ("GET", "/"))

    assert stack.wsgi_closure is before
    assert "trace" not in before.__module__


def test_answers_are_the_same_with_tracing_on() -> None:
    """A tracer is a WSGI application that answers as the stack does, and hands its traces out."""
    traces: list[Any] = []
    stack = Stack([Layer(adds), Layer(rewrites)], app=RecordingApp(body=[b"a", b"b"], late=True, write=[b"w"]))

    plain = call(stack, environ("GET", "/", x_drop="1"))
    traced = call(Tracer(stack, on_trace=traces.append), environ("GET", "/", x_drop="1"))

    assert (traced.status, traced.headers, traced.blocks) == (plain.status, plain.headers, plain.blocks)
    assert [(one.answered_by, one.root.blocks) for one in traces] == [("app", 3)]
    with pytest.raises(ValueError, match="boom"):
        call(
            Tracer(Stack([Layer(adds)], app=RecordingApp(raises=ValueError("boom"))), on_trace=traces.append), environ()
        )
    assert isinstance(traces[-1].error, ValueError)


def test_server_timing_is_sent_where_it_is_asked_for() -> None:
    """The browser's tools show the layers' times; names are tokens."""
    stack = Stack([Layer(works), Layer(adds)], app=RecordingApp())

    response = call(Tracer(stack, server_timing=True), environ("GET", "/"))

    times = dict(part.split(";dur=") for part in (response.header("Server-Timing") or "").split(", "))
    assert list(times) == ["works", "adds", "app"]
    assert float(times["works"]) >= 20
    assert call(Tracer(stack), environ("GET", "/")).header("Server-Timing") is None


def test_keeps_the_file_wrapper() -> None:
    """A file is handed to the server as it is, also when traced; its close counts nothing away."""
    import io
    from wsgiref.util import FileWrapper

    given: list[Any] = []

    def serves(request: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        given.append(FileWrapper(io.BytesIO(b"file")))
        return on_close(request, given[-1], lambda finished: None)

    request = {**environ("GET", "/"), "wsgi.file_wrapper": FileWrapper}
    body = Stack([Layer(adds)], app=serves).build(lambda node, app: app)(request, lambda *a: lambda data: None)
    assert body is given[0]
    body.close()
    assert trace(Stack([Layer(adds)], app=serves), request).root.status == "200 OK"


@pytest.mark.timing
def test_tracing_stays_under_three_times_the_request() -> None:
    """Five layers around a handler that renders a short page, traced, against the same alone; the best of some runs."""
    layers = [
        Layer("edge"),
        Layer("request_id"),
        Layer("security_headers"),
        Layer("cors", origins=["https://a.example"]),
        Layer("session", secret=SECRET),
    ]

    def page(request: dict[str, Any], start_response: Any) -> list[bytes]:
        name = SESSION.require(request).get("name")
        rows = "".join(f"<tr><td>{html.escape(f'{name} & {number}')}<td>{number * 1.19:,.2f}" for number in range(25))
        body = f"<table>{rows}</table>".encode()
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
        return [body]

    stack = Stack(layers, app=page)
    tracer = Tracer(stack)

    def best(app: Any) -> float:
        times = []
        for _ in range(15):
            start = time.perf_counter()
            for _ in range(20):
                call(app, environ("GET", "/"))
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(tracer) < 3 * best(stack)


# --- the matrix of headers ----------------------------------------------------------------------


def test_the_matrix_shows_which_layer_sets_which_header() -> None:
    """A row for each layer and header, a column for each kind of answer."""
    stack = Stack([Layer("request_id"), Layer(adds)], app=RecordingApp())

    matrix = header_matrix(stack)

    assert matrix.cases == [case.name for case in CASES]
    assert len(matrix.cases) == 12
    marks = dict(zip(matrix.cases, matrix.cells["adds", "x-added"], strict=True))
    assert {name for name, mark in marks.items() if mark == "+"} == set(matrix.cases) - {"500"}
    assert matrix.statuses["500"] == "!"
    assert matrix.statuses["redirect"] == "302"
    assert set(matrix.statuses.values()) >= {"200", "204", "206", "304", "404", "405"}


def test_the_matrix_is_the_same_in_every_run() -> None:
    """So that CI can compare it with the one of yesterday; values are not in it."""
    stack = Stack([Layer("request_id")], app=RecordingApp())

    assert header_matrix(stack).text() == header_matrix(stack).text()
    assert json.loads(header_matrix(stack).to_json())["rows"][0]["cases"]
    assert header_matrix(stack).table().row_count == len(header_matrix(stack).cells) + 1
