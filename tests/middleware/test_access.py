"""AccessMiddleware: 401 for who, 403 for what, and no way around a rule."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.middleware.access import AccessMiddleware
from lamella.middleware.basic_auth import BasicAuthMiddleware
from lamella.middleware.dispatch import DispatchMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import CLIENT, IDENTITY, Client, Identity
from lamella.stack.testing import RecordingApp, call, environ, lint

ADMIN = Identity("alice", "basic", {}, frozenset({"admin"}))
BOB = Identity("bob", "bearer")
RULES: list[Any] = [
    {"path": "/public/*", "allow": "anonymous"},
    {"path": "/admin/*", "allow": ["admin"]},
    {"path": "/me", "allow": "authenticated"},
    {"path": "/notes/*", "methods": ["GET"], "allow": "anonymous"},
    {"path": "/notes/*", "methods": ["POST", "DELETE"], "allow": ["admin"]},
]


def layer(app: WSGIApplication, rules: Any = RULES, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    return lint(AccessMiddleware(lint(app), rules=rules, **options))


def code(method: str, path: str, identity: Identity | None = None, **more: Any) -> int:
    """How a request is answered by the rules above."""
    request = environ(method, path, **more)
    if identity is not None:
        IDENTITY.set(request, identity)
    return call(layer(RecordingApp(body=[])), request).code


@pytest.mark.parametrize(
    ("method", "path", "anonymous", "bob", "admin"),
    [
        ("GET", "/public", 200, 200, 200),
        ("GET", "/public/a/b", 200, 200, 200),
        ("GET", "/publicity", 401, 403, 403),
        ("GET", "/admin", 401, 403, 200),
        ("GET", "/admin/", 401, 403, 200),
        ("GET", "/admin/x/y", 401, 403, 200),
        ("GET", "/adminx", 401, 403, 403),
        ("GET", "/ADMIN", 401, 403, 403),
        ("GET", "/me", 401, 200, 200),
        ("GET", "/me/", 401, 200, 200),
        ("GET", "/me/x", 401, 403, 403),
        ("GET", "/notes/1", 200, 200, 200),
        ("HEAD", "/notes/1", 200, 200, 200),
        ("POST", "/notes/1", 401, 403, 200),
        ("PUT", "/notes/1", 401, 403, 403),
        ("post", "/notes/1", 401, 403, 200),
        ("GET", "/", 401, 403, 403),
        ("OPTIONS", "/admin", 401, 403, 200),
        ("GET", "/%61dmin", 401, 403, 200),
    ],
)
def test_the_first_matching_rule_decides(method: str, path: str, anonymous: int, bob: int, admin: int) -> None:
    """Who is unknown gets 401, who is known but may not gets 403; what no rule matches is refused."""
    assert (code(method, path), code(method, path, BOB), code(method, path, ADMIN)) == (anonymous, bob, admin)


def test_without_rules_nobody_may() -> None:
    """Deny by default, to the end."""
    assert call(layer(RecordingApp(), []), environ("GET", "/")).code == 401


def test_an_empty_allow_is_nobody() -> None:
    """Where nobody may, signing in is no use: 403 at once."""
    assert call(layer(RecordingApp(), [{"allow": []}]), environ("GET", "/")).code == 403


def test_does_not_ask_the_app_it_protects() -> None:
    """A refused request ends here; the answer may not be stored."""
    app = RecordingApp()

    response = call(layer(app), environ("GET", "/admin"))

    assert (app.called, response.header("Cache-Control")) == (0, "no-store")
    assert response.header("WWW-Authenticate") is None


def test_the_auth_layer_outside_adds_the_challenge() -> None:
    """Together they are what a browser needs: 401 with a dialog, then 200 or 403."""
    app = BasicAuthMiddleware(
        AccessMiddleware(RecordingApp(), rules=RULES),
        users=lambda user, password: user == password,
        required=False,
        roles={"admin": ["a"]},
    )

    refused = call(app, environ("GET", "/admin"))
    assert (refused.code, refused.header("WWW-Authenticate")) == (401, 'Basic realm="restricted", charset="UTF-8"')
    assert call(app, environ("GET", "/admin", authorization="Basic YTph")).code == 200
    assert call(app, environ("GET", "/admin", authorization="Basic Yjpi")).code == 403


@pytest.mark.parametrize(
    "path",
    [
        "//admin",
        "/public//admin",
        "/public/../admin",
        "/public/..%2fadmin",
        "/public/..%5cadmin",
        "/public%2f..%2fadmin",
        "/./admin",
        "/public/.",
        "/admin;x=1",
        "/public;/../admin",
        "/public/..;/admin",
        "/public;x",
        "/public%3bx",
        "/public%00",
        "/public%0a",
        "/public%2561dmin",
        "/public/%252e%252e/admin",
        "/public%c0%af",
        "/public%ff",
        "admin",
        "public",
        "http://other/public",
    ],
)
def test_refuses_a_path_that_could_be_read_in_two_ways(path: str) -> None:
    """Ambiguity is a 400 before any rule is looked at, for everybody."""
    assert [code("GET", path), code("GET", path, ADMIN)] == [400, 400]


@pytest.mark.parametrize("method", ["G\0ET", "", "GET ", "GE(T", "M\u00c9T"])
def test_refuses_a_method_that_is_none(method: str) -> None:
    """What is no token could be read as another method further in."""
    app = AccessMiddleware(RecordingApp(), rules=[{"allow": "anonymous"}])

    assert call(app, environ(method, "/")).code == 400


@pytest.mark.parametrize("name", ["x_http_method_override", "x_method_override", "x_http_method"])
def test_a_method_override_gets_around_no_rule(name: str) -> None:
    """The rules see the method of the request line, and nothing inside sees another."""
    app = RecordingApp()
    headers: dict[str, Any] = {name: "DELETE"}

    response = call(layer(app), environ("GET", "/notes/1", **headers))

    assert response.code == 200
    assert "DELETE" not in app.environ.values()


def test_a_method_override_is_left_where_no_rule_is_about_methods() -> None:
    """Without a rule on methods the header is none of our business."""
    app = RecordingApp()

    call(layer(app, [{"allow": "anonymous"}]), environ("GET", "/", x_http_method_override="DELETE"))

    assert app.environ["HTTP_X_HTTP_METHOD_OVERRIDE"] == "DELETE"


HOST_RULES: list[Any] = [
    {"hosts": ["staff.example"], "allow": "authenticated"},
    {"hosts": ["*.open.example"], "allow": "anonymous"},
]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("staff.example", 401),
        ("STAFF.example:8080", 401),
        ("staff.example.", 401),
        ("a.open.example", 200),
        ("open.example", 401),
        ("other.example", 401),
        ("a/?x=", 400),
        ("h@evil", 400),
        ("a.open.example, staff.example", 400),
        ("", 400),
        (None, 400),
    ],
)
def test_rules_on_hosts(host: str | None, expected: int) -> None:
    """Names match without case, port and final dot; a Host that is none, or missing, is a 400."""
    request = environ("GET", "/", host=host)
    if host is None:
        del request["HTTP_HOST"]

    assert call(layer(RecordingApp(), HOST_RULES), request).code == expected


def test_every_bad_host_is_refused(corpus: Any) -> None:
    """Also without a rule on hosts: an app that rebuilds its URL would see another path."""
    data = corpus("hosts")
    app = AccessMiddleware(RecordingApp(), rules=[{"allow": "anonymous"}])

    assert [host for host in data["bad"] if call(app, environ("GET", "/", host=host)).code != 400] == []
    assert [host for host in data["ok"] if call(app, environ("GET", "/", host=host)).code != 200] == []


def test_believes_the_trusted_proxy() -> None:
    """Scheme and host are those that the layer ``proxy`` established."""
    rules = [{"hosts": ["shop.example"], "scheme": "https", "allow": "anonymous"}]
    request = environ("GET", "/", host="10.0.0.1")
    CLIENT.set(request, Client("https", "shop.example", "192.0.2.1"))

    assert call(layer(RecordingApp(), rules), request).code == 200
    assert call(layer(RecordingApp(), rules), environ("GET", "/", host="shop.example")).code == 401


def test_rules_on_how_the_user_is_known() -> None:
    """An API for tokens only: a browser's session does not open it."""
    rules = [{"path": "/api/*", "scheme": "bearer", "allow": "authenticated"}]

    def reach(identity: Identity | None) -> int:
        request = environ("GET", "/api/x")
        if identity is not None:
            IDENTITY.set(request, identity)
        return call(layer(RecordingApp(), rules), request).code

    assert [reach(BOB), reach(ADMIN), reach(None)] == [200, 403, 401]


