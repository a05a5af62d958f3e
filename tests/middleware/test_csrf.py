"""CSRFMiddleware: what another site made a browser send never reaches the app."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import urlencode
from wsgiref.types import WSGIApplication

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.middleware._csrf_token import find_field, is_valid, make_token
from lamella.middleware.csrf import CSRFMiddleware
from lamella.stack.kernel.errors import ConfigError, MissingLayerError
from lamella.stack.kernel.keys import CLIENT, CSRF, IDENTITY, SESSION, Client, Identity
from lamella.stack.testing import RecordingApp, Response, call, environ, lint

OWN = "https://app.example"
FORM = "application/x-www-form-urlencoded"
CONTRACT = {"options": {}, "headers": {"sec_fetch_site": "same-origin"}}


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    return lint(CSRFMiddleware(lint(app), **options))


def request(method: str = "POST", path: str = "/", session: Any = None, **more: Any) -> dict[str, Any]:
    """A request to https://app.example, with a session."""
    made = environ(method, path, **{"host": "app.example", "cookie": "session=x", **more})
    return {**made, "wsgi.url_scheme": "https", SESSION.name: {} if session is None else session}


def form(fields: Any, **more: Any) -> dict[str, Any]:
    """A form with these fields."""
    body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
    return request(body=body, CONTENT_TYPE=FORM, **more)


def send(built: dict[str, Any], **options: Any) -> tuple[Response, RecordingApp]:
    """Send one request through the layer."""
    app = RecordingApp(read=-1)
    return call(layer(app, **options), built), app


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_safe_methods_pass(method: str) -> None:
    """Nothing is asked of them, wherever they come from."""
    app = RecordingApp(body=[])

    assert call(layer(app), request(method, sec_fetch_site="cross-site")).code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "FOO", "get"])
def test_an_unproven_request_is_refused(method: str) -> None:
    """Without a word of its origin and without a token: 403, and the app is not asked."""
    app = RecordingApp()

    response = call(layer(app), request(method))

    assert (response.code, app.called) == (403, 0)
    assert response.header("Cache-Control") == "no-store"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"origin": OWN}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://app.example"}, 403),
        ({"origin": "https://app.example:444"}, 403),
        ({"origin": "https://app.example."}, 403),
        ({"origin": ""}, 403),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-origin, cross-site"}, 403),
        ({"sec_fetch_site": "cross-site", "origin": OWN}, 403),
        ({"sec_fetch_site": "same-origin", "origin": "https://evil.example"}, 403),
        ({"origin": "https://accounts.example", "sec_fetch_site": "cross-site"}, 200),
        ({"authorization": "Bearer abc"}, 200),
        ({"authorization": "bearer abc", "origin": "https://evil.example"}, 403),
        ({"authorization": "Basic YTpi"}, 403),
        ({"authorization": "Bearer"}, 403),
        ({"x_http_method_override": "GET"}, 403),
    ],
)
def test_the_browser_tells_where_it_comes_from(headers: dict[str, Any], expected: int) -> None:
    """By Origin and Sec-Fetch-Site, both of which must agree; a bearer token is never sent unasked."""
    response, app = send(request(**headers), trusted_origins=["https://Accounts.example:443"])

    assert (response.code, app.called) == (expected, int(expected == 200))


def test_trusts_the_origin_that_the_proxy_established() -> None:
    """Behind TLS termination, ``lamella.client`` tells what the browser sees."""
    built = {**request(origin="https://public.example"), CLIENT.name: Client("https", "public.example", "192.0.2.1")}

    assert send(built)[0].code == 200


def test_a_token_in_the_form_is_accepted() -> None:
    """And the app inside reads the form as if nobody had."""
    session: dict[str, Any] = {}
    token = make_token(session, "")

    built = form({"a": "1", "csrf_token": token, "b": "2"}, session=session)
    response, app = send(built)

    assert response.code == 200
    assert app.input == urlencode({"a": "1", "csrf_token": token, "b": "2"}).encode()


def test_a_token_in_the_header_is_accepted_without_reading_the_body() -> None:
    """For scripts."""
    session: dict[str, Any] = {}
    built = request(session=session, x_csrf_token=make_token(session, ""), body=b"{}", CONTENT_TYPE="application/json")
    stream = built["wsgi.input"]

    response, app = send(built)

    assert (response.code, app.input) == (200, b"{}")
    assert app.environ["wsgi.input"] is not None
    assert stream.tell() == 2


