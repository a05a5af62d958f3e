"""Changing and replacing answers without breaking PEP 3333."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import FileWrapper

import pytest

from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.response import (
    Headers,
    add_vary,
    answer,
    check_header,
    edit_headers,
    get_header,
    has_body,
    name_kinds,
    name_test,
    on_close,
    refuse,
    set_header,
    substitute,
)
from lamella.stack.testing import RecordingApp, call, environ, lint


def substituting(app: WSGIApplication, status: str, other: WSGIApplication) -> WSGIApplication:
    """A layer that lets *other* answer instead of each answer with *status*."""

    def layer(request: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def choose(given: str, headers: Headers) -> WSGIApplication | None:
            return other if given.startswith(status) else None

        return substitute(app, request, start_response, choose)

    return layer


def editing(app: WSGIApplication) -> WSGIApplication:
    """A layer that adds one header."""

    def layer(request: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return app(request, edit_headers(start_response, lambda headers: [*headers, ("X-Added", "yes")]))

    return layer


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("write", [(), (b"written ",)])
def test_edits_headers_of_every_kind_of_app(late: bool, write: tuple[bytes, ...]) -> None:
    """Early or late, with or without ``write()``."""
    app = RecordingApp(late=late, write=write)

    response = call(lint(editing(lint(app))), environ())

    assert response.header("X-Added") == "yes"
    assert response.body == b"".join(write) + b"hello"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("write", [(), (b"secret",)])
@pytest.mark.parametrize("body", [(), (b"secret", b"more")])
def test_substitutes_an_answer(late: bool, write: tuple[bytes, ...], body: tuple[bytes, ...]) -> None:
    """The refused answer is dropped whole and closed once; the other one is sent whole."""
    refused = RecordingApp(status="404 Not Found", late=late, write=write, body=body)
    other = RecordingApp(body=[b"other ", b"answer"])

    response = call(lint(substituting(lint(refused), "404", lint(other))), environ())

    assert (response.code, response.body) == (200, b"other answer")
    assert (refused.closed, other.closed) == (1, 1)


@pytest.mark.parametrize("late", [False, True])
def test_keeps_an_answer_it_does_not_substitute(late: bool) -> None:
    """What is kept passes through block by block."""
    app = RecordingApp(late=late, body=[b"a", b"b"])

    response = call(lint(substituting(lint(app), "404", RecordingApp())), environ())

    assert (response.code, response.blocks) == (200, [b"a", b"b"])
    assert app.closed == 1


def test_keeps_the_body_object_of_an_answer_it_keeps() -> None:
    """The very iterable is returned, so that a file wrapper stays one."""
    body = [b"x"]

    def app(request: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return body

    assert substituting(app, "404", RecordingApp())(environ(), lambda *args: lambda data: None) is body


def test_closes_both_when_the_client_leaves() -> None:
    """An abort in the middle of the other answer closes what is open."""
    refused = RecordingApp(status="404 Not Found", late=True)
    other = RecordingApp(body=[b"a", b"b"])

    call(substituting(refused, "404", other), environ(), blocks=1)

    assert (refused.closed, other.closed) == (1, 1)


def test_substitutes_an_error_page_given_with_exc_info() -> None:
    """A first answer by ``exc_info`` can be replaced like any other."""

    def app(request: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())
        return [b"trace"]

    response = call(lint(substituting(app, "500", RecordingApp())), environ())

    assert response.body == b"hello"


def test_a_hook_runs_after_close_even_where_that_raises() -> None:
    """The hook is told how the body ended; the error is not swallowed."""
    ends: list[bool] = []

    class Body:
        def __iter__(self) -> Any:
            return iter([b"x"])

        def close(self) -> None:
            raise RuntimeError("closing failed")

    body = on_close(environ(), Body(), ends.append)
    assert list(body) == [b"x"]
    with pytest.raises(RuntimeError):
        body.close()  # type: ignore[attr-defined]
    body.close()  # type: ignore[attr-defined]

    assert ends == [True]


def test_a_hook_is_told_of_an_early_end() -> None:
    """False means that the client left before the last block."""
    ends: list[bool] = []
    body = on_close(environ(), [b"a", b"b"], ends.append)

    next(iter(body))
    body.close()  # type: ignore[attr-defined]

    assert ends == [False]


def test_a_hook_keeps_the_file_wrapper() -> None:
    """The server's own wrapper is returned as it is; its file is closed, then the hook runs, once."""
    ends: list[bool] = []
    wrapper = FileWrapper(io.BytesIO(b"file"))

    body = on_close({**environ(), "wsgi.file_wrapper": FileWrapper}, wrapper, ends.append)
    wrapper.close()
    wrapper.close()

    assert body is wrapper
    assert wrapper.filelike.closed
    assert ends == [True]


