"""ConditionalMiddleware: when the client need not be told again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from wsgiref.types import WSGIApplication

import pytest

from lamella.middleware.conditional import ConditionalMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.testing import RecordingApp, call, environ, lint

DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
MODIFIED = 1_700_000_000
TEXT = ("Content-Type", "text/plain")


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, inside the linter; the one below would turn lists into streams."""
    return lint(ConditionalMiddleware(app, **options))


def listing(*blocks: bytes, status: str = "200 OK", headers: tuple[tuple[str, str], ...] = (TEXT,)) -> WSGIApplication:
    """An app that returns its content as a list."""

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, list(headers))
        return list(blocks)

    return app


def validated(**more: Any) -> RecordingApp:
    """An app that knows its own validators."""
    return RecordingApp(headers=[TEXT, ("ETag", '"v1"'), ("Last-Modified", DATE), ("Vary", "Accept")], **more)


def test_gives_a_tag_to_a_whole_answer() -> None:
    """The same content, the same tag, however it is cut; other content, another."""
    tags = [
        call(layer(listing(*blocks)), environ("GET", "/")).header("ETag")
        for blocks in ((b"hello",), (b"hel", b"lo"), (b"hellO",))
    ]

    assert tags[0] == tags[1] != tags[2]
    assert str(tags[0]).startswith('"')


def test_answers_304_to_the_tag_it_gave() -> None:
    """Without content and its fields, with everything else."""
    app = layer(listing(b"hello", headers=(TEXT, ("Content-Length", "5"), ("Set-Cookie", "a=b"), ("Vary", "Cookie"))))
    etag = call(app, environ("GET", "/")).header("ETag")

    response = call(app, environ("GET", "/", if_none_match=f'"x", W/{etag}'))

    assert (response.code, response.body) == (304, b"")
    assert sorted(name for name, _ in response.headers) == ["ETag", "Set-Cookie", "Vary"]


def test_answers_412_where_another_answer_is_expected() -> None:
    """If-Match compares strongly; the content that was refused is closed and not sent."""
    app = validated()

    response = call(layer(app), environ("GET", "/", if_match='W/"v1"'))

    assert (response.code, response.header("ETag"), app.closed) == (412, '"v1"', 1)
    assert b"hello" not in response.body


def test_weak_tags_on_demand() -> None:
    """For a layer outside that changes bytes without changing the meaning."""
    app = layer(listing(b"hello"), weak=True)
    etag = str(call(app, environ("GET", "/")).header("ETag"))

    assert etag.startswith('W/"')
    assert call(app, environ("GET", "/", if_none_match=etag)).code == 304
    assert call(app, environ("GET", "/", if_match=etag)).code == 412


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(listing(b"x", headers=(TEXT, ("Cache-Control", "private, no-store"))), id="not to be stored"),
        pytest.param(listing(b"x", status="404 Not Found"), id="no success"),
        pytest.param(listing(b"x", headers=(TEXT, ("Last-Modified", DATE))), id="has a date"),
        pytest.param(listing(b"", status="200 OK"), id="empty"),
        pytest.param(listing(b"x" * 2000), id="long"),
        pytest.param(RecordingApp(body=[b"streamed"]), id="a stream"),
        pytest.param(RecordingApp(late=True), id="starts late"),
        pytest.param(RecordingApp(write=[b"written"]), id="writes"),
    ],
)
def test_gives_no_tag(app: WSGIApplication) -> None:
    """Where there is a validator, where none is wanted, and where it would have to wait."""
    response = call(layer(app, max_size="1 kB"), environ("GET", "/"))

    assert response.header("ETag") is None


def test_gives_a_tag_to_one_block_of_the_promised_length() -> None:
    """As frameworks answer: a closing iterable and its length; the tag is that of the list."""
    app = RecordingApp(headers=[TEXT, ("Content-Length", "5")])
    whole = call(layer(listing(b"hello")), environ("GET", "/")).header("ETag")

    assert call(layer(lint(app)), environ("GET", "/")).header("ETag") == whole
    assert call(layer(lint(app)), environ("GET", "/", if_none_match=whole)).code == 304
    assert app.closed == app.called == 2


@pytest.mark.parametrize("body", [[b"hel", b"lo"], [b"", b"hello"]])
def test_waits_for_no_second_block(body: list[bytes]) -> None:
    """The first block goes out when it comes, though the length would allow a tag."""
    app = RecordingApp(headers=[TEXT, ("Content-Length", "5")], body=body)

    response = call(layer(lint(app)), environ("GET", "/"))

    assert (response.header("ETag"), response.blocks) == (None, body)


def test_works_with_flask() -> None:
    """Its ordinary answers become conditional."""
    from flask import Flask

    flask = Flask("conditional")
    flask.add_url_rule("/", "index", lambda: "hello")
    app = layer(flask)
    etag = call(app, environ("GET", "/")).header("ETag")

    assert etag is not None
    assert call(app, environ("GET", "/", if_none_match=etag)).code == 304


def test_keeps_the_app_s_own_tag() -> None:
    """It is never overwritten."""
    assert call(layer(listing(b"x", headers=(TEXT, ("ETag", '"own"')))), environ("GET", "/")).header("ETag") == '"own"'


