"""A Flask app that shares the layer's session."""

from __future__ import annotations

from typing import Any

import flask
import pytest

from lamella.apps.flask_session import FlaskSessionInterface
from lamella.middleware.session import SessionMiddleware
from lamella.stack.kernel.errors import MissingLayerError
from lamella.stack.testing import Response, call, environ, lint

SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"


def shop() -> flask.Flask:
    """A Flask app that uses its session in the usual ways."""
    app = flask.Flask("shop")
    app.session_interface = FlaskSessionInterface()

    @app.get("/plain")
    def plain() -> str:
        return "no session"

    @app.get("/add/<item>")
    def add(item: str) -> str:
        flask.session.setdefault("cart", []).append(item)
        flask.flash(f"added {item}", "info")
        return ",".join(flask.session["cart"])

    @app.get("/cart")
    def cart() -> str:
        return ",".join(flask.session.get("cart", []))

    @app.get("/messages")
    def messages() -> list[Any]:
        return flask.get_flashed_messages(with_categories=True)

    @app.get("/login")
    def login() -> str:
        flask.session["user"] = "alice"
        flask.session.permanent = True
        flask.session.rotate()  # type: ignore[attr-defined]
        return str(flask.session.new)

    @app.get("/logout")
    def logout() -> str:
        flask.session.clear()
        flask.session.invalidate()  # type: ignore[attr-defined]
        return ""

    @app.get("/stream")
    def stream() -> Any:
        return flask.stream_with_context(str(flask.session.get("user")) for _ in range(2)), 200

    return app


def ask(app: Any, path: str, cookie: str = "") -> Response:
    """One request."""
    more: dict[str, Any] = {"cookie": cookie} if cookie else {}
    return call(app, environ("GET", path, **more))


def cookie_of(response: Response) -> str:
    """The cookie that an answer sets."""
    (line,) = response.header_list("Set-Cookie")
    return line.partition(";")[0]


@pytest.fixture(params=["cookie", "memory:"])
def app(request: pytest.FixtureRequest) -> Any:
    """The Flask app inside the layer."""
    return lint(SessionMiddleware(shop(), secret=SECRET, store=request.param))


def test_leaves_a_page_without_session_alone(app: Any) -> None:
    """No cookie, no Vary."""
    answer = ask(app, "/plain")

    assert answer.text == "no session"
    assert (answer.header("Set-Cookie"), answer.header("Vary")) == (None, None)


def test_keeps_nested_changes_and_flashes(app: Any) -> None:
    """A list that is appended to is kept without ``modified``, and Flask's messages come once."""
    cookie = cookie_of(ask(app, "/add/apple"))
    again = ask(app, "/add/pear", cookie)
    cookie = cookie_of(again) if again.header("Set-Cookie") else cookie

    assert ask(app, "/cart", cookie).text == "apple,pear"
    shown = ask(app, "/messages", cookie)
    assert b"added apple" in shown.body
    cookie = cookie_of(shown) if shown.header("Set-Cookie") else cookie
    assert ask(app, "/messages", cookie).text.strip() == "[]"


def test_logs_in_and_out(app: Any) -> None:
    """A permanent cookie with a new id at login, none after logout; Flask sets no cookie of its own."""
    first = cookie_of(ask(app, "/add/apple"))
    login = ask(app, "/login", first)
    (line,) = login.header_list("Set-Cookie")

    assert line.startswith("session=")
    assert "; Max-Age=" in line
    assert cookie_of(login) != first
    logout = ask(app, "/logout", cookie_of(login))
    assert "Max-Age=0" in str(logout.header("Set-Cookie"))


def test_shares_the_session_with_what_is_around_it() -> None:
    """What a layer outside writes is there for Flask, in the same request."""

    def outer(request: dict[str, Any], start_response: Any) -> Any:
        request["lamella.session"]["cart"] = ["from outside"]
        return shop()(request, start_response)

    assert ask(SessionMiddleware(outer, secret=SECRET), "/cart").text == "from outside"


def test_says_that_the_layer_is_missing() -> None:
    """Without the layer, an error that names it."""
    app = shop()
    app.testing = True

    with pytest.raises(MissingLayerError, match="add the layer 'session'"):
        ask(app, "/cart")
