"""Routers with 10 to 10,000 routes: a parameter, 404, 405, and building them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scene
from measure import Build, Group, Sample, Subject

SIZES = (10, 200, 2_000, 10_000)


def _patterns(number: int) -> list[str]:
    return [f"/section{index}/item/{{}}/part{index}" for index in range(number)]


def _lamella(answer: str) -> Callable[[int], Any]:
    def make(number: int) -> Any:
        import webob

        from lamella.apps.router import Response, Router

        respond = {"webob": webob.Response, "own": Response, "text": str}[answer]
        router = Router()

        def view(request: Any, id: str) -> Any:
            return respond(f"item {id}")

        for pattern in _patterns(number):
            router.add(pattern.format("<id>"), view)
        return router

    return make


def _falcon(number: int) -> Any:
    import falcon

    class Item:
        def on_get(self, req: Any, resp: Any, id: str) -> None:
            resp.content_type = "text/plain"
            resp.text = f"item {id}"

    app = falcon.App()
    item = Item()
    for pattern in _patterns(number):
        app.add_route(pattern.format("{id}"), item)
    return app


def _werkzeug(number: int) -> Any:
    from werkzeug import Request, Response
    from werkzeug.exceptions import HTTPException
    from werkzeug.routing import Map, Rule

    rules = [
        Rule(pattern.format("<id>"), endpoint=str(at), methods=["GET"]) for at, pattern in enumerate(_patterns(number))
    ]
    urls = Map(rules)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            _, values = urls.bind_to_environ(environ).match()
        except HTTPException as error:
            return error(environ, start_response)
        Request(environ)
        return Response(f"item {values['id']}")(environ, start_response)

    return app


def _flask(number: int) -> Any:
    from flask import Flask

    app = Flask("router", static_folder=None)
    for index, pattern in enumerate(_patterns(number)):
        app.add_url_rule(pattern.format("<id>"), str(index), lambda id: f"item {id}", methods=["GET"])
    return app


ROUTERS: dict[str, Callable[[int], Any]] = {
    "lamella, view returns webob.Response": _lamella("webob"),
    "lamella, view returns lamella's Response": _lamella("own"),
    "lamella, view returns text": _lamella("text"),
    "Falcon": _falcon,
    "Werkzeug, by hand": _werkzeug,
    "Flask": _flask,
}
#: Falcon compiles 10,000 routes for 15 seconds.
_TOO_LONG = {"Falcon": 2_000, "Flask": 2_000}


def _request(make: Callable[[int], Any], number: int, what: str) -> Build:
    def build(folder: Path) -> Subject:
        app = make(number)
        last = number * 2 // 3
        asked = {
            "hit": scene.environ(f"/section{last}/item/42/part{last}"),
            "404": scene.environ(f"/section{last}/thing/42"),
            "405": scene.environ(f"/section{last}/item/42/part{last}", "DELETE"),
        }
        scene.expect(scene.ask(app, asked["hit"]).body == b"item 42", "no answer")
        for code in ("404", "405"):
            scene.expect(scene.ask(app, asked[code]).status[:3] == code, code)
        return Subject(app, asked[what])

    return build


def _bare(folder: Path) -> Subject:
    from cases.layers import bare

    return Subject(bare, scene.environ("/section3/item/42/part3"))


def _building(make: Callable[[int], Any], number: int) -> Build:
    def build(folder: Path) -> Callable[[], Sample]:
        make(1)  # imports are not what is measured

        def once() -> Sample:
            begun = time.process_time()
            app = make(number)
            answer = scene.ask(app, scene.environ("/section3/item/42/part3"))
            seconds = time.process_time() - begun
            scene.expect(answer.body == b"item 42", answer)
            return Sample(seconds)

        return once

    return build


def _sizes(row: str, cells: Callable[[int], dict[str, Build]]) -> dict[str, Build]:
    found: dict[str, Build] = {}
    for number in SIZES:
        if number <= _TOO_LONG.get(row, number):
            found.update(cells(number))
    return found


GROUPS = [
    Group(
        "router",
        "Router: a route with a parameter, by the number of routes",
        {
            "bare application": {f"{number:,}": _bare for number in SIZES},
            **{row: _sizes(row, lambda n, m=make: {f"{n:,}": _request(m, n, "hit")}) for row, make in ROUTERS.items()},
        },
        "lamella, view returns webob.Response",
        slow=("10,000",),
    ),
    Group(
        "refusal",
        "Router: 404 and 405 among 200 routes",
        {
            row: {code: _request(make, 200, code) for code in ("404", "405")}
            for row, make in ROUTERS.items()
            if row not in ("lamella, view returns lamella's Response", "lamella, view returns text")
        },
        "lamella, view returns webob.Response",
    ),
    Group(
        "building",
        "Router: building it, and the first answer",
        {
            row: _sizes(row, lambda n, m=make: {f"{n:,}": _building(m, n)} if n in (200, 2_000, 10_000) else {})
            for row, make in ROUTERS.items()
            if row not in ("lamella, view returns lamella's Response", "lamella, view returns text")
        },
        "lamella, view returns webob.Response",
        unit="ms",
        once=True,
        slow=("10,000", "2,000"),
    ),
]  # fmt: skip
