"""CompressMiddleware: what shrinks for whom, block by block, and what is left alone."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Any
from wsgiref.types import WSGIApplication

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lamella.middleware.compress import CompressMiddleware
from lamella.middleware.conditional import ConditionalMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.testing import RecordingApp, Response, call, environ, lint

TEXT = b"All work and no play makes Jack a dull boy. " * 100
HTML = ("Content-Type", "text/html; charset=utf-8")


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    return lint(CompressMiddleware(lint(app), **options))


def app_of(*more: tuple[str, str], body: Any = (TEXT,), **script: Any) -> RecordingApp:
    """An app that answers with compressible text."""
    return RecordingApp(headers=[HTML, *more], body=body, **script)


def ask(app: WSGIApplication, accept: str | None = "gzip", method: str = "GET", **headers: Any) -> Response:
    """Ask as a client that accepts these codings."""
    if accept is not None:
        headers["accept_encoding"] = accept
    return call(app, environ(method, "/", **headers))


def decoded(response: Response) -> bytes:
    """The content, whatever it is coded with."""
    coding = response.header("Content-Encoding")
    if coding == "gzip":
        return gzip.decompress(response.body)
    if coding == "br":
        plain: bytes = brotli.decompress(response.body)
        return plain
    if coding == "zstd":
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(response.body)
        return plain
    return response.body


@pytest.mark.parametrize("coding", ["zstd", "br", "gzip"])
@pytest.mark.parametrize("script", [{}, {"late": True}, {"write": [TEXT]}, {"body": [TEXT[:1000], b"", TEXT[1000:]]}])
def test_compresses_every_kind_of_answer(coding: str, script: dict[str, Any]) -> None:
    """Whole, late, written, in blocks: it decodes to what the app sent, and is shorter."""
    app = app_of(**script)

    response = ask(layer(app), coding)

    assert response.header("Content-Encoding") == coding
    assert decoded(response) == TEXT * (1 + ("write" in script))
    assert len(response.body) < len(TEXT)
    assert response.header("Vary") == "Accept-Encoding"
    assert app.closed == 1


def test_every_block_can_be_decoded_when_it_arrives() -> None:
    """A page that streams stays one: one block out for each block in, flushed."""
    for coding in ("zstd", "br", "gzip"):
        blocks = [f"block {number} ".encode() * 50 for number in range(5)]
        response = ask(layer(app_of(body=blocks)), coding)

        assert len(response.blocks) == len(blocks) + 1
        decoders = {
            "gzip": zlib.decompressobj(31).decompress,
            "br": brotli.Decompressor().process,
            "zstd": zstandard.ZstdDecompressor().decompressobj().decompress,
        }
        assert [decoders[coding](block) for block in response.blocks[:5]] == blocks


def test_a_whole_body_keeps_a_true_length() -> None:
    """One block is compressed at once, and its new length told."""
    app = app_of(("Content-Length", str(len(TEXT))), ("Accept-Ranges", "bytes"), ("Content-MD5", "x"))

    def whole(request: dict[str, Any], start_response: Any) -> list[bytes]:
        return [b"".join(app(request, start_response))]

    response = ask(lint(CompressMiddleware(whole)))

    assert response.header("Content-Length") == str(len(response.body))
    assert response.header("Accept-Ranges") is None
    assert response.header("Content-MD5") is None


def test_a_body_that_does_not_shrink_is_sent_as_it_is() -> None:
    """Random bytes called text would only grow."""
    import os

    noise = os.urandom(2000)

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [HTML, ("Content-Length", "2000")])
        return [noise]

    response = ask(lint(CompressMiddleware(app)))

    assert (response.header("Content-Encoding"), response.body) == (None, noise)
    assert response.header("Vary") == "Accept-Encoding"


@pytest.mark.parametrize("accept", [None, "", "identity", "deflate", "gzip;q=0", "xgzip", '"gzip"', "*;q=0, identity"])
def test_leaves_the_content_to_clients_that_want_it_plain(accept: str | None) -> None:
    """But says that it varies, so that a cache keeps it apart."""
    response = ask(layer(app_of()), accept)

    assert (response.header("Content-Encoding"), response.body) == (None, TEXT)
    assert response.header("Vary") == "Accept-Encoding"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([HTML, ("Content-Encoding", "br")], id="compressed already"),
        pytest.param([HTML, ("Content-Range", "bytes 0-9/100")], id="a range"),
        pytest.param([HTML, ("Cache-Control", "public, No-Transform")], id="no-transform"),
        pytest.param([("Content-Type", "image/png")], id="an image"),
        pytest.param([("Content-Type", "text/event-stream")], id="an event stream"),
        pytest.param([("Content-Type", "application/octet-stream")], id="unknown bytes"),
    ],
)
def test_leaves_some_answers_alone(headers: list[tuple[str, str]]) -> None:
    """What cannot or must not be compressed does not vary either; its body is handed on as it is."""
    response = ask(layer(RecordingApp(headers=headers, body=[TEXT])))

    assert response.headers == headers
    assert response.body == TEXT


@pytest.mark.parametrize(("size", "compressed"), [(499, False), (500, True)])
def test_small_answers_are_left_alone(size: int, compressed: bool) -> None:
    """Below ``min_size`` the coding costs more than it saves."""
    body = TEXT[:size]

    response = ask(layer(app_of(("Content-Length", str(size)), body=[body])))

    assert (response.header("Content-Encoding") == "gzip") is compressed


@pytest.mark.parametrize(
    ("status", "headers"),
    [("204 No Content", []), ("304 Not Modified", [("ETag", '"a"')]), ("206 Partial Content", [HTML])],
)
def test_answers_without_whole_content_are_left_alone(status: str, headers: list[tuple[str, str]]) -> None:
    """204, 206, 304."""
    body = [TEXT] if status.startswith("206") else []

    response = ask(layer(RecordingApp(status=status, headers=headers, body=body)))

    assert response.headers == headers


def test_head_has_the_headers_of_get_and_no_body() -> None:
    """The body that the app has for HEAD, none, is not made into a gzip trailer."""
    for script in ({}, {"late": True}):
        app = app_of(("Content-Length", str(len(TEXT))), body=[], **script)
        response = ask(CompressMiddleware(app), method="HEAD")

        assert response.header("Content-Encoding") == "gzip"
        assert response.header("Content-Length") is None
        assert response.body == b""
        assert app.closed == 1


def test_a_strong_tag_becomes_weak() -> None:
    """The bytes are others; a weak tag still makes a 304, and never a 412 or a joined range."""
    assert ask(layer(app_of(("ETag", '"v1"')))).header("ETag") == 'W/"v1"'
    assert ask(layer(app_of(("ETag", 'W/"v1"')))).header("ETag") == 'W/"v1"'
    assert ask(layer(app_of(("ETag", '"v1"'))), "identity").header("ETag") == '"v1"'


def test_a_304_has_the_tag_that_the_client_knows() -> None:
    """Weak for one that was sent the compressed answer, strong for another."""
    app = RecordingApp(status="304 Not Modified", headers=[("ETag", '"v1"')], body=[])

    known = ask(layer(app), if_none_match='W/"v1"')
    other = ask(layer(app), if_none_match='"v1"')

    assert (known.header("ETag"), known.header("Vary")) == ('W/"v1"', "Accept-Encoding")
    assert other.header("ETag") == '"v1"'


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("if_none_match", '"a"', 304),
        ("if_none_match", 'W/"a"', 304),
        ("if_match", '"a"', 200),
        ("if_match", 'W/"a"', 412),
        ("if_match", '"b"', 412),
    ],
)
def test_the_tag_it_weakened_comes_back(field: str, value: str, code: int) -> None:
    """Either form of the tag finds the copy that the client has; a weak one never matches strongly."""
    tagged = app_of(("ETag", '"a"'))

    assert ask(CompressMiddleware(ConditionalMiddleware(tagged)), "gzip", **{field: value}).code == code


@pytest.mark.parametrize(
    ("vary", "expected"), [("Cookie", "Cookie, Accept-Encoding"), ("*", "*"), ("accept-encoding",) * 2]
)
def test_merges_vary(vary: str, expected: str) -> None:
    """Without doubling a name."""
    assert ask(layer(app_of(("Vary", vary)))).header("Vary") == expected


@pytest.mark.parametrize("header", [("Set-Cookie", "a=b"), ("Cache-Control", "private"), ("Vary", "Cookie")])
def test_what_is_somebodys_own_is_padded(header: tuple[str, str]) -> None:
    """The length changes from answer to answer, so that it tells nothing of a secret (BREACH)."""
    wrapped = layer(app_of(header))

    answers = [ask(wrapped, "br, gzip") for _ in range(30)]

    assert {answer.header("Content-Encoding") for answer in answers} == {"gzip"}
    assert all(decoded(answer) == TEXT for answer in answers)
    assert len({len(answer.body) for answer in answers}) > 5
    assert ask(wrapped, "br").header("Content-Encoding") is None
    assert ask(layer(app_of(header), breach="off"), "br, gzip").header("Content-Encoding") == "br"


def test_gzip_tells_no_time() -> None:
    """Equal content is equal bytes."""
    first, second = ask(layer(app_of())), ask(layer(app_of()))

    assert first.body == second.body
    assert first.body[4:8] == b"\0\0\0\0"


def test_an_error_page_given_with_exc_info_is_compressed() -> None:
    """A second start before anything was sent takes the place of the first."""
    import sys

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [HTML])
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return [TEXT]

    response = ask(layer(app))

    assert (response.code, decoded(response)) == (500, TEXT)


def test_memory_does_not_grow_with_the_body() -> None:
    """A gigabyte would be streamed; here 64 MB are, and at most a few hold."""
    import tracemalloc

    block = TEXT * 20

    def blocks() -> Iterator[bytes]:
        for _ in range(64_000_000 // len(block)):
            yield block

    body = iter(
        CompressMiddleware(RecordingApp(headers=[HTML], body=blocks))(
            environ("GET", "/", accept_encoding="gzip"), lambda *_: lambda data: None
        )
    )
    tracemalloc.start()
    sent = sum(len(piece) for piece in body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert sent < 2_000_000
    assert peak < 4_000_000


def test_every_header_of_the_corpus(corpus: Any) -> None:
    """Only allowed codings are used, and the preferred one where one is."""
    wrapped = CompressMiddleware(app_of(body=lambda: [TEXT]), encodings=["br", "gzip"])
    for case in corpus("accept_encoding")["cases"]:
        response = ask(wrapped, case["accept_encoding"])
        used = response.header("Content-Encoding") or "identity"
        assert used in case["allowed"], case
        if case.get("preferred") not in (None, "any"):
            assert used == case["preferred"], case


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_accept_encoding_breaks_it(accept: str) -> None:
    """Whatever a client sends."""
    response = ask(CompressMiddleware(app_of()), accept)

    assert decoded(response) == TEXT


@pytest.mark.parametrize(
    "options",
    [
        {"encodings": ["deflate"]},
        {"encodings": []},
        {"encodings": "gzip"},
        {"min_size": "small"},
        {"types": ["text"]},
        {"breach": "on"},
    ],
)
def test_refuses_malformed_options(options: dict[str, Any]) -> None:
    """What is wrong is told when the stack is built."""
    with pytest.raises(ConfigError):
        CompressMiddleware(RecordingApp(), **options)


@pytest.mark.parametrize("accept", [None, "gzip"])
@pytest.mark.parametrize("least", [0, 1, 10, 99, 500])
@pytest.mark.parametrize("length", ["0", "9", "10", "98", "99", "100", "499", "500", "5000", "", "five", "-1", "1 "])
def test_what_is_small_is_told_by_its_length(accept: str | None, least: int, length: str) -> None:
    """As a number; what is none says nothing. Whoever asks, the answer varies or it does not."""

    def app(request: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [HTML, ("Content-Length", length)])
        return iter([TEXT])

    response = ask(CompressMiddleware(app, encodings=["gzip"], min_size=least), accept)

    assert (response.header("Vary") is None) == (length.isdigit() and int(length) < least)


@pytest.mark.parametrize("accept", ["gzip", "identity"])
def test_an_app_may_clear_its_environ(accept: str) -> None:
    """What the client accepts was read before."""

    def app(request: dict[str, Any], start_response: Any) -> Any:
        request.clear()
        start_response("200 OK", [HTML])
        return iter([TEXT])

    response = ask(CompressMiddleware(app, encodings=["gzip"]), accept)

    assert response.header("Content-Encoding") == (accept if accept == "gzip" else None)
    assert response.header("Vary") == "Accept-Encoding"
