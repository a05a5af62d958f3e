"""RequestIdMiddleware: who chooses the identifier, and where it appears."""

from __future__ import annotations

from typing import Any
from wsgiref.types import WSGIApplication

import pytest

from lamella.middleware.request_id import RequestIdMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import REQUEST_ID
from lamella.stack.testing import RecordingApp, call, environ, lint

GENERATED = "generated-identifier"
SENT = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    options.setdefault("generator", lambda: GENERATED)
    return lint(RequestIdMiddleware(lint(app), **options))


def test_generates_an_identifier_when_the_client_sent_none() -> None:
    """Inside and on the answer stands the same new identifier."""
    app = RecordingApp()

    response = call(layer(app), environ("GET", "/"))

    assert response.header("X-Request-ID") == GENERATED
    assert REQUEST_ID.require(app.environ) == GENERATED


def test_ignores_the_client_unless_told_to_trust_it() -> None:
    """What the client calls the request means nothing by default."""
    response = call(layer(RecordingApp()), environ("GET", "/", x_request_id=SENT))

    assert response.header("X-Request-ID") == GENERATED


def test_keeps_a_well_formed_identifier_of_a_trusted_client() -> None:
    """Behind a proxy that names requests, the name is kept."""
    response = call(layer(RecordingApp(), trust_client=True), environ("GET", "/", x_request_id=SENT))

    assert response.header("X-Request-ID") == SENT


@pytest.mark.parametrize("sent", ["short", "x" * 201, "sixteen characters", "a" * 20 + "\x00", "ünïcode-identifier"])
def test_replaces_an_ill_formed_identifier(sent: str) -> None:
    """Too short, too long, or unsafe in a log: as if none was sent."""
    app = RequestIdMiddleware(RecordingApp(), trust_client=True, generator=lambda: GENERATED)

    response = call(app, environ("GET", "/", x_request_id=sent))

    assert response.header("X-Request-ID") == GENERATED


def test_refuses_a_bad_header_name() -> None:
    """A configuration error is told when the stack is built."""
    with pytest.raises(ConfigError, match="header: expected a header name"):
        RequestIdMiddleware(RecordingApp(), header="X Request")
