"""Whatever a client sends and a server leaves out: no layer raises, and none answers with a 5xx of its own.

And whatever many threads do at the same time, each gets its own answer. Layers are found by listing the folder.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamella.middleware.session import SessionMiddleware
from lamella.stack.kernel.keys import SESSION
from lamella.stack.testing import RecordingApp, call, environ

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

TESTS = Path(__file__).parent
# What PEP 3333 lets a server leave out; a request header may always be absent.
OPTIONAL = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH", "REMOTE_ADDR")
HEADERS = (
    *(
        "ACCEPT",
        "ACCEPT_ENCODING",
        "ACCEPT_LANGUAGE",
        "AUTHORIZATION",
        "CACHE_CONTROL",
        "COOKIE",
        "EXPECT",
        "FORWARDED",
    ),
    *("HOST", "IF_MATCH", "IF_MODIFIED_SINCE", "IF_NONE_MATCH", "IF_RANGE", "IF_UNMODIFIED_SINCE", "ORIGIN", "RANGE"),
    *("REFERER", "REMOTE_USER", "SEC_FETCH_MODE", "SEC_FETCH_SITE", "TRACEPARENT", "TRACESTATE", "TRANSFER_ENCODING"),
    *("UPGRADE", "CONNECTION", "USER_AGENT", "X_CSRF_TOKEN", "X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PORT"),
    *("X_FORWARDED_PREFIX", "X_FORWARDED_PROTO", "X_HTTP_METHOD_OVERRIDE", "X_REQUEST_ID", "X_REQUESTED_WITH"),
    *("ACCESS_CONTROL_REQUEST_METHOD", "ACCESS_CONTROL_REQUEST_HEADERS", "ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK"),
)
KEYS = (*OPTIONAL, "REQUEST_METHOD", "SERVER_PROTOCOL", *("HTTP_" + name for name in HEADERS))
# Beginnings that lead into a parser, and what trips one there.
SHAPES = (
    *(
        "Basic ",
        "Bearer ",
        "Basic Og==",
        "bytes=",
        "bytes=0-",
        'W/"',
        '"',
        "session=",
        "remember=",
        "for=",
        'for="[',
        "gzip;q=",
    ),
    *(
        "https://",
        "null",
        "Sat, 01 Jan 99999 00:00:00 GMT",
        "00-",
        "text/html;q=",
        "/",
        "//",
        "/.",
        "%",
        "%ff",
        "a=b; ",
    ),
    *(
        "Bearer a.b.c",
        "Bearer eyJhbGciOiJub25lIn0..",
        "websocket",
        "chunked",
        "100-continue",
        "navigate",
        "=",
        ";",
        ",",
    ),
    *("localhost:", "[::1", "multipart/form-data", "application/x-www-form-urlencoded; charset=\xff", "-1", "9" * 5000),
)
LATIN1 = st.text(st.characters(max_codepoint=255), max_size=30)
VALUE = st.one_of(LATIN1, st.sampled_from(SHAPES), st.builds(str.__add__, st.sampled_from(SHAPES), LATIN1))
METHOD = st.one_of(st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "PUT", "TRACE", "get", ""]), LATIN1)


def _contract() -> Any:
    """The contract tests, for the way in which they build a layer."""
    spec = importlib.util.spec_from_file_location("_contract_tests", TESTS / "test_contract.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTRACT = _contract()


SUBJECTS = {name: CONTRACT.Subject(name) for name in CONTRACT.MODULES}


@pytest.fixture(scope="module", autouse=True)
def in_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Relative paths of the samples are in a copy of ``tests/data``; once, for hypothesis runs a test many times."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("data") / "data"
    shutil.copytree(TESTS.parent / "data", folder)
    os.chdir(folder)
    yield
    os.chdir(before)


@functools.cache
def built(name: str) -> Any:
    """The layer around an app that answers 200."""
    return SUBJECTS[name].build(RecordingApp())


@pytest.mark.parametrize("name", CONTRACT.MODULES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUE, max_size=5), method=METHOD, data=st.data())
def test_no_environ_makes_a_layer_fail(name: str, changes: dict[str, str], method: str, data: st.DataObject) -> None:
    """Junk in any field, any method, and optional variables missing: an answer below 500, never an exception."""
    request = SUBJECTS[name].request()
    request.update({"REQUEST_METHOD": method, **changes})
    for key in data.draw(st.sets(st.sampled_from(OPTIONAL), max_size=3)):
        request.pop(key, None)

    response = call(built(name), request)

    assert 200 <= response.code < 500, response.status
    for field, value in response.headers:
        assert "\r" not in field + value
        assert "\n" not in field + value


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Say what was asked, in a header and in the body, one part after the other."""
    asked = environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Asked", asked)])
    yield asked.encode()
    yield b"|" + environ.get("HTTP_X_SENT", "").encode()


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", CONTRACT.MODULES)
def test_no_thread_gets_the_answer_of_another(name: str) -> None:
    """Eight threads with requests of their own: each answer is the one to its request."""
    subject = SUBJECTS[name]
    layer = subject.build(echo)

    def ask(number: int) -> list[str]:
        wrong = []
        for turn in range(25):
            asked = f"n={number}-{turn}"
            request = subject.request(**{"x-sent": asked})
            request["QUERY_STRING"] = asked
            response = call(layer, request)
            if response.body != f"{asked}|{asked}".encode() or response.header("X-Asked") != asked:
                wrong.append(f"{asked}: {response.status} {response.body!r}")
        return wrong

    with ThreadPoolExecutor(8) as threads:
        assert [line for lines in threads.map(ask, range(8)) for line in lines] == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("store", ["cookie", "memory:", "sqlite:///threads.sqlite"])
def test_no_thread_sees_the_session_of_another(store: str) -> None:
    """Eight browsers that count and rotate at the same time: each finds its own name and its own count."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session = SESSION.require(environ)
        name = environ["QUERY_STRING"]
        seen, count = session.setdefault("name", name), session.get("count", 0)
        assert isinstance(count, int)
        session["count"] = count + 1
        if count % 5 == 4:
            session.rotate()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{seen} {count}".encode()]

    layer = SessionMiddleware(app, secret="0123456789abcdefghijklmnopqrstuvwxyz", store=store, secure=False)

    def browse(number: int) -> list[bytes]:
        answers, cookie = [], ""
        for _ in range(20):
            request = environ("GET", "/", cookie=cookie) if cookie else environ("GET", "/")
            request["QUERY_STRING"] = f"browser{number}"
            response = call(layer, request)
            answers.append(response.body)
            cookie = (response.header("Set-Cookie") or cookie).partition(";")[0]
        return answers

    with ThreadPoolExecutor(8) as threads:
        for number, answers in enumerate(threads.map(browse, range(8))):
            assert answers == [f"browser{number} {count}".encode() for count in range(20)]
