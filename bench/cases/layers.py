"""Each layer alone around a bare application, beside its peers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import scene
from measure import Build, Group, Subject

HELLO = b"hello"
HEADERS = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "5")]
COOKIE = "theme=light; "


def bare(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The least that an application can be."""
    start_response("200 OK", [*HEADERS])
    return [HELLO]


def _reads(key: str) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        _session(environ[key]).get("value")
        start_response("200 OK", [*HEADERS])
        return [HELLO]

    return app


def _writes(key: str) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = _session(environ[key])
        if "user" not in session:
            session.update(scene.SESSION)
        session["value"] = scene.next_value()
        if hasattr(session, "save"):
            session.save()
        start_response("200 OK", [*HEADERS])
        return [HELLO]

    return app


def _session(found: Any) -> Any:
    return found.load() if isinstance(found, LazySession) else found


def _bare(folder: Path) -> Subject:
    return Subject(bare, scene.environ("/"))


# --- lamella ------------------------------------------------------------------------------------


def _access_log(folder: Path) -> Subject:
    from lamella.middleware.access_log import AccessLogMiddleware

    app = AccessLogMiddleware(bare, output=str(folder / "log"))
    return _logging(app, folder)


def _logging(app: Any, folder: Path) -> Subject:
    scene.ask(app, scene.environ("/a/page"))
    scene.expect("/a/page" in (folder / "log").read_text(), "no line in the log")
    return Subject(app, scene.environ("/a/page"))


def _basic_auth(folder: Path) -> Subject:
    from lamella.middleware.basic_auth import BasicAuthMiddleware

    return _guarded(BasicAuthMiddleware(bare, users={scene.USER: scene.PASSWORD_HASH}, realm=scene.REALM))


def _basic_auth_callable(folder: Path) -> Subject:
    from lamella.middleware.basic_auth import BasicAuthMiddleware

    return _guarded(BasicAuthMiddleware(bare, users=_known, realm=scene.REALM))


def _known(user: str, password: str) -> bool:
    import hmac

    return user == scene.USER and hmac.compare_digest(password, scene.PASSWORD)


def _guarded(app: Any) -> Subject:
    scene.expect(scene.ask(app, scene.environ("/")).status[:3] == "401", "open without credentials")
    request = scene.environ("/", HTTP_AUTHORIZATION=scene.CREDENTIALS)
    scene.expect(scene.ask(app, request).body == HELLO, "closed with credentials")
    return Subject(app, request)


def _cors(**fields: str) -> Build:
    def build(folder: Path) -> Subject:
        from lamella.middleware.cors import CORSMiddleware

        return _crossing(
            CORSMiddleware(bare, origins=[scene.ORIGIN], credentials=True, headers=["Authorization"]), fields
        )

    return build


_PREFLIGHT = {
    "REQUEST_METHOD": "OPTIONS",
    "HTTP_ORIGIN": scene.ORIGIN,
    "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET",
    "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": "authorization",
}
_ACTUAL = {"HTTP_ORIGIN": scene.ORIGIN}


def _crossing(app: Any, fields: dict[str, str]) -> Subject:
    answer = scene.ask(app, scene.environ("/") | _ACTUAL)
    scene.expect(answer.get("Access-Control-Allow-Origin") == scene.ORIGIN, answer)
    answer = scene.ask(app, scene.environ("/") | _PREFLIGHT)
    scene.expect("GET" in (answer.get("Access-Control-Allow-Methods") or ""), answer)
    answer = scene.ask(app, scene.environ("/", HTTP_ORIGIN="https://evil.example"))
    scene.expect(answer.get("Access-Control-Allow-Origin") is None, answer)
    return Subject(app, scene.environ("/") | fields)


def _dispatch(mounts: int = 1) -> Build:
    def build(folder: Path) -> Subject:
        from lamella.middleware.dispatch import DispatchMiddleware

        return _mounted(DispatchMiddleware(_not_found, mounts=dict.fromkeys(_prefixes(mounts), _mount)))

    return build


def _prefixes(number: int) -> list[str]:
    return ["/app", *(f"/other{index}" for index in range(1, number))]


