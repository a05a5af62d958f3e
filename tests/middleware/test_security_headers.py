"""SecurityHeadersMiddleware: on every answer, with a fresh nonce, the stricter value wins."""

from __future__ import annotations

from typing import Any
from wsgiref.types import WSGIApplication

import pytest

from lamella.middleware.security_headers import SecurityHeadersMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import CSP_NONCE
from lamella.stack.testing import RecordingApp, call, environ, lint

TEXT = ("Content-Type", "text/plain")


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    return lint(SecurityHeadersMiddleware(lint(app), **options))


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "304 Not Modified", "404 Not Found", "500 Oops"])
def test_every_answer_has_them(status: str) -> None:
    """Pages, redirects, unchanged files and errors."""
    app = RecordingApp(status=status, headers=[], body=[]) if "304" in status else RecordingApp(status=status)

    response = call(layer(app), environ())

    assert response.header("X-Content-Type-Options") == "nosniff"
    assert response.header("X-Frame-Options") == "SAMEORIGIN"
    assert response.header("Referrer-Policy") == "strict-origin-when-cross-origin"
    assert response.header("Cross-Origin-Opener-Policy") == "same-origin"
    assert response.header("Cross-Origin-Resource-Policy") == "same-origin"
    assert (response.header("Content-Security-Policy") or "").startswith("default-src 'self'; base-uri 'self'")


def test_the_nonce_is_fresh_and_known_inside() -> None:
    """The policy names the nonce that the app finds in the environ, another one each time."""
    app = RecordingApp()
    wrapped = layer(app, csp={"script-src": ["self", "nonce"]})

    first, second = call(wrapped, environ()), call(wrapped, environ())

    nonces = [CSP_NONCE.require(request) for request in app.environs]
    assert first.header("Content-Security-Policy") == f"script-src 'self' 'nonce-{nonces[0]}'"
    assert second.header("Content-Security-Policy") == f"script-src 'self' 'nonce-{nonces[1]}'"
    assert nonces[0] != nonces[1]
    assert len(nonces[0]) >= 22


def test_a_nonce_of_a_layer_outside_is_kept() -> None:
    """Two of these layers name the same nonce."""
    app = RecordingApp()

    call(layer(app, csp="script-src 'nonce'"), {**environ(), "lamella.csp_nonce": "outer"})

    assert CSP_NONCE.require(app.environ) == "outer"


def test_a_304_names_no_nonce() -> None:
    """It would renew the headers of a kept page, whose scripts carry another nonce."""
    app = RecordingApp(status="304 Not Modified", headers=[], body=[])

    response = call(layer(app, csp={"script-src": ["nonce"]}, csp_report_only={"img-src": ["self"]}), environ())

    assert response.header("Content-Security-Policy") is None
    assert response.header("Content-Security-Policy-Report-Only") == "img-src 'self'"
    assert response.header("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize(
    ("name", "inside", "expected"),
    [
        ("X-Frame-Options", "DENY", "DENY"),
        ("x-frame-options", "SAMEORIGIN", "SAMEORIGIN"),
        ("X-Frame-Options", "ALLOWALL", "SAMEORIGIN"),
        ("Referrer-Policy", "no-referrer", "no-referrer"),
        ("Referrer-Policy", "no-referrer, same-origin", "no-referrer, same-origin"),
        ("Referrer-Policy", "unsafe-url", "strict-origin-when-cross-origin"),
        ("Cross-Origin-Opener-Policy", "unsafe-none", "same-origin"),
        ("Cross-Origin-Resource-Policy", "cross-origin", "same-origin"),
        ("X-Content-Type-Options", "nosniff", "nosniff"),
    ],
)
def test_the_stricter_value_holds(name: str, inside: str, expected: str) -> None:
    """An app may be stricter than the layer, not looser; the field stands once."""
    response = call(layer(RecordingApp(headers=[TEXT, (name, inside)])), environ())

    assert response.header_list(name) == [expected]


def test_the_app_s_own_policy_stands_beside_ours() -> None:
    """Browsers enforce every Content-Security-Policy they get."""
    app = RecordingApp(headers=[TEXT, ("Content-Security-Policy", "default-src 'none'")])

    response = call(layer(app, csp="img-src 'self'"), environ())

    assert response.header_list("Content-Security-Policy") == ["default-src 'none'", "img-src 'self'"]


def test_what_cannot_be_compared_stays_the_app_s() -> None:
    """A Permissions-Policy from inside is not replaced."""
    app = RecordingApp(headers=[TEXT, ("Permissions-Policy", "camera=*")])

    response = call(layer(app, permissions={"camera": []}), environ())

    assert response.header_list("Permissions-Policy") == ["camera=*"]


@pytest.mark.parametrize(
    ("csp", "expected"),
    [
        ({"default-src": ["self", "https://cdn.example"]}, "default-src 'self' https://cdn.example"),
        ({"default-src": "self data:"}, "default-src 'self' data:"),
        (
            {"default-src": ["'self'"], "upgrade-insecure-requests": True},
            "default-src 'self'; upgrade-insecure-requests",
        ),
        ({"default-src": ["none"], "img-src": False}, "default-src 'none'"),
        ({"script-src": ["sha256-abc=", "strict-dynamic"]}, "script-src 'sha256-abc=' 'strict-dynamic'"),
        ({"sandbox": ["allow-forms"]}, "sandbox allow-forms"),
        ({"report-to": ["main"]}, "report-to main"),
        ("default-src 'self'; img-src *", "default-src 'self'; img-src *"),
        ("default-src 'self'; default-src *", "default-src 'self'"),
        (False, None),
    ],
)
def test_builds_policies(csp: Any, expected: str | None) -> None:
    """As a table or as text; keywords get their quotes."""
    assert call(layer(RecordingApp(), csp=csp), environ()).header("Content-Security-Policy") == expected


