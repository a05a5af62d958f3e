"""SessionMiddleware: what is kept, what the answer says, what is refused."""

from __future__ import annotations

from typing import Any
from wsgiref.types import WSGIApplication

from lamella.middleware.session import SessionMiddleware
from lamella.stack.testing import RecordingApp, Response, call, environ, lint

SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"


class Browser:
    """Sends back the cookies it was given."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}

    def get(self, path: str = "/", **more: Any) -> Response:
        """Ask with the cookies kept so far."""
        if self.cookies:
            more.setdefault("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        response = call(self.app, environ("GET", path, **more))
        for line in response.header_list("Set-Cookie"):
            pair, _, attributes = line.partition(";")
            name, _, value = pair.partition("=")
            if "Max-Age=0" in attributes:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return response


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    options.setdefault("secret", SECRET)
    return lint(SessionMiddleware(lint(app), **options))


def test_keeps_what_was_written() -> None:
    """The next request of the browser finds it."""
    seen: list[Any] = []

    def count(request: dict[str, Any]) -> None:
        session = request["lamella.session"]
        session["n"] = session.get("n", 0) + 1
        seen.append(session["n"])

    browser = Browser(layer(RecordingApp(before=count)))
    for _ in range(3):
        browser.get()

    assert seen == [1, 2, 3]