def test_an_upload_is_not_held_back() -> None:
    """Of a long multipart body only the beginning is looked at; the app gets every byte."""
    session: dict[str, Any] = {}
    token = make_token(session, "")
    boundary = "X-BOUNDARY"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n{token}\r\n'
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = head.encode() + b"z" * 300_000 + f"\r\n--{boundary}--\r\n".encode()
    seen: list[Any] = []
    built = request(session=session, body=body, CONTENT_TYPE=f"multipart/form-data; boundary={boundary}")
    stream = built["wsgi.input"]

    def look(inside: dict[str, Any]) -> None:
        seen.append(stream.tell())
        seen.append(inside["wsgi.input"].read(len(body)))

    assert call(layer(RecordingApp(before=look)), built).code == 200
    assert seen == [64 * 1024, body]


def test_lines_of_a_replayed_body_are_whole() -> None:
    """``readline`` works across the border between what was read and what was not."""
    session: dict[str, Any] = {}
    token = make_token(session, "")
    body = f"csrf_token={token}&text=".encode() + b"x" * 70_000 + b"\nlast"
    lines: list[bytes] = []
    app = RecordingApp(before=lambda inside: lines.extend(inside["wsgi.input"]))

    assert call(layer(app), form(body, session=session)).code == 200
    assert b"".join(lines) == body
    assert len(lines) == 2


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(lambda good, other: {"csrf_token": other}, id="of another session"),
        pytest.param(lambda good, other: {"csrf_token": ""}, id="empty"),
        pytest.param(lambda good, other: {"csrf_token": good[:-1]}, id="truncated"),
        pytest.param(lambda good, other: {"csrf_token": good + "A"}, id="too long"),
        pytest.param(lambda good, other: {"csrf_token": good * 12_000}, id="a megabyte"),
        pytest.param(lambda good, other: {"csrf_token": "é" * 86}, id="not ASCII"),
        pytest.param(lambda good, other: {"csrf_token": good[:-1] + "\0"}, id="NUL"),
        pytest.param(lambda good, other: {"csrf_token": good.swapcase()}, id="changed"),
        pytest.param(lambda good, other: [("csrf_token", good), ("csrf_token", good)], id="twice"),
        pytest.param(lambda good, other: {"csrf_token[]": good}, id="a list"),
        pytest.param(lambda good, other: b"pad=" + b"x" * 70_000 + b"&csrf_token=" + good.encode(), id="too late"),
        pytest.param(lambda good, other: {"other": good}, id="another field"),
    ],
)
def test_a_wrong_token_is_refused(fields: Any) -> None:
    """Whatever is wrong with it: 403, never an exception."""
    session: dict[str, Any] = {}
    good, other = make_token(session, ""), make_token({}, "")

    response, app = send(form(fields(good, other), session=session))

    assert (response.code, app.called) == (403, 0)


def test_a_token_elsewhere_does_not_count() -> None:
    """In the query it would leak, in a cookie it proves nothing, in JSON nobody looks."""
    session: dict[str, Any] = {}
    token = make_token(session, "")

    assert send(request("POST", f"/?csrf_token={token}", session=session))[0].code == 403
    assert send(request(session=session, cookie=f"csrf_token={token}"))[0].code == 403
    body = f'{{"csrf_token": "{token}"}}'.encode()
    assert send(request(session=session, body=body, CONTENT_TYPE="application/json"))[0].code == 403


@pytest.mark.parametrize(
    ("referer", "expected"),
    [
        ("https://app.example/x", 200),
        ("https://app.example", 200),
        ("https://app.example?x", 200),
        ("http://app.example/x", 403),
        ("", 403),
        ("https://[", 403),
        ("https://app.example.evil/", 403),
        ("https://app.example@evil.example/", 403),
        ("//app.example/", 403),
    ],
)
def test_the_referer_is_asked_where_nothing_else_tells(referer: str, expected: int) -> None:
    """A good token from a page of another origin was stolen."""
    session: dict[str, Any] = {}

    assert send(form({"csrf_token": make_token(session, "")}, session=session, referer=referer))[0].code == expected