def _not_found(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Length", "0")])
    return [b""]


def _mount(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [*HEADERS])
    return [environ["SCRIPT_NAME"].encode()] if environ["PATH_INFO"] == "/who" else [HELLO]


def _mounted(app: Any) -> Subject:
    scene.expect(scene.ask(app, scene.environ("/app/who")).body == b"/app", "SCRIPT_NAME is not shifted")
    scene.expect(scene.ask(app, scene.environ("/application")).status[:3] == "404", "/app takes /application")
    return Subject(app, scene.environ("/app/page"))


def _sessions(column: str, **options: Any) -> Build:
    def build(folder: Path) -> Subject:
        from lamella.middleware.session import SessionMiddleware

        return _with_session(
            lambda app: SessionMiddleware(app, secret=scene.SECRET.encode(), **options), "lamella.session", column
        )

    return build


def _with_session(wrap: Callable[[Any], Any], key: str, column: str) -> Subject:
    app, reading, writing = wrap(bare), wrap(_reads(key)), wrap(_writes(key))
    scene.expect(scene.ask(app, scene.environ("/")).get("Set-Cookie") is None, "a cookie for nothing")
    answer = scene.ask(writing, scene.environ("/"))
    scene.expect(answer.get("Set-Cookie") is not None, "no cookie")
    request = scene.environ("/", HTTP_COOKIE=COOKIE + answer.cookies())
    found: list[Any] = []

    def look(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        found.append(_session(environ[key]).get("user"))
        return bare(environ, start_response)

    scene.ask(wrap(look), request)
    scene.expect(found == ["bob"], f"the session is lost: {found}")
    return Subject({"untouched": app, "read": reading, "write": writing}[column], request)


def _static_miss(folder: Path) -> Subject:
    from lamella.middleware.static import StaticMiddleware

    scene.prepare(folder)
    return _beside_files(StaticMiddleware(bare, root=folder / "static", prefix="/static"))


def _beside_files(app: Any) -> Subject:
    scene.expect(scene.ask(app, scene.environ("/static/style.css")).body == scene.STYLE, "no file")
    scene.expect(scene.ask(app, scene.environ("/page")).body == HELLO, "no page")
    return Subject(app, scene.environ("/page"))


def _other(module: str, name: str, request: dict[str, str] | None = None, **options: Any) -> Build:
    """A layer without a peer in this comparison."""

    def build(folder: Path) -> Subject:
        from importlib import import_module

        app = getattr(import_module(f"lamella.middleware.{module}"), name)(bare, **options)
        asked = scene.environ("/") | (request or {})
        scene.expect(scene.ask(app, asked).body == HELLO, f"{module} does not let the request through")
        return Subject(app, asked)

    return build


# --- peers --------------------------------------------------------------------------------------


def _file_logger(name: str, folder: Path) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(folder / "log")
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    return logger


def _translogger(folder: Path) -> Subject:
    from paste.translogger import TransLogger

    return _logging(TransLogger(bare, logger=_file_logger("peer", folder), setup_console_handler=False), folder)


def _paste_auth(folder: Path) -> Subject:
    from paste.auth.basic import AuthBasicHandler

    return _guarded(AuthBasicHandler(bare, scene.REALM, lambda environ, user, password: _known(user, password)))


def _wsgicors(**fields: str) -> Build:
    def build(folder: Path) -> Subject:
        from wsgicors import CORS

        return _crossing(
            CORS(
                bare,
                origin=scene.ORIGIN,
                credentials="true",
                methods="GET, POST",
                headers="Authorization",
                maxage="600",
            ),
            fields,
        )

    return build


def _dispatcher(mounts: int = 1) -> Build:
    def build(folder: Path) -> Subject:
        from werkzeug.middleware.dispatcher import DispatcherMiddleware

        return _mounted(DispatcherMiddleware(_not_found, dict.fromkeys(_prefixes(mounts), _mount)))

    return build


def _urlmap(mounts: int = 1) -> Build:
    def build(folder: Path) -> Subject:
        from paste.urlmap import URLMap

        app = URLMap(not_found_app=_not_found)
        for prefix in _prefixes(mounts):
            app[prefix] = _mount
        return _mounted(app)

    return build


class LazySession(dict[str, Any]):
    """A session by hand: signed by itsdangerous, opened when it is first used."""

    __slots__ = ("cookie", "loaded", "modified", "serializer")

    def __init__(self, serializer: Any, cookie: str) -> None:
        self.serializer, self.cookie, self.loaded, self.modified = serializer, cookie, False, False

    def load(self) -> LazySession:
        if not self.loaded:
            from itsdangerous import BadSignature

            self.loaded = True
            if self.cookie:
                try:
                    self.update(self.serializer.loads(self.cookie, max_age=14 * 86400))
                except BadSignature:
                    pass
        return self

    def save(self) -> None:
        self.modified = True


def itsdangerous_layer() -> Callable[[Any], Any]:
    """Return what wraps an application in :class:`LazySession`."""
    from itsdangerous import URLSafeTimedSerializer

    serializer = URLSafeTimedSerializer(scene.SECRET, salt="session")

    def wrap(app: Any) -> Any:
        def layer(environ: dict[str, Any], start_response: Any) -> Any:
            cookies = environ.get("HTTP_COOKIE", "")
            at = cookies.find("session=")
            value = cookies[at + 8 :].partition(";")[0] if at >= 0 else ""
            environ["session"] = session = LazySession(serializer, value)

            def start(status: str, headers: Any, exc_info: Any = None) -> Any:
                if session.modified:
                    value = serializer.dumps(dict(session))
                    headers.append(("Set-Cookie", f"session={value}; Path=/; HttpOnly; SameSite=Lax"))
                return start_response(status, headers)

            return app(environ, start)

        return layer

    return wrap


def _itsdangerous(column: str) -> Build:
    return lambda folder: _with_session(itsdangerous_layer(), "session", column)


def _beaker(column: str) -> Build:
    def build(folder: Path) -> Subject:
        from beaker.middleware import SessionMiddleware

        options = {
            "session.type": "cookie",
            "session.key": "session",
            "session.validate_key": scene.SECRET,
            "session.data_serializer": "json",
            "session.httponly": True,
        }
        return _with_session(lambda app: SessionMiddleware(app, options), "beaker.session", column)

    return build


def _whitenoise_miss(folder: Path) -> Subject:
    from whitenoise import WhiteNoise

    scene.prepare(folder)
    return _beside_files(WhiteNoise(bare, root=str(folder / "static"), prefix="/static/"))


def _shared_data_miss(folder: Path) -> Subject:
    from werkzeug.middleware.shared_data import SharedDataMiddleware

    scene.prepare(folder)
    return _beside_files(SharedDataMiddleware(bare, {"/static": str(folder / "static")}))


#: Every layer alone, for counting instructions.
OWN: dict[str, Build] = {
    "access_log": _access_log,
    "basic_auth": _basic_auth,
    "cors, actual": _cors(**_ACTUAL),
    "cors, no origin": _cors(),
    "cors, preflight": _cors(**_PREFLIGHT),
    "dispatch": _dispatch(),
    "session, untouched": _sessions("untouched"),
    "session, read": _sessions("read"),
    "session, write": _sessions("write"),
    "static, miss": _static_miss,
    "edge": _other("edge", "EdgeMiddleware"),
    "request_id": _other("request_id", "RequestIdMiddleware"),
    "errors": _other("errors", "ErrorsMiddleware"),
    "hosts": _other("hosts", "HostsMiddleware", allow=["shop.example"]),
    "https": _other("https", "HTTPSMiddleware", {"wsgi.url_scheme": "https"}),
    "proxy, not trusted": _other("proxy", "ProxyMiddleware", trust=["10.0.0.0/8"]),
    "security_headers": _other("security_headers", "SecurityHeadersMiddleware"),
    "csrf, GET": _other("csrf", "CSRFMiddleware"),
    "compress, not accepted": _other("compress", "CompressMiddleware", encodings=["gzip"]),
    "conditional, plain GET": _other("conditional", "ConditionalMiddleware"),
    "body_limit, GET": _other("body_limit", "BodyLimitMiddleware", limit="1 MiB"),
    "health, other path": _other("health", "HealthMiddleware"),
    "context": _other("context", "ContextMiddleware"),
}


def _no_mount(folder: Path) -> Subject:
    from lamella.middleware.dispatch import DispatchMiddleware

    app = DispatchMiddleware(bare, mounts={"/app": _mount})
    scene.expect(scene.ask(app, scene.environ("/app/who")).body == b"/app", "no mount")
    return Subject(app, scene.environ("/page"))


#: Requests that each layer lets through as they are.
IDLE: dict[str, Build] = {
    "cors, no origin": OWN["cors, no origin"],
    "static, miss": _static_miss,
    "dispatch, no mount": _no_mount,
    "basic_auth, not required": _other(
        "basic_auth", "BasicAuthMiddleware", users={scene.USER: scene.PASSWORD_HASH}, required=False
    ),
    "errors": OWN["errors"],
    "hosts": OWN["hosts"],
    "https": OWN["https"],
    "proxy, not trusted": OWN["proxy, not trusted"],
    "csrf, GET": OWN["csrf, GET"],
    "compress, not accepted": OWN["compress, not accepted"],
    "conditional, POST": _other("conditional", "ConditionalMiddleware", {"REQUEST_METHOD": "POST"}),
    "body_limit, GET": OWN["body_limit, GET"],
    "health, other path": OWN["health, other path"],
}
#: And those that do something at every request: check it, name it, add a header, hash the answer.
ALWAYS = ("session, untouched", "edge", "request_id", "security_headers", "context", "conditional, plain GET")
_NOTE = "The times include the bare application."
GROUPS = [
    Group("bare", "Bare application", {"bare": {"hello": _bare}}, "bare"),
    Group(
        "session",
        "Session layer alone",
        {
            "bare": dict.fromkeys(("untouched", "read", "write"), _bare),
            "lamella": {column: _sessions(column) for column in ("untouched", "read", "write")},
            "itsdangerous, lazy, by hand": {column: _itsdangerous(column) for column in ("untouched", "read", "write")},
            "Beaker, cookie": {column: _beaker(column) for column in ("untouched", "read", "write")},
        },
        "lamella",
        note=_NOTE,
    ),
    Group(
        "cors",
        "CORS layer alone",
        {
            "bare": {"actual": _bare, "no origin": _bare},
            "lamella": {"actual": _cors(**_ACTUAL), "no origin": _cors(), "preflight": _cors(**_PREFLIGHT)},
            "wsgicors": {
                "actual": _wsgicors(**_ACTUAL),
                "no origin": _wsgicors(),
                "preflight": _wsgicors(**_PREFLIGHT),
            },
        },
        "lamella",
        note=_NOTE,
    ),
    Group(
        "mounts",
        "Mounted applications",
        {
            "bare": {f"{number} mount{'s' * (number > 1)}": _bare for number in (1, 10, 100, 1000)},
            "lamella": {f"{number} mount{'s' * (number > 1)}": _dispatch(number) for number in (1, 10, 100, 1000)},
            "Werkzeug": {f"{number} mount{'s' * (number > 1)}": _dispatcher(number) for number in (1, 10, 100, 1000)},
            "Paste urlmap": {f"{number} mount{'s' * (number > 1)}": _urlmap(number) for number in (1, 10, 100, 1000)},
        },
        "lamella",
        note=_NOTE,
    ),
    Group(
        "log",
        "Access log, one write for each line",
        {
            "bare": {"to a file": _bare},
            "lamella": {"to a file": _access_log},
            "Paste TransLogger": {"to a file": _translogger},
        },
        "lamella",
        note=_NOTE,
    ),
    Group(
        "auth",
        "Basic auth",
        {
            "bare": {"right password": _bare},
            "lamella, bcrypt hash": {"right password": _basic_auth},
            "lamella, a function": {"right password": _basic_auth_callable},
            "Paste, plain text": {"right password": _paste_auth},
        },
        "lamella, bcrypt hash",
        note=_NOTE,
    ),
    Group(
        "miss",
        "Static layer, a request that is for none of its files",
        {
            "bare": {"miss": _bare},
            "lamella": {"miss": _static_miss},
            "WhiteNoise": {"miss": _whitenoise_miss},
            "Werkzeug SharedData": {"miss": _shared_data_miss},
        },
        "lamella",
        note=_NOTE,
    ),
    Group(
        "idle",
        "Layers that have nothing to do",
        {"bare": {"hello": _bare}, **{name: {"hello": build} for name, build in IDLE.items()}},
        "bare",
    ),
    Group(
        "always",
        "Layers that do something at every request",
        {"bare": {"hello": _bare}, **{name: {"hello": OWN[name]} for name in ALWAYS}},
        "bare",
    ),
]  # fmt: skip
