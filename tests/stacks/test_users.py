"""Wrapped apps see the user: Flask, Django and REST framework as they are."""

from __future__ import annotations

import base64
import json
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from lamella.middleware.basic_auth import BasicAuthMiddleware
from lamella.middleware.login import SIGNED_IN, LoginMiddleware
from lamella.stack.kernel.keys import SESSION
from lamella.stack.testing import call, environ
from lamella.stack.testing.fakes import FakeSession


def basic(user: str, password: str) -> str:
    """The header that a browser sends."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def behind(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The app behind a login for whoever says his name twice."""
    return BasicAuthMiddleware(app, users=lambda user, password: user == password, **options)


def test_flask_has_a_remote_user() -> None:
    """``request.remote_user``, and no credentials left for the app to read."""
    flask = pytest.importorskip("flask")
    app = flask.Flask("shop")

    def home() -> Any:
        return {"user": flask.request.remote_user, "auth": repr(flask.request.authorization)}

    app.add_url_rule("/", view_func=home)

    response = call(behind(app), environ("GET", "/", authorization=basic("alice", "alice")))

    assert json.loads(response.body) == {"user": "alice", "auth": "None"}
    assert call(behind(app), environ("GET", "/", remote_user="alice")).code == 401


def test_flask_sends_its_visitors_to_the_form() -> None:
    """``abort(401)`` in a view becomes a redirect to the login page; signed in, the view answers."""
    flask = pytest.importorskip("flask")
    app = flask.Flask("shop")

    def private() -> Any:
        return flask.request.remote_user or flask.abort(401)

    app.add_url_rule("/private", view_func=private)

    built = LoginMiddleware(app, users=lambda user, password: True)
    session = FakeSession()
    headers: dict[str, Any] = {"accept": "text/html", SESSION.name: session}

    assert call(built, environ("GET", "/private", **headers)).header("Location") == "/login?next=/private"
    session[SIGNED_IN] = {"user": "alice", "stamp": ""}
    assert call(built, environ("GET", "/private", **headers)).body == b"alice"


def test_an_app_of_one_function_reads_the_environ() -> None:
    """Plain WSGI has REMOTE_USER and AUTH_TYPE, as from any server."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['REMOTE_USER']} by {environ['AUTH_TYPE']}".encode("latin-1")]

    assert call(behind(app), environ("GET", "/", authorization=basic("\u0141", "\u0141"))).text == "\u0141 by basic"
