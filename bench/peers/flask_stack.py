"""Flask, flask-cors, flask-httpauth, its own session, Werkzeug's dispatcher, and logging's FileHandler."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import scene
from flask import Flask, request, session
from flask_cors import CORS
from flask_httpauth import HTTPBasicAuth
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

auth = HTTPBasicAuth(realm=scene.REALM)
_USERS = {scene.USER: scene.PASSWORD}


@auth.get_password
def _password(user: str) -> str | None:
    return _USERS.get(user)


def make(folder: Path) -> Any:
    """One Flask app under a prefix, another for the files."""
    scene.prepare(folder)
    logger = logging.getLogger("bench.flask")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.FileHandler(folder / "access.log"))

    app = Flask("site", static_folder=None)
    app.secret_key = scene.SECRET
    app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
    CORS(app, origins=[scene.ORIGIN], supports_credentials=True)

    @app.after_request
    def log(response: Any) -> Any:
        user = request.authorization.username if request.authorization else "-"
        logger.info(
            '%s - %s "%s %s" %s "%s"',
            request.remote_addr, user, request.method, request.script_root + request.path, response.status_code,
            request.headers.get("User-Agent"),
        )  # fmt: skip
        return response

    @app.before_request
    def sign_in() -> Any:
        if request.method != "OPTIONS":
            return auth.login_required(lambda: None)()
        return None

    @app.get("/hello/<name>")
    def hello(name: str) -> str:
        return f"hello {name}"

    @app.get("/read/<name>")
    def read(name: str) -> str:
        return f"read {session.get('value')}"

    @app.get("/write/<name>")
    def write(name: str) -> str:
        if not session:
            session.update(scene.SESSION)
        session["value"] = value = scene.next_value()
        return f"wrote {value}"

    files = Flask("files", static_folder=str(folder / "static"), static_url_path="/")
    return DispatcherMiddleware(NotFound(), {"/app": app, "/static": files})
