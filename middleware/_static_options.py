"""The options of ``static``, checked when the stack is built."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import STATIC
from lamella.stack.kernel.options import Duration, FilePath, choice, duration, file_path, strings
from lamella.stack.kernel.paths import AmbiguousPathError, check_path
from lamella.stack.kernel.static_urls import StaticUrls

from ._static_answer import Sendfile, places_of
from ._static_lookup import Roots

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "Budget",
    "cache_control_of",
    "names_of",
    "page_of",
    "prefix_of",
    "providing",
    "sendfile_of",
    "visible_dotfiles",
]


class Budget:
    """Counts the bytes held in memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def take(self, amount: int) -> bool:
        """Reserve *amount* bytes; False where there are not so many."""
        with self._lock:
            if self._held + amount > self.limit:
                return False
            self._held += amount
            return True

    def give(self, amount: int) -> None:
        """Give *amount* bytes back."""
        with self._lock:
            self._held -= amount


def prefix_of(prefix: str) -> str:
    """Return the prefix in WSGI form, without a slash at its end."""
    expected = 'a path such as "/static"'
    if not isinstance(prefix, str) or not prefix.startswith("/"):
        raise ConfigError("prefix", prefix, expected)
    base = prefix.rstrip("/")
    try:
        wsgi_form = base.encode("utf-8").decode("latin-1")
        if base:
            check_path(wsgi_form)
    except (AmbiguousPathError, UnicodeEncodeError):
        raise ConfigError("prefix", prefix, expected + ", decoded and without dot segments") from None
    return wsgi_form


def names_of(option: str, value: str | Sequence[str]) -> tuple[str, ...]:
    """Return file names, given as one or as several."""
    names = (value,) if isinstance(value, str) else strings(option, value)
    for name in names:
        if "/" in name or "\\" in name or not name.isprintable() or name in (".", ".."):
            raise ConfigError(option, name, "a file name")
    return tuple(name for name in names if name)


def visible_dotfiles(dotfiles: bool | Sequence[str]) -> frozenset[str] | None:
    """Return the dotfiles to serve; None for all of them."""
    if isinstance(dotfiles, bool):
        return None if dotfiles else frozenset()
    return frozenset(strings("dotfiles", dotfiles, lambda name: name.startswith(".") and "/" not in name, "dotfiles"))


def page_of(option: str, value: str | None) -> str | None:
    """Return the path of a page below the root."""
    if value is None:
        return None
    relative = "/" + value.lstrip("/") if isinstance(value, str) else ""
    try:
        if len(relative) < 2:
            raise AmbiguousPathError("it names no file")
        check_path(relative.encode("utf-8").decode("latin-1"))
    except (AmbiguousPathError, UnicodeEncodeError):
        raise ConfigError(option, value, "the path of a file below the root") from None
    return relative


def cache_control_of(max_age: Duration | None, mode: str) -> str:
    """Return the Cache-Control of files whose name has no hash.

    Not ``public``: that would let a shared cache keep what only the bearer of a credential may see.
    """
    if max_age is None:
        return "no-cache" if mode == "live" else "max-age=60"
    seconds = int(duration("max_age", max_age))
    return f"max-age={seconds}" if seconds else "no-cache"


def sendfile_of(kind: str | None, mapping: Mapping[str, str], roots: Roots) -> Sendfile | None:
    """Return how the front server is told to send a file."""
    if not isinstance(mapping, Mapping):
        raise ConfigError("sendfile_map", mapping, "folders and where the front server finds them")
    if kind is None:
        if mapping:
            raise ConfigError("sendfile_map", dict(mapping), "sendfile to be set as well")
        return None
    choice("sendfile", kind, ("x-accel-redirect", "x-sendfile"))
    places = {}
    for folder, place in mapping.items():
        if not isinstance(place, str) or not place.startswith("/") or not place.isprintable():
            raise ConfigError("sendfile_map", {folder: place}, "a place that starts with a slash")
        places[str(file_path("sendfile_map", folder))] = place
    header = {"x-accel-redirect": "X-Accel-Redirect", "x-sendfile": "X-Sendfile"}[kind]
    handed_over = Sendfile(header, places_of(places))
    if kind == "x-accel-redirect":
        for root in roots:
            if not any((root + "/").startswith(folder + "/") for folder in places):
                raise ConfigError("sendfile_map", dict(mapping), f"the internal address of {root}")
    return handed_over


def providing(inner: WSGIApplication, base: str, manifest: FilePath | None, mode: str) -> WSGIApplication:
    """Return *inner* with ``lamella.static`` set, where there is a manifest."""
    if manifest is None:
        return inner
    urls = StaticUrls(base, file_path("manifest", manifest), reload=mode == "live")
    key = STATIC.name

    def provided(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[key] = urls.at(environ.get("SCRIPT_NAME", ""))
        return inner(environ, start_response)

    return provided
