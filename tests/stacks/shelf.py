"""Apps and layers that the stack files of the tests use; they know nothing of lamella but its marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.options import App, Cidr, Duration, FilePath, Reference, Regex, SecretValue, Size

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer with the path and the trail of layers."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ.get('PATH_INFO')} {environ.get('trail', '')}".encode("latin-1")]


def make_app(greeting: str = "hello", times: int = 1) -> WSGIApplication:
    """Make an app, as Flask's ``create_app`` does."""

    def greet(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [greeting.encode() * times]

    return greet


class Trail:
    """Leaves its name in the environ, so that a test sees who was called and in which order.

    Args:
        app: The application inside.
        name: What it leaves.
    """

    def __init__(self, app: WSGIApplication, *, name: str = "trail") -> None:
        self.app = app
        self.name = name

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        environ["trail"] = environ.get("trail", "") + self.name + ">"
        return self.app(environ, start_response)


class Mount(TypedDict):
    """A mounted app, and what is done for it."""

    app: App
    cookies: NotRequired[Literal["scope", "keep"]]


class Typed:
    """A layer with one option of each type; keeps what it is given."""

    def __init__(
        self,
        app: WSGIApplication,
        *,
        text: str = "",
        flag: bool = False,
        number: int = 0,
        ratio: float = 0.0,
        idle: Duration | None = None,
        limit: Size = 1,
        trust: Sequence[Cidr] = (),
        pattern: Regex = "",
        path: FilePath = "-",
        paths: Sequence[FilePath] | FilePath = (),
        secret: SecretValue | Sequence[SecretValue] = b"",
        keys: Mapping[str, SecretValue] | None = None,
        call: Reference = None,
        hook: Callable[[], object] | None = None,
        mode: Literal["live", "frozen"] = "live",
        names: Sequence[str] = (),
        pair: tuple[int, str] | None = None,
        unique: frozenset[str] = frozenset(),
        table: Mapping[str, int | str] | None = None,
        mounts: Mapping[str, App | Mount] | None = None,
        fallback: App | None = None,
    ) -> None:
        self.app = app
        self.given = {name: value for name, value in locals().items() if name not in ("self", "app")}
        if number == 13:
            raise ConfigError("number", number, "a number that brings luck")
        if number == 14:
            raise RuntimeError("the roof\nis on fire")
        if number == 15:
            raise SystemExit(3)
        if text.startswith("tell"):
            raise ValueError(f"cannot use {text!r} and {getattr(secret, 'reveal', lambda: b'')().decode()}")
        for name in names:
            if name == "nobody":
                raise ConfigError("names", name, "names of somebody")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        return self.app(environ, start_response)


def plain(app: WSGIApplication, size, secret_key="", *, colour="red"):  # type: ignore[no-untyped-def]
    """A third party's layer, without annotations."""
    plain.calls.append((size, secret_key, colour))  # type: ignore[attr-defined]
    return app


plain.calls = []  # type: ignore[attr-defined]


def anything(app: WSGIApplication, **options: object) -> WSGIApplication:
    """A layer whose options cannot be checked."""
    return app


def nothing(app: WSGIApplication) -> None:
    """A factory that forgot to return."""


number = 5


def clock() -> float:
    """What a reference names."""
    return 0.0


def paste_app(global_conf: Mapping[str, str]) -> WSGIApplication:
    """What PasteDeploy's ``call:`` names."""
    return app