def test_other_headers() -> None:
    """Permissions, embedder policy, endpoints for reports."""
    wrapped = layer(
        RecordingApp(),
        permissions={"geolocation": [], "camera": ["self", "https://a.example"], "fullscreen": "*"},
        coep="require-corp",
        reporting_endpoints={"main": "https://reports.example/csp"},
    )

    response = call(wrapped, environ())

    assert response.header("Permissions-Policy") == 'geolocation=(), camera=(self "https://a.example"), fullscreen=*'
    assert response.header("Cross-Origin-Embedder-Policy") == "require-corp"
    assert response.header("Reporting-Endpoints") == 'main="https://reports.example/csp"'


def test_each_header_can_be_left_out() -> None:
    """False leaves it to the app."""
    off = dict.fromkeys(("csp", "nosniff", "frame", "referrer", "coop", "corp"), False)

    assert call(layer(RecordingApp(headers=[TEXT]), **off), environ()).headers == [TEXT]


def test_paths_can_have_other_values() -> None:
    """A page that others may frame, and a path without policy."""
    wrapped = layer(RecordingApp(), policies=[{"paths": ["/embed/*"], "frame": False, "csp": False}])

    embedded, other = call(wrapped, environ("GET", "/embed/x")), call(wrapped, environ("GET", "/embedded"))

    assert (embedded.header("X-Frame-Options"), embedded.header("X-Content-Type-Options")) == (None, "nosniff")
    assert other.header("X-Frame-Options") == "SAMEORIGIN"
    assert call(wrapped, environ("GET", "//embed")).code == 400


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"csp": {"scripts-src": ["self"]}}, id="an unknown directive"),
        pytest.param({"csp": {"script-src": ["a; img-src *"]}}, id="a source that ends the directive"),
        pytest.param({"csp": {"script-src": ["a\r\nX: y"]}}, id="a source that ends the header"),
        pytest.param({"csp": {"script-src": [3]}}, id="a number as source"),
        pytest.param({"csp": {}}, id="an empty policy"),
        pytest.param({"csp": ""}, id="an empty text"),
        pytest.param({"csp": True}, id="true"),
        pytest.param({"frame": "ALLOW-FROM https://a.example"}, id="an unknown frame option"),
        pytest.param({"referrer": "never"}, id="an unknown referrer policy"),
        pytest.param({"coop": True}, id="true for a word"),
        pytest.param({"nosniff": "yes"}, id="a word for a boolean"),
        pytest.param({"permissions": {"geo location": []}}, id="a bad feature"),
        pytest.param({"permissions": {"camera": 1}}, id="a bad allow-list"),
        pytest.param({"reporting_endpoints": {"a b": "https://x.example"}}, id="a bad endpoint name"),
        pytest.param({"reporting_endpoints": {"a": "http://x.example"}}, id="an insecure endpoint"),
        pytest.param({"policies": [{"paths": ["/a"], "frames": False}]}, id="a misspelt key"),
        pytest.param({"policies": [{"frame": False}]}, id="no paths"),
    ],
)
def test_refuses_malformed_options(options: dict[str, Any]) -> None:
    """What is wrong is told when the stack is built."""
    with pytest.raises(ConfigError):
        SecurityHeadersMiddleware(RecordingApp(), **options)


def test_an_unknown_directive_gets_a_suggestion() -> None:
    """A typo in a policy would otherwise be ignored by every browser."""
    with pytest.raises(ConfigError, match="did you mean script-src"):
        SecurityHeadersMiddleware(RecordingApp(), csp={"scirpt-src": ["self"]})


@pytest.mark.parametrize(
    ("inside", "ours"),
    [
        pytest.param("default-src 'none'; style-src 'sha256-abc='; base-uri 'none'", True, id="hashes"),
        pytest.param("default-src 'none'", False, id="nothing"),
        pytest.param("default-src 'none'; style-src 'self'", False, id="own files"),
        pytest.param("style-src 'sha256-abc='", False, id="without a default"),
        pytest.param("default-src 'none'; script-src 'sha256-a=' *", False, id="a star"),
        pytest.param("default-src 'none'; script-src 'unsafe-inline'", False, id="inline"),
    ],
)
def test_a_page_that_names_its_style_by_hash_keeps_it(inside: str, ours: bool) -> None:
    """The pages of errors, login and static: ``'self'`` beside their policy would leave them without style."""
    app = RecordingApp(headers=[TEXT, ("Content-Security-Policy", inside)])

    sent = call(layer(app, csp={"default-src": ["self"], "frame-ancestors": ["none"]}), environ()).headers

    policies = [value for name, value in sent if name == "Content-Security-Policy"]
    expected = "frame-ancestors 'none'" if ours else "default-src 'self'; frame-ancestors 'none'"
    assert policies == [inside, expected]
