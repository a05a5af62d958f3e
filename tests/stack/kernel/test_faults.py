"""What is said of an app that breaks WSGI: its name, the fault, the cure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lamella.middleware.edge import EdgeMiddleware
from lamella.middleware.errors import ErrorsMiddleware
from lamella.stack import Layer, Stack
from lamella.stack.kernel.faults import app_name, fault_of_body, fault_of_status, note_app
from lamella.stack.kernel.keys import MOUNT
from lamella.stack.testing import call, environ


def sends(body: Any, status: Any = "200 OK") -> Callable[..., Any]:
    """An app that returns such a body."""

    def tutorial(request: dict[str, Any], start_response: Any) -> Any:
        start_response(status, [("Content-Type", "text/plain")])
        return body() if callable(body) else body

    return tutorial


def late() -> Iterator[Any]:
    """Text after the first block."""
    yield b"one"
    yield "two"


def early() -> Iterator[Any]:
    """Text at once."""
    yield "one"


FAULTS = [
    pytest.param("text", 'returned text as its body: write return [body.encode("utf-8")]', id="text"),
    pytest.param(b"bytes", "returned bare bytes as its body", id="bytes"),
    pytest.param(bytearray(b"b"), "returned bare bytes as its body", id="a bytearray"),
    pytest.param(None, "returned nothing: end it with return", id="nothing"),
    pytest.param(["text"], "has text in its body: encode each part", id="a list of text"),
    pytest.param(("text",), "has text in its body: encode each part", id="a tuple of text"),
    pytest.param([b"a", "b"], "has text in its body: encode each part", id="text second"),
    pytest.param([1], "has an object of type int in its body", id="a number"),
    pytest.param(early, "has text in its body: encode each part", id="a generator of text"),
]


@pytest.mark.parametrize(("body", "fault"), FAULTS)
def test_edge_answers_500_and_names_the_app(body: Any, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """The client learns nothing, the log everything."""
    answer = call(EdgeMiddleware(sends(body)), environ("GET", "/x"))

    assert (answer.code, answer.body) == (500, b"Internal Server Error\n")
    assert f"test_faults:sends.<locals>.tutorial {fault}" in caplog.text
    assert "GET '/x'" in caplog.text


@pytest.mark.parametrize(("body", "fault"), FAULTS)
def test_errors_shows_it_to_developers(body: Any, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """With debug on, the page in the browser has the same sentence."""
    request = environ("GET", "/x", accept="text/plain")
    request["REMOTE_ADDR"] = "127.0.0.1"

    answer = call(ErrorsMiddleware(sends(body), debug=True), request)
    plain = call(ErrorsMiddleware(sends(body)), environ("GET", "/x"))

    assert (answer.code, plain.code) == (500, 500)
    assert fault.encode() in answer.body.replace(b"&#34;", b'"').replace(b"&quot;", b'"').replace(b'\\"', b'"')
    assert b"tutorial" not in plain.body
    assert fault in caplog.text


def test_text_after_the_first_block_cuts_the_connection() -> None:
    """What is out cannot be taken back; a clean end would look like the whole."""
    body = EdgeMiddleware(sends(late))(environ("GET", "/"), lambda *args: lambda data: None)
    blocks = iter(body)

    assert next(blocks) == b"one"
    with pytest.raises(TypeError, match="has text in its body"):
        next(blocks)


@pytest.mark.parametrize("status", ["20000", "20000 OK", 200, "OK", "", None])
@pytest.mark.parametrize("layer", [EdgeMiddleware, ErrorsMiddleware])
def test_a_status_that_is_none(layer: Any, status: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As ``start_response("20000", …)`` of a tutorial."""
    with caplog.at_level(logging.ERROR):
        answer = call(layer(sends([b"x"], status)), environ("GET", "/"))

    assert answer.code == 500
    assert f"tutorial gave the status {'as ' if not isinstance(status, str) else ''}" in caplog.text
    assert 'such as "200 OK"' in caplog.text


def test_a_right_answer_has_no_fault() -> None:
    """Whatever servers take."""
    assert fault_of_body([b"x"], b"x") is None
    assert fault_of_body(iter([b""]), b"") is None
    assert fault_of_status("200 OK") is None
    assert fault_of_status("204") is None


def test_an_app_is_named_as_in_the_stack(caplog: pytest.LogCaptureFixture) -> None:
    """By its mount, else by what the stack calls it, however many layers are between."""
    stack = Stack([Layer("edge"), Layer("request_id"), Layer("conditional")], app=sends("text"))
    assert call(stack, environ("GET", "/")).code == 500
    assert "the app " + stack.application.use + " returned text" in caplog.text

    mounted = Stack([Layer("edge"), Layer("dispatch", mounts={"/one": sends("text")})], app=sends([b"root"]))
    assert call(mounted, environ("GET", "/one/")).code == 500
    assert "the app at /one returned text" in caplog.text


def test_whatever_stands_inside_can_be_named() -> None:
    """Also what has no name of its own, and no weak references."""

    class Slotted:
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

    note_app(Slotted(), "never kept")

    assert app_name(Slotted(), {}).endswith("Slotted")
    assert app_name(EdgeMiddleware(sends([])), {}) == "the app"
    request: dict[str, Any] = {}
    MOUNT.set(request, "/m")
    assert app_name(Slotted(), request) == "the app at /m"