def test_the_cases_of_the_corpus(corpus: Any) -> None:
    """Each that says allow or deny, with the token that it describes."""
    for case in corpus("csrf_cases")["cases"]:
        session: dict[str, Any] = {}
        good = make_token(session, "")
        made = {None: None, "valid": good, "valid-other-session": make_token({}, ""), "empty": "", "NUL": "\0"}
        kind = case["token"]
        if kind not in made or not case["expect"].startswith(("allow", "deny")):
            continue
        fields = {} if made[kind] is None else {"csrf_token": made[kind]}
        headers = {name.lower().replace("-", "_"): value for name, value in case["headers"].items()}
        built = form(fields, session=session, **headers)
        built["REQUEST_METHOD"] = case["method"]
        app = RecordingApp(body=[])

        code = call(CSRFMiddleware(app), built).code

        assert code == (200 if case["expect"].startswith("allow") else 403), case


def test_a_token_can_always_be_asked_for() -> None:
    """``token = "always"`` asks besides the browser's word; ``"never"`` makes that word the only one."""
    session: dict[str, Any] = {}
    token = make_token(session, "")

    assert send(form({}, origin=OWN), token="always")[0].code == 403
    assert send(form({"csrf_token": token}, session=session, origin=OWN), token="always")[0].code == 200
    assert send(form({"csrf_token": token}, session=session), token="never")[0].code == 403


def test_exempt_paths_are_not_guarded() -> None:
    """For webhooks; an ambiguous path is no exemption."""
    assert send(request("POST", "/hooks/pay"), exempt=["/hooks/*"])[0].code == 200
    assert send(request("POST", "/hooksx"), exempt=["/hooks/*"])[0].code == 403
    assert send(request("POST", "/hooks/../account"), exempt=["/hooks/*"])[0].code == 400


def test_the_app_makes_tokens() -> None:
    """Masked anew each time, all valid for this session; the session is read only then."""
    session: dict[str, Any] = {}
    app = RecordingApp()
    call(layer(app), request("GET", session=session))
    assert session == {}

    source = CSRF.require(app.environ)
    first, second = source.token(), source.token()

    assert first != second
    assert is_valid(session, "", first)
    assert is_valid(session, "", second)
    assert str(source.__html__()).startswith('<input type="hidden" name="csrf_token" value="')  # type: ignore[attr-defined]
    assert (source.field, source.header) == ("csrf_token", "X-CSRF-Token")


def test_making_a_token_needs_a_session() -> None:
    """The error names the layer to add."""
    app = RecordingApp()
    call(layer(app), environ())

    with pytest.raises(MissingLayerError, match="add the layer 'session'"):
        CSRF.require(app.environ).token()


def test_a_token_is_bound_to_the_user() -> None:
    """One made before login is good for a while after it; one of another user never is."""
    session: dict[str, Any] = {}
    before = make_token(session, "")
    assert is_valid(session, "anna", before)

    annas = make_token(session, "anna", now=1000.0)
    assert is_valid(session, "anna", before, now=1500.0)
    assert not is_valid(session, "anna", before, now=1600.0)

    bens = make_token(session, "ben", now=1000.0)
    assert is_valid(session, "ben", bens)
    assert not is_valid(session, "ben", annas, now=1001.0)
    assert not is_valid(session, "", bens)


def test_the_identity_of_a_layer_outside_counts() -> None:
    """The user of the token is that of ``lamella.identity``."""
    session: dict[str, Any] = {}
    token = make_token(session, "anna")
    built = form({"csrf_token": token}, session=session)

    assert send({**built, IDENTITY.name: Identity("anna", "session")})[0].code == 200
    built["wsgi.input"] = io.BytesIO(urlencode({"csrf_token": token}).encode())
    assert send({**built, IDENTITY.name: Identity("ben", "session")})[0].code == 403


@given(
    st.binary(max_size=200), st.sampled_from([FORM, "multipart/form-data; boundary=b", "multipart/form-data", "x;y"])
)
def test_reading_a_form_never_raises(body: bytes, content_type: str) -> None:
    """Whatever a client sends as a form."""
    find_field(content_type, body, "csrf_token")


@given(st.text(st.characters(max_codepoint=255), max_size=100))
def test_no_token_is_guessed(token: str) -> None:
    """Random text is refused, without exception."""
    session: dict[str, Any] = {}
    make_token(session, "")

    assert not is_valid(session, "", token)


@pytest.mark.parametrize(
    "options",
    [
        {"trusted_origins": ["accounts.example"]},
        {"trusted_origins": "https://accounts.example"},
        {"token": "sometimes"},
        {"field": "a b"},
        {"header": "X Token"},
        {"exempt": ["hooks"]},
    ],
)
def test_refuses_malformed_options(options: dict[str, Any]) -> None:
    """What is wrong is told when the stack is built."""
    with pytest.raises(ConfigError):
        CSRFMiddleware(RecordingApp(), **options)
