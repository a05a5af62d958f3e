"""HTTPSMiddleware: where http is sent, and when browsers are told to stay on https."""

from __future__ import annotations

from typing import Any
from wsgiref.types import WSGIApplication

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.middleware.https import HTTPSMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import parse_host
from lamella.stack.testing import RecordingApp, call, environ, lint

CONTRACT = {"headers": {"wsgi.url_scheme": "https"}}


def layer(app: WSGIApplication | None = None, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    return lint(HTTPSMiddleware(lint(app or RecordingApp()), **options))


def over_https(path: str = "/") -> dict[str, Any]:
    """A request over https."""
    return {**environ("GET", path), "wsgi.url_scheme": "https"}


@pytest.mark.parametrize(
    ("path", "mount", "host", "location"),
    [
        ("/a?b=1", "", "shop.example", "https://shop.example/a?b=1"),
        ("/a", "/m", "shop.example:80", "https://shop.example/m/a"),
        ("/", "", "SHOP.example:8080", "https://shop.example/"),
        ("/caf%C3%A9%20x", "", "[::1]:80", "https://[::1]/caf%C3%A9%20x"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_redirects_http(path: str, mount: str, host: str, location: str, method: str) -> None:
    """To the same host and path, with the query; 308 keeps method and body."""
    app = RecordingApp()

    response = call(layer(app), environ(method, path, mount=mount, host=host))

    assert (response.code, response.header("Location")) == (308, location)
    assert app.called == 0


def test_redirects_to_another_port() -> None:
    """Where https is not on 443."""
    assert call(layer(port=8443), environ("GET", "/")).header("Location") == "https://localhost:8443/"


def test_refuses_other_methods_where_told_to() -> None:
    """A client that sends a password over http should learn of it; GET is still redirected."""
    app = layer(other="refuse")

    assert call(app, environ("POST", "/", body=b"x")).code == 403
    assert call(app, environ("HEAD", "/")).code == 308


@pytest.mark.parametrize(
    ("host", "path_info"),
    [
        ("", "/"),
        ("a/?x=", "/"),
        ("h@evil", "/"),
        ("a.example, evil", "/"),
        ("a.example\r\nX: y", "/"),
        ("a.example", "@evil.example"),
        ("a.example", ".evil.example/"),
        ("a.example", "//evil"),
        ("a.example", "/a\r\nX-Evil: 1"),
        ("a.example", "/\xff"),
    ],
)
def test_never_redirects_elsewhere(host: str, path_info: str) -> None:
    """A malformed host or path is a 400."""
    request = {**environ("GET", "/"), "HTTP_HOST": host, "PATH_INFO": path_info}

    response = call(HTTPSMiddleware(RecordingApp()), request)

    assert (response.code, response.header("Location")) == (400, None)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_location_is_one_line_to_the_host_that_was_asked(host: str, path: str, query: str) -> None:
    """Whatever the request holds."""
    request = {**environ("GET", "/"), "HTTP_HOST": host, "PATH_INFO": "/" + path, "QUERY_STRING": query}

    response = call(HTTPSMiddleware(RecordingApp()), request)

    location = response.header("Location")
    if location is None:
        assert response.code == 400
    else:
        asked = parse_host(host)
        assert asked is not None
        assert location.startswith(f"https://{asked.host}/")
        assert location.isascii()
        assert location.isprintable()


@pytest.mark.parametrize("path", ["/healthz", "/.well-known/acme-challenge/x"])
def test_serves_excluded_paths_over_http(path: str) -> None:
    """For load balancers and certificate authorities, and without HSTS, even the app's own."""
    app = RecordingApp(headers=[("Content-Type", "text/plain"), ("Strict-Transport-Security", "max-age=1")])
    response = call(
        layer(app, exclude=["/healthz", "/.well-known/acme-challenge/*"], hsts="365d"), environ("GET", path)
    )

    assert response.code == 200
    assert response.header("Strict-Transport-Security") is None


def test_excludes_by_the_canonical_path() -> None:
    """Another spelling of an excluded path is not excluded."""
    assert call(layer(exclude=["/healthz"]), environ("GET", "/healthzx")).code == 308
    assert call(layer(exclude=["/healthz"]), environ("GET", "/x/..%2fhealthz")).code == 400


@pytest.mark.parametrize(
    ("hsts", "value"),
    [
        ("365d", "max-age=31536000"),
        (3600, "max-age=3600"),
        ("0s", "max-age=0"),
        ({"max_age": "52w"}, "max-age=31449600"),
        ({"max_age": "365d", "subdomains": True}, "max-age=31536000; includeSubDomains"),
        ({"max_age": "730d", "subdomains": True, "preload": True}, "max-age=63072000; includeSubDomains; preload"),
    ],
)
def test_tells_browsers_to_stay(hsts: Any, value: str) -> None:
    """On every answer over https, errors too; never over http."""
    app = layer(RecordingApp(status="404 Not Found"), hsts=hsts)

    assert call(app, over_https()).header("Strict-Transport-Security") == value
    assert call(app, environ("GET", "/")).header("Strict-Transport-Security") is None


def test_sends_no_hsts_by_default() -> None:
    """It cannot be taken back, so it is asked for."""
    assert call(layer(), over_https()).header("Strict-Transport-Security") is None


def test_keeps_the_app_s_own_hsts() -> None:
    """There is one such header; browsers read the first."""
    app = RecordingApp(headers=[("Content-Type", "text/plain"), ("strict-transport-security", "max-age=9")])

    assert call(layer(app, hsts="365d"), over_https()).header_list("Strict-Transport-Security") == ["max-age=9"]


@pytest.mark.parametrize(
    "options",
    [
        {"hsts": "1 year"},
        {"hsts": -1},
        {"hsts": {}},
        {"hsts": {"max_age": "365d", "include": True}},
        {"hsts": {"max_age": "365d", "subdomains": "yes"}},
        {"hsts": {"max_age": "364d", "subdomains": True, "preload": True}},
        {"hsts": {"max_age": "365d", "preload": True}},
        {"other": "pass"},
        {"exclude": "/healthz"},
        {"exclude": ["healthz"]},
        {"port": 0},
        {"port": True},
    ],
)
def test_refuses_wrong_options(options: dict[str, Any]) -> None:
    """When the stack is built."""
    with pytest.raises(ConfigError):
        HTTPSMiddleware(RecordingApp(), **options)