def test_is_relative_to_its_mount() -> None:
    """Below a mount the rules speak of what comes after it."""
    rules = [{"path": "/public", "allow": "anonymous"}]

    assert call(layer(RecordingApp(), rules), environ("GET", "/public", mount="/app")).code == 200
    assert call(layer(RecordingApp(), rules), environ("GET", "/app/public", mount="/app")).code == 401
    assert (
        call(layer(RecordingApp(), [{"path": "/", "allow": "anonymous"}]), environ("GET", "", mount="/app")).code == 200
    )


@pytest.mark.parametrize(
    ("script_name", "path_info"), [("/adm", "in/users"), ("/", "/admin"), ("/x/..", "/admin"), ("//x", "/admin")]
)
def test_a_header_that_shifts_the_path_is_refused(script_name: str, path_info: str) -> None:
    """gunicorn takes a ``SCRIPT_NAME`` header from local peers and cuts the path anywhere."""
    app = AccessMiddleware(RecordingApp(), rules=[{"allow": "anonymous"}])

    assert call(app, environ("GET", path_info, mount=script_name)).code == 400


def test_removes_what_a_client_could_pose_with() -> None:
    """Also where no auth layer is outside."""
    app = RecordingApp()

    call(layer(app, [{"allow": "anonymous"}]), environ("GET", "/", x_remote_user="admin", remote_user="admin"))

    assert "admin" not in app.environ.values()