def test_a_hook_wraps_a_file_wrapper_that_takes_no_attributes() -> None:
    """A wrapper written in C may refuse attributes; the hook still runs."""

    class Sealed:
        __slots__ = ()

        def __iter__(self) -> Any:
            return iter([b"x"])

    ends: list[bool] = []
    body = on_close({**environ(), "wsgi.file_wrapper": Sealed}, Sealed(), ends.append)
    assert list(body) == [b"x"]
    body.close()  # type: ignore[attr-defined]

    assert ends == [True]


@pytest.mark.parametrize(
    ("present", "added", "expected"),
    [
        ([], ["Origin"], "Origin"),
        (["Accept"], ["Origin"], "Accept, Origin"),
        (["origin"], ["Origin"], "origin"),
        (["Accept", "Cookie"], ["cookie", "Origin"], "Accept, Cookie, Origin"),
        (["*"], ["Origin"], "*"),
        ([" * "], ["Origin"], "*"),
        (["Accept , *"], ["Origin"], "*"),
    ],
)
def test_merges_vary(present: list[str], added: list[str], expected: str) -> None:
    """One field, no name twice, ``*`` swallows all."""
    headers = add_vary([("Vary", value) for value in present], *added)

    assert get_header(headers, "vary") == expected
    assert len(headers) == 1


def test_set_header_replaces_all_of_its_name() -> None:
    """The field stands once afterwards, and the given list is not changed."""
    given = [("A", "1"), ("B", "2"), ("a", "3")]

    assert set_header(given, "A", "4") == [("B", "2"), ("A", "4")]
    assert len(given) == 3


@pytest.mark.parametrize(("name", "value"), [("X Y", "a"), ("", "a"), ("X", "a\r\nb"), ("X", "\x00"), ("X", "€")])
def test_bad_headers_are_refused(name: str, value: str) -> None:
    """Nothing that could end the line or the field is let out."""
    with pytest.raises(ValueError, match="header"):
        check_header(name, value)


def test_no_corpus_value_adds_a_header_line(corpus: Any) -> None:
    """Each hostile value is refused or harmless."""
    for value in corpus("header_injection")["cases"]:
        try:
            _, kept = check_header("X-Name", value)
        except ValueError:
            continue
        assert not set(kept) & {"\r", "\n", "\0"}
        assert len(kept.encode("latin-1")) == len(kept)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "404 Not Found"])
def test_answers_have_a_body_only_where_one_may_be(method: str, status: str) -> None:
    """HEAD keeps the length; 204 and 304 have none."""

    def app(request: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        return answer(request, start_response, status, b"text")

    response = call(lint(app), environ(method))

    assert response.body == (b"text" if has_body(status, method) else b"")
    assert response.header("Content-Length") == ("4" if has_body(status) else None)


def test_refusals_say_why_and_are_not_kept() -> None:
    """A 400 tells the reason in our own words and forbids caches to keep it."""

    def app(request: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        return refuse(request, start_response, BadRequestError("the path is not UTF-8"))

    response = call(lint(app), environ())

    assert (response.code, response.text) == (400, "the path is not UTF-8\n")
    assert response.header("Cache-Control") == "no-store"


def test_a_name_test_tells_apart_and_is_bounded() -> None:
    """In whatever spelling; what it remembers is never one of the names."""
    others, is_one = name_test(["Vary", "etag"])

    for number in range(600):
        assert not is_one(f"X-{number}")
    assert not is_one("X" * 1000)
    for name in ("Vary", "vary", "VARY", "ETag", "etag"):
        assert is_one(name)
        assert name not in others
    assert len(others) == 256
    assert not is_one("X-599")


def test_kinds_of_names_are_told_apart_and_bounded() -> None:
    """In whatever spelling, whatever else was asked before."""
    kinds, kind_of = name_kinds(["Vary", "etag"])

    for number in range(600):
        assert kind_of(f"X-{number}") == ""
    assert kind_of("X" * 1000) == ""
    for name in ("Vary", "vary", "VARY", "ETag", "etag"):
        assert kind_of(name) == name.lower()
    assert len(kinds) == 256
    assert max(map(len, kinds)) < 64
