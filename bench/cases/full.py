"""The full stack: session, Basic auth, access log, CORS, static files and mounts around three views."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import scene
from measure import Build, Group, Subject

COLUMNS = ("untouched", "read", "write", "anonymous", "404", "preflight")


def _stack(module: str, column: str, *arguments: str) -> Build:
    def build(folder: Path) -> Subject:
        app = import_module(f"peers.{module}").make(folder, *arguments)
        scene.check_duties(app, folder)
        return Subject(app, scene.requests(app)[column])

    return build


def _bare(folder: Path) -> Subject:
    from cases.layers import bare

    return Subject(bare, scene.signed_in("/app/hello/bob", HTTP_COOKIE="session=" + "x" * 160))


def _row(module: str, *arguments: str) -> dict[str, Build]:
    return {column: _stack(module, column, *arguments) for column in COLUMNS}


ROWS: dict[str, dict[str, Build]] = {
    "bare application": dict.fromkeys(COLUMNS[:3], _bare),
    "lamella, view returns text": _row("lamella_stack", "text"),
    "lamella, view returns lamella's Response": _row("lamella_stack", "own"),
    "lamella, view returns webob.Response": _row("lamella_stack"),
    "lamella with edge, view returns webob.Response": _row("lamella_stack", "edge"),
    "Falcon + itsdangerous + urlmap": _row("falcon_stack"),
    "WebOb + Beaker + Paste + wsgicors + WhiteNoise": _row("classic_stack"),
    "Django + WhiteNoise + corsheaders": _row("django_stack"),
    "Flask + flask-cors + flask-httpauth": _row("flask_stack"),
}

GROUPS = [
    Group(
        "full",
        "Full stack",
        ROWS,
        "lamella, view returns webob.Response",
        note="Session, Basic auth, access log (a write a line), CORS with an Origin, a static prefix that does not "
        "match, a mount, a route with a parameter; untouched, read, write: what the view does with the session. "
        "With edge: the layer that makes servers alike is outermost, a seventh that the peers do not have.",
    )
]