def test_refuses_wrong_options() -> None:
    """At build, with the place in the list."""
    with pytest.raises(ConfigError, match="ignore_case"):
        layer(RecordingApp(), ignore_case="yes")
    with pytest.raises(ConfigError, match=r"rules\[1\]"):
        layer(RecordingApp(), [{"allow": "anonymous"}, {"path": "/admin", "allow": "admin"}])


# --- the whole corpus of ways around ------------------------------------------------------------


def _says(text: bytes) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
        return [text]

    return app


def guarded() -> WSGIApplication:
    """Rules outside, dispatch inside: what is under /admin needs a role, all else is open."""
    app = DispatchMiddleware(_says(b"ROOT"), mounts={"/admin": _says(b"ADMIN-REACHED"), "/public": _says(b"PUBLIC")})
    rules: list[Any] = [{"path": "/admin/*", "allow": ["admin"]}, {"allow": "anonymous"}]
    return BasicAuthMiddleware(AccessMiddleware(app, rules=rules), users=lambda user, password: False, required=False)


def per_mount() -> WSGIApplication:
    """Authentication inside the mount itself."""
    inside = BasicAuthMiddleware(
        AccessMiddleware(_says(b"ADMIN-REACHED"), rules=[{"allow": "authenticated"}]),
        users=lambda user, password: False,
    )
    return DispatchMiddleware(_says(b"ROOT"), mounts={"/admin": inside, "/public": _says(b"PUBLIC")})


def raw_request(raw: str, method: str = "GET", **headers: Any) -> dict[str, Any]:
    """The environ of a raw target: octets above U+00FF go as UTF-8."""
    path, _, query = raw.partition("?")
    path = path.partition("#")[0]
    request = environ(method, "/", **headers)
    request["PATH_INFO"] = unquote_to_bytes(path.encode()).decode("latin-1")
    request["QUERY_STRING"] = query
    return request


