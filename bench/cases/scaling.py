"""How costs grow: with layers, with the size of a session, with scopes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import scene
from measure import Build, Group, Subject

from cases.layers import LazySession, bare

LAYERS = (1, 5, 15, 30)
BYTES = (100, 500, 1_000, 2_000, 3_800)


def _wrapped(wrap: Callable[[Any], Any], number: int) -> Build:
    def build(folder: Path) -> Subject:
        app: Any = bare
        for _ in range(number):
            app = wrap(app)
        scene.expect(scene.ask(app, scene.environ("/")).body == b"hello", "no answer")
        return Subject(app, scene.environ("/"))

    return build


def _adds_a_header(app: Any) -> Any:
    """A layer as ``docs/writing-a-layer.md`` writes one."""
    from lamella.stack.kernel.response import edit_headers

    pair = ("X-Layer", "yes")

    def layer(environ: dict[str, Any], start_response: Any) -> Any:
        return app(environ, edit_headers(start_response, lambda headers: [*headers, pair]))

    return layer


def _cors(app: Any) -> Any:
    from lamella.middleware.cors import CORSMiddleware

    return CORSMiddleware(app, origins=[scene.ORIGIN])


def _health(app: Any) -> Any:
    from lamella.middleware.health import HealthMiddleware

    return HealthMiddleware(app)


def _wsgify(app: Any) -> Any:
    from webob.dec import wsgify

    @wsgify.middleware
    def nothing(request: Any, app: Any) -> Any:
        return app

    return nothing(app)


def _proxy_fix(app: Any) -> Any:
    from werkzeug.middleware.proxy_fix import ProxyFix

    return ProxyFix(app)


def _scoped(number: int) -> Build:
    """A stack of layers that are all out of scope."""

    def build(folder: Path) -> Subject:
        from lamella.stack import Layer, Stack

        layers = [
            Layer("security_headers", id=f"layer{index}", when={"paths": [f"/part{index}/*", f"/other{index}/*/x"]})
            for index in range(number)
        ]
        app = Stack(layers, app=bare)
        answer = scene.ask(app, scene.environ("/part0/page"))
        scene.expect(answer.get("X-Content-Type-Options") == "nosniff", answer)
        answer = scene.ask(app, scene.environ("/page"))
        scene.expect(answer.get("X-Content-Type-Options") is None, answer)
        return Subject(app, scene.environ("/page"))

    return build


def _session(kind: str, size: int, writes: bool) -> Build:
    def build(folder: Path) -> Subject:
        import random

        letters = random.Random(7)
        words = " ".join(f"{letters.randrange(10**8):08}" for _ in range(size // 9))
        wrap, key = {"lamella": _lamella_session, "itsdangerous": _lazy_session}[kind]()

        def app(environ: dict[str, Any], start_response: Any) -> Any:
            session = environ[key].load() if isinstance(environ[key], LazySession) else environ[key]
            if "words" not in session:
                session["words"] = words
                environ[key].save() if isinstance(session, LazySession) else None
            elif writes:
                session["value"] = scene.next_value()
                environ[key].save() if isinstance(session, LazySession) else None
            return bare(environ, start_response)

        stack = wrap(app)
        cookie = scene.ask(stack, scene.environ("/")).cookies()
        answer = scene.ask(stack, scene.environ("/", HTTP_COOKIE=cookie))
        scene.expect((answer.cookies() != "") is writes, answer)
        return Subject(stack, scene.environ("/", HTTP_COOKIE=cookie))

    return build


def _lamella_session() -> tuple[Callable[[Any], Any], str]:
    from lamella.middleware.session import SessionMiddleware

    return lambda app: SessionMiddleware(app, secret=scene.SECRET.encode(), max_bytes="16 KiB"), "lamella.session"


def _lazy_session() -> tuple[Callable[[Any], Any], str]:
    from cases.layers import itsdangerous_layer

    return itsdangerous_layer(), "session"


def _numbers(wrap: Callable[[Any], Any]) -> dict[str, Build]:
    return {str(number): _wrapped(wrap, number) for number in LAYERS}


GROUPS = [
    Group(
        "layers",
        "Cost by the number of layers",
        {
            "bare": {str(number): _wrapped(lambda app: app, 0) for number in LAYERS},
            "lamella, nothing to do (health)": _numbers(_health),
            "lamella, no Origin (cors)": _numbers(_cors),
            "lamella, adds a header": _numbers(_adds_a_header),
            "Werkzeug ProxyFix": _numbers(_proxy_fix),
            "webob.dec.wsgify.middleware": _numbers(_wsgify),
        },
        "lamella, adds a header",
    ),
    Group(
        "scopes",
        "Cost by the number of layers that are out of scope",
        {"bare": {str(number): _wrapped(lambda app: app, 0) for number in LAYERS},
         "lamella": {str(number): _scoped(number) for number in LAYERS}},
        "bare",
    ),
    *(
        Group(
            f"session-{verb}",
            f"Session {verb}, by its size in bytes",
            {kind: {f"{size:,} B": _session(kind, size, verb == "write") for size in BYTES} for kind in (
                "lamella", "itsdangerous")},
            "lamella",
        )
        for verb in ("read", "write")
    ),
]  # fmt: skip
