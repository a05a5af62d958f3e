"""Classic WSGI: WebOb, Beaker, wsgicors, WhiteNoise, Paste's auth, urlmap and TransLogger."""

from __future__ import annotations

import hmac
import logging
import re
from pathlib import Path
from typing import Any

import scene
from beaker.middleware import SessionMiddleware
from paste.auth.basic import AuthBasicHandler
from paste.translogger import TransLogger
from paste.urlmap import URLMap
from webob import Request, Response, exc
from whitenoise import WhiteNoise
from wsgicors import CORS


def _hello(request: Request, name: str) -> Response:
    return Response(f"hello {name}", content_type="text/plain")


def _read(request: Request, name: str) -> Response:
    return Response(f"read {request.environ['beaker.session'].get('value')}", content_type="text/plain")


def _write(request: Request, name: str) -> Response:
    session = request.environ["beaker.session"]
    if "user" not in session:
        session.update(scene.SESSION)
    session["value"] = value = scene.next_value()
    session.save()
    return Response(f"wrote {value}", content_type="text/plain")


_ROUTES = [
    (re.compile(r"/hello/(?P<name>[^/]+)\Z"), _hello),
    (re.compile(r"/read/(?P<name>[^/]+)\Z"), _read),
    (re.compile(r"/write/(?P<name>[^/]+)\Z"), _write),
]


def _site(environ: dict[str, Any], start_response: Any) -> Any:
    request = Request(environ)
    for pattern, view in _ROUTES:
        found = pattern.match(request.path_info)
        if found:
            return view(request, **found.groupdict())(environ, start_response)
    return exc.HTTPNotFound()(environ, start_response)


def _known(environ: dict[str, Any], user: str, password: str) -> bool:
    return user == scene.USER and hmac.compare_digest(password, scene.PASSWORD)


def make(folder: Path) -> Any:
    """Wrap it by hand, as its users do."""
    scene.prepare(folder)
    app: Any = SessionMiddleware(
        _site,
        {
            "session.type": "cookie",
            "session.key": "session",
            "session.validate_key": scene.SECRET,
            "session.data_serializer": "json",
            "session.httponly": True,
            "session.samesite": "Lax",
        },
    )
    app = AuthBasicHandler(app, scene.REALM, _known)
    mounts = URLMap()
    mounts["/app"] = app
    app = WhiteNoise(mounts, root=str(folder / "static"), prefix="/static/")
    app = CORS(app, origin=scene.ORIGIN, credentials="true", methods="GET, POST", headers="Authorization", maxage="600")
    logger = logging.getLogger("bench.classic")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(folder / "access.log")
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    return TransLogger(app, logger=logger, setup_console_handler=False)
