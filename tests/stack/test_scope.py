"""Scopes: which requests a layer sees."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.response import answer
from lamella.stack.scope import When
from lamella.stack.testing import RecordingApp, call, environ, lint

PATHS = [
    ("/api/*", ["/api", "/api/", "/api/x", "/api/x/y"], ["/", "/apix", "/x/api", "/API/x"]),
    ("/api", ["/api"], ["/api/", "/api/x", "/"]),
    ("/api/", ["/api/"], ["/api"]),
    ("/", ["/", ""], ["/x"]),
    ("/*", ["/", "", "/x", "/x/y"], []),
    ("/**", ["/", "/x/y"], []),
    ("/users/*/avatar", ["/users/7/avatar"], ["/users/avatar", "/users/7/8/avatar", "/users/7/avatar/x"]),
    ("/users/*/files/*", ["/users/7/files", "/users/7/files/a/b"], ["/users/files"]),
    ("/**/*.css", ["/a.css", "/a/b/c.css"], ["/a.css/x", "/css"]),
    ("/*.css", ["/a.css"], ["/a/b.css"]),
    ("/a.b", ["/a.b"], ["/axb"]),
    ("/é/*", ["/é/x"], ["/e/x"]),
]


@pytest.mark.parametrize(("pattern", "inside", "outside"), PATHS, ids=[row[0] for row in PATHS])
def test_paths(pattern: str, inside: list[str], outside: list[str]) -> None:
    """Exact, a segment, everything below, any depth."""
    when = When(paths=[pattern])

    for path in inside + outside:
        request = environ("GET", path.replace("é", "%C3%A9"))
        assert when.matches(request) is (path in inside), path


@pytest.mark.parametrize("patterns", [["/api/*"], ["/api", "/x/*"], ["/"], ["/", "/a/*"], ["/a*", "/b/*"]], ids=str)
def test_wrapping_decides_as_matching_does(patterns: list[str]) -> None:
    """Common scopes take a shorter way, to the same end."""
    when = When(paths=patterns)

    for path in ("/", "", "/api", "/api/", "/api/x", "/apix", "/x", "/x/y", "/a", "/a/b", "/ab", "/b"):
        app, layer = RecordingApp(), RecordingApp()
        call(when.wrap(layer, app), environ("GET", path))
        assert layer.called == when.matches(environ("GET", path)), path


def test_except_takes_away() -> None:
    """From the paths, or from everything."""
    assert not When(**{"except": ["/healthz"]}).matches(environ("GET", "/healthz"))
    assert When(**{"except": ["/healthz"]}).matches(environ("GET", "/x"))
    both = When(**{"paths": ["/api/*"], "except": ["/api/public/*"]})
    assert both.matches(environ("GET", "/api/x"))
    assert not both.matches(environ("GET", "/api/public/x"))


def test_get_includes_head() -> None:
    """What guards an answer guards its headers."""
    when = When(methods=["GET", "POST"])

    assert [when.matches(environ(m)) for m in ("GET", "HEAD", "POST", "PUT", "get")] == [True, True, True, False, False]
    assert not When(methods=["POST"]).matches(environ("HEAD"))


def test_hosts() -> None:
    """Names without port and case; a star for every name below."""
    when = When(hosts=["Shop.example", "*.shop.example", "[::1]"])

    inside = ["shop.example", "SHOP.example:8080", "shop.example.", "a.b.shop.example", "[::1]:80"]
    outside = ["xshop.example", "shop.example.evil.example", "example"]
    assert [when.matches(environ(host=host)) for host in inside + outside] == [True] * 5 + [False] * 3


def test_a_request_without_host_is_out_of_scope_or_at_the_servers_name() -> None:
    """HTTP/1.0 may leave it out."""
    request = environ()
    del request["HTTP_HOST"]

    assert When(hosts=["localhost"]).matches(request)
    assert not When(hosts=["shop.example"]).matches(request | {"SERVER_NAME": "::1"})


@pytest.mark.parametrize(("scope", "path", "headers"), [
    ({"paths": ["/admin/*"]}, "//admin/x", {}),
    ({"paths": ["/admin/*"]}, "/x/../admin", {}),
    ({"except": ["/public/*"]}, "/public/%2e%2e/admin", {}),
    ({"paths": ["/admin/*"]}, "/%ff", {}),
    ({"paths": ["/admin/*"]}, "/a%5cb", {}),
    ({"paths": ["/admin/*"]}, "/%2561dmin", {}),
    ({"hosts": ["a.example"]}, "/", {"host": "a.example/@b"}),
])  # fmt: skip
def test_what_can_be_read_in_two_ways_is_refused(scope: dict[str, Any], path: str, headers: dict[str, Any]) -> None:
    """With 400: neither the layer nor what is inside is asked."""
    app = RecordingApp()
    layer = RecordingApp()

    response = call(lint(When(**scope).wrap(layer, app)), environ("GET", path, **headers))

    assert response.code == 400
    assert app.called == layer.called == 0
    with pytest.raises(BadRequestError):
        When(**scope).matches(environ("GET", path, **headers))


def test_all_parts_must_match() -> None:
    """Methods and paths and hosts."""
    when = When(paths=["/a"], methods=["POST"], hosts=["x.example"])
    app, layer = RecordingApp(), RecordingApp()
    scoped = when.wrap(layer, app)

    for method, path, host in [("POST", "/a", "x.example"), ("GET", "/a", "x.example"), ("POST", "/b", "x.example"),
                               ("POST", "/a", "y.example")]:  # fmt: skip
        call(scoped, environ(method, path, host=host))

    assert (layer.called, app.called) == (1, 3)


@pytest.mark.parametrize("scope", [
    {}, {"paths": []}, {"path": ["/"]}, {"paths": ["api"]}, {"paths": ["/a//b"]}, {"paths": ["/a/../b"]},
    {"paths": ["/a?b"]}, {"paths": ["/***"]}, {"paths": [5]}, {"paths": "/api"}, {"methods": ["get"]},
    {"methods": ["A B"]}, {"hosts": ["a:80"]}, {"hosts": ["*"]}, {"hosts": ["a.*.b"]}, {"hosts": [""]},
])  # fmt: skip
def test_refuses_a_scope_that_cannot_be_meant(scope: dict[str, Any]) -> None:
    """An empty one never runs, and a path without slash matches nothing."""
    with pytest.raises(ConfigError):
        When(**scope)


@pytest.mark.timing
def test_a_layer_out_of_scope_costs_little() -> None:
    """Less than two microseconds a request, path and all."""

    def app(environ: Any, start_response: Any) -> Any:
        return ()

    scoped = When(paths=["/api/*"]).wrap(lambda environ, start_response: answer(environ, start_response, "200 OK"), app)
    request = environ("GET", "/shop/cart")
    best = min(_timed(scoped, request) for _ in range(5))

    assert best < 2e-6


def _timed(app: Any, request: Any) -> float:
    began = time.thread_time()
    for _ in range(2000):
        app(request, None)
    return (time.thread_time() - began) / 2000


@pytest.mark.timing
def test_a_long_path_is_decided_quickly() -> None:
    """100 kB of hostile path take less than 50 ms."""
    when = When(paths=["/**/a/*", "/x/*/y", "/*.css"])
    request = environ("GET", "/" + "a/" * 50_000)

    began = time.thread_time()
    assert when.matches(request)
    assert time.thread_time() - began < 0.15