def test_never_holds_a_stream_back() -> None:
    """Each block goes out before the next is made."""
    made = []

    def app(request: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        for number in range(3):
            made.append(number)
            yield b"x"

    body = iter(ConditionalMiddleware(app)(environ("GET", "/"), lambda *_: lambda data: None))

    for asked in (1, 2, 3):
        next(body)
        assert len(made) == asked


@pytest.mark.parametrize("late", [False, True])
def test_compares_streams_by_their_own_validators(late: bool) -> None:
    """Also where the app starts in the first block; what is replaced is closed and not read on."""
    app = validated(late=late, body=[b"a", b"b", b"c"])

    response = call(layer(app), environ("GET", "/", if_modified_since=DATE))

    assert (response.code, response.body, app.closed) == (304, b"", 1)
    assert app.yielded <= 1
    assert (response.header("Vary"), response.header("Last-Modified")) == ("Accept", DATE)


@pytest.mark.parametrize(("method", "status"), [("POST", "200 OK"), ("GET", "500 Oops"), ("GET", "204 No Content")])
def test_leaves_other_answers_alone(method: str, status: str) -> None:
    """Other methods did their work already; other answers know no preconditions (section 13.2.1)."""
    body = [] if status.startswith("204") else [b"x"]
    app = RecordingApp(status=status, headers=[("ETag", '"v1"'), *([TEXT] if body else [])], body=body)

    response = call(layer(app), environ(method, "/", if_none_match='"v1"', if_match='"other"'))

    assert (response.status, response.header("ETag")) == (status, '"v1"')


def test_a_partial_answer_is_compared_too() -> None:
    """Section 13.2.2: the preconditions come before the range."""
    headers = [TEXT, ("ETag", '"v1"'), ("Content-Range", "bytes 0-4/9")]
    app = RecordingApp(status="206 Partial Content", headers=headers)

    response = call(layer(app), environ("GET", "/", if_none_match='"v1"', range="bytes=0-4"))

    assert (response.code, response.header("Content-Range")) == (304, None)


def test_head_is_compared_and_gets_no_tag_of_nothing() -> None:
    """Its content is not there to be seen; its own validators are."""
    assert call(layer(listing(b"")), environ("HEAD", "/")).header("ETag") is None
    assert call(layer(validated(body=[])), environ("HEAD", "/", if_none_match="*")).code == 304


def test_evaluates_the_request_that_came() -> None:
    """An app that removes the fields from its environ changes nothing."""
    app = validated(before=lambda request: request.pop("HTTP_IF_NONE_MATCH"))

    assert call(layer(app), environ("GET", "/", if_none_match='"v1"')).code == 304


def test_conditions_by_the_corpus(corpus: Any) -> None:
    """The cross product of all preconditions, for an app with validators, whole or streamed."""
    shape = time.gmtime(MODIFIED)
    values = {
        "$ETAG": '"v1"',
        "$LM850": time.strftime("%A, %d-%b-%y %H:%M:%S GMT", shape),
        "$LMASC": time.strftime("%a %b %d %H:%M:%S %Y", shape),
        "$LM-1": DATE.replace("20 GMT", "19 GMT"),
        "$LM+1": DATE.replace("20 GMT", "21 GMT"),
        "$LM": DATE,
    }
    headers = (TEXT, ("ETag", '"v1"'), ("Last-Modified", DATE))
    apps = [ConditionalMiddleware(listing(b"x", headers=headers)), ConditionalMiddleware(validated(late=True))]
    for row in corpus("conditional_table")["rows"]:
        sent: dict[str, Any] = {}
        for name, value in row["headers"].items():
            for mark, text in values.items():
                value = value.replace(mark, text)
            sent[name.replace("-", "_").lower()] = value
        for app in apps:
            assert call(app, environ(row["method"], "/", **sent)).code == row["expect"], row["key"]


def test_refuses_a_wrong_size() -> None:
    """When the stack is built."""
    with pytest.raises(ConfigError, match="max_size: expected bytes"):
        ConditionalMiddleware(RecordingApp(), max_size="much")


def test_makes_no_tags_where_told_so() -> None:
    """The answer is the app's own; its own validators are still compared."""
    blocks = [b"hello"]

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(
            "200 OK", [("Content-Type", "text/plain"), *([("ETag", '"a"')] if request["PATH_INFO"] == "/a" else [])]
        )
        return blocks

    layer = ConditionalMiddleware(app, etag=False)

    assert layer(environ("GET", "/"), lambda *args: lambda data: None) is blocks
    assert call(lint(layer), environ("GET", "/")).header("ETag") is None
    assert call(lint(layer), environ("GET", "/", if_none_match='"a"')).code == 200
    assert call(lint(layer), environ("GET", "/a", if_none_match='"a"')).code == 304


@pytest.mark.parametrize(
    ("lengths", "is_tagged"), [((), True), (("5",), True), (("6",), False), (("5", "5"), False), (("x",), False)]
)
def test_a_tag_is_made_of_what_is_all_there(lengths: tuple[str, ...], is_tagged: bool) -> None:
    """One list, of one block or several, as long as the app said, if it said it; by the same bytes the same tag."""

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), *(("content-length", length) for length in lengths)])
        return [b"he", b"llo"] if request["PATH_INFO"] == "/2" else [b"hello"]

    tags = {call(ConditionalMiddleware(app), environ("GET", path)).header("ETag") for path in ("/1", "/2")}

    assert len(tags) == 1
    assert (tags != {None}) == is_tagged
