"""lamella, from a stack file; views that return WebOb's response, the router's own, or text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import scene
import webob

from lamella.apps.router import Request, Response, Router
from lamella.stack import load


def make(folder: Path, profile: str | None = None) -> Any:
    """Load the stack file."""
    scene.prepare(folder)
    (folder / "users").write_text(f"{scene.USER}:{scene.PASSWORD_HASH}\n")
    os.environ.update(
        BENCH_LOG=str(folder / "access.log"),
        BENCH_STATIC=str(folder / "static"),
        BENCH_SECRET=scene.SECRET,
        BENCH_USERS=str(folder / "users"),
    )
    name = "lamella_edge.toml" if profile == "edge" else "lamella.toml"
    return load(Path(__file__).with_name(name), profile=profile)


def nothing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer 404: outside of the mount there is nothing."""
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return [b""]


def _views(respond: Any) -> Router:
    router = Router()

    @router.get("/hello/<name>")
    def hello(request: Request, name: str) -> Any:
        return respond(f"hello {name}")

    @router.get("/read/<name>")
    def read(request: Request, name: str) -> Any:
        return respond(f"read {request.environ['lamella.session'].get('value')}")

    @router.get("/write/<name>")
    def write(request: Request, name: str) -> Any:
        session = request.environ["lamella.session"]
        if not session:
            session.update(scene.SESSION)
        session["value"] = value = scene.next_value()
        return respond(f"wrote {value}")

    return router


webob_views = _views(webob.Response)
own_views = _views(Response)
text_views = _views(str)
