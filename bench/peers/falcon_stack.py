"""Falcon, its CORS middleware, a lazy itsdangerous session, Paste's urlmap, and logging's FileHandler."""

from __future__ import annotations

import base64
import hmac
import logging
from pathlib import Path
from typing import Any

import falcon
import scene
from itsdangerous import BadSignature, URLSafeTimedSerializer
from paste.urlmap import URLMap

_serializer = URLSafeTimedSerializer(scene.SECRET, salt="session")


class Session(dict[str, Any]):
    """Opens the cookie when it is first looked at."""

    __slots__ = ("cookie", "loaded", "modified")

    def __init__(self, cookie: str | None) -> None:
        self.cookie, self.loaded, self.modified = cookie, False, False

    def load(self) -> dict[str, Any]:
        if not self.loaded:
            self.loaded = True
            if self.cookie:
                try:
                    self.update(_serializer.loads(self.cookie, max_age=14 * 86400))
                except BadSignature:
                    pass
        return self


class Sessions:
    def process_request(self, req: Any, resp: Any) -> None:
        value = req.get_cookie_values("session") if "session=" in req.env.get("HTTP_COOKIE", "") else None
        req.context.session = Session(value[0] if value else None)

    def process_response(self, req: Any, resp: Any, resource: Any, ok: bool) -> None:
        session = getattr(req.context, "session", None)
        if session is not None and session.modified:
            resp.set_cookie("session", _serializer.dumps(dict(session)), http_only=True, same_site="Lax", secure=True)


class Auth:
    def process_request(self, req: Any, resp: Any) -> None:
        if req.method == "OPTIONS":
            return
        field = req.auth or ""
        try:
            user, _, password = base64.b64decode(field[6:]).decode().partition(":")
        except ValueError:
            user = password = ""
        if not field.startswith("Basic ") or not hmac.compare_digest(_USERS.get(user, b""), password.encode()):
            raise falcon.HTTPUnauthorized(challenges=[f'Basic realm="{scene.REALM}"'])
        req.context.user = user


_USERS = {scene.USER: scene.PASSWORD.encode()}


class Log:
    def __init__(self, path: Path) -> None:
        self.logger = logging.getLogger("bench.falcon")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        handler = logging.FileHandler(path)
        handler.setFormatter(logging.Formatter("%(message)s"))
        self.logger.addHandler(handler)

    def process_response(self, req: Any, resp: Any, resource: Any, ok: bool) -> None:
        self.logger.info(
            '%s - %s "%s %s" %s "%s"',
            req.remote_addr, getattr(req.context, "user", "-"), req.method, req.relative_uri, resp.status,
            req.user_agent,
        )  # fmt: skip


class Hello:
    def on_get(self, req: Any, resp: Any, name: str) -> None:
        resp.content_type = "text/plain"
        resp.text = f"hello {name}"


class Read:
    def on_get(self, req: Any, resp: Any, name: str) -> None:
        resp.content_type = "text/plain"
        resp.text = f"read {req.context.session.load().get('value')}"


class Write:
    def on_get(self, req: Any, resp: Any, name: str) -> None:
        session = req.context.session
        if not session.load():
            session.update(scene.SESSION)
        session["value"] = value = scene.next_value()
        session.modified = True
        resp.content_type = "text/plain"
        resp.text = f"wrote {value}"


def make(folder: Path) -> Any:
    """Two Falcon apps behind a urlmap."""
    scene.prepare(folder)
    log = Log(folder / "access.log")
    cors = falcon.CORSMiddleware(allow_origins=scene.ORIGIN, allow_credentials=scene.ORIGIN)
    app = falcon.App(middleware=[log, cors, Sessions(), Auth()])
    app.add_route("/hello/{name}", Hello())
    app.add_route("/read/{name}", Read())
    app.add_route("/write/{name}", Write())
    files = falcon.App(middleware=[log])
    files.add_static_route("/", str(folder / "static"))
    mounts = URLMap()
    mounts["/app"] = app
    mounts["/static"] = files
    return mounts