@pytest.mark.parametrize("build", [guarded, per_mount])
def test_no_known_way_around_reaches_the_protected_app(corpus: Any, build: Any) -> None:
    """No path, method or header of the corpus gets in, and nothing is answered with a 5xx."""
    data = corpus("auth_bypass_paths")
    app = build()
    requests = [raw_request(case["raw"]) for case in data["cases"]]
    requests += [raw_request(case["raw"], case["method"]) for case in data["methods"]]
    for case in data["headers"]:
        headers = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in case["headers"].items()}
        request = raw_request(case["raw"], case.get("method", "GET"), **headers)
        requests.append(request)
        script_name = case["headers"].get("SCRIPT_NAME", "")
        if script_name:  # as gunicorn makes of it
            path = request["PATH_INFO"]
            requests.append({**request, "SCRIPT_NAME": script_name, "PATH_INFO": path[len(script_name) :]})

    answers = [call(app, request) for request in requests]

    assert len(answers) > 70
    assert [answer.status for answer in answers if b"ADMIN-REACHED" in answer.body] == []
    assert [answer.status for answer in answers if answer.code >= 500] == []


@pytest.mark.parametrize("path", ["/adminx", "/administrator", "/admin-secret", "/admin_", "/admin.json", "/ADMIN"])
def test_a_neighbour_is_not_captured(path: str) -> None:
    """Only the prefix itself and what is below it belongs to a mount and to its rules."""
    assert call(guarded(), environ("GET", path)).body == b"ROOT"


SEGMENT = st.text(alphabet="admin/.%;\\2f5ce0A?#_\u00e4 ", max_size=16)


@settings(max_examples=400, deadline=None)
@given(SEGMENT, st.sampled_from(["/admin", "/public/../admin", "//admin", "/./admin", "/%61dmin", "/"]), SEGMENT)
def test_no_made_up_path_reaches_the_protected_app(before: str, middle: str, after: str) -> None:
    """Whatever surrounds the prefix: refused, or another app."""
    for raw in (before + middle + after, "/" + before + middle + after, middle + after):
        answer = call(guarded(), raw_request(raw))
        assert b"ADMIN-REACHED" not in answer.body
        assert answer.code < 500


@pytest.mark.timing
def test_a_long_path_is_cheap() -> None:
    """100 kB of segments are matched in linear time, also by patterns with stars."""
    rules = [{"path": "/**/a*/b", "allow": "admin"}, {"path": "/*/x*y/*", "allow": "admin"}, {"allow": "anonymous"}]
    app = AccessMiddleware(RecordingApp(), rules=rules)  # type: ignore[arg-type]

    started = time.thread_time()
    assert call(app, environ("GET", "/" + "aa/" * 33_000)).code == 200
    assert time.thread_time() - started < 0.3


# --- on the wire --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wire(services: Any) -> Iterator[tuple[str, int]]:
    """The guarded stack behind a real server."""
    with services.waitress(guarded()) as port:
        yield "127.0.0.1", port


def _answer(place: tuple[str, int], request: bytes) -> bytes:
    with socket.create_connection(place, timeout=5) as connection:
        connection.sendall(request)
        blocks = []
        while block := connection.recv(65_536):
            blocks.append(block)
    return b"".join(blocks)


@pytest.mark.server
def test_no_known_way_around_on_the_wire(corpus: Any, wire: tuple[str, int]) -> None:
    """The same paths, methods and headers as raw octets through waitress, the server's own reading included."""
    data = corpus("auth_bypass_paths")
    cases: list[tuple[str, str, dict[str, str]]] = [("GET", case["raw"], {}) for case in data["cases"]]
    cases += [(case["method"], case["raw"], {}) for case in data["methods"]]
    cases += [(case.get("method", "GET"), case["raw"], case["headers"]) for case in data["headers"]]
    seen: dict[bytes, int] = {}
    for method, raw, headers in cases:
        fields = {"Host": "localhost", "Connection": "close", **headers}
        lines = [f"{method} {raw} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        answer = _answer(wire, "\r\n".join(lines).encode())
        assert b"ADMIN-REACHED" not in answer, (method, raw, headers)
        status = answer[9:12]
        seen[status] = seen.get(status, 0) + 1

    assert not [status for status in seen if status.startswith(b"5") and status != b"501"], seen
    assert seen[b"400"] > 20
    assert seen[b"401"] > 10
