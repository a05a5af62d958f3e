"""Keep a session for each browser: in a signed or encrypted cookie, or in a store on the server.

Sets ``lamella.session``: a mapping of JSON values, loaded on first use. Sends ``Set-Cookie``
when the session changed; once anybody looked at it, the answer says ``Vary: Cookie`` and
``Cache-Control: private``. A request that leaves it alone costs nothing.

.. code-block:: toml

    [[layer]]
    use    = "session"
    secret = { env = "SHOP_KEY" }
    idle   = "30m"

Place it outside the layers that use a session (``login``, ``oidc``, ``csrf``), and inside
``static`` and ``compress``. Not for API clients that send a credential with each request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.cookies import CookieFormat
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import split_quoted
from lamella.stack.kernel.keys import SESSION
from lamella.stack.kernel.options import Duration, Secret, SecretValue, Size, choice, duration, size
from lamella.stack.kernel.options import secret as secret_bytes
from lamella.stack.kernel.order import Inside
from lamella.stack.kernel.response import Headers, add_vary, close, has_body, on_close

from ._session_cookie import CookieBackend, Lifetime, encrypting, signing
from ._session_mapping import (
    Backend,
    SessionError,
    SessionMapping,
    SessionTooLargeError,
    SessionUnavailableError,
    SessionWriteError,
)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from ._session_server import StoreBackend
    from ._session_store import Store

__all__ = [
    "SessionError",
    "SessionMiddleware",
    "SessionTooLargeError",
    "SessionUnavailableError",
    "SessionWriteError",
]

# 8190 bytes is what gunicorn takes in one header field, and nginx 8 KiB: room for other cookies beside ours.
_MAX_BYTES = "7 KiB"
_UNAVAILABLE = b"503: the session store does not answer. Please try again in a moment.\n"
_VARY, _PRIVATE = ("Vary", "Cookie"), ("Cache-Control", "private")
_UNAVAILABLE_HEADERS = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(_UNAVAILABLE))),
    ("Cache-Control", "no-store"),
    ("Retry-After", "1"),
)


class SessionMiddleware:
    """Keep a session for each browser.

    Args:
        app: The application inside.
        secret: At least 32 random bytes; one, or a list of which the first signs and all verify.
            ``lamella secret FILE`` makes one.
        store: ``"cookie"`` (in the browser), ``"memory:"`` (development), ``"sqlite:///path"`` (several processes,
            one machine), ``"redis://…"``, ``"memcached://…"``, or any other URL of SQLAlchemy.
        cookie_name: Name of the cookie; two sessions on one host need two names, or two paths. ``__Host-session``
            keeps subdomains from setting it.
        path: Where the browser sends the cookie.
        domain: Send the cookie to subdomains of this, too; none for this host alone.
        secure: Send the cookie over TLS only. False for development without TLS.
        http_only: Keep scripts from reading the cookie.
        same_site: ``"Lax"``, ``"Strict"`` or ``"None"``: whether other sites' requests carry the cookie.
        partitioned: Keep a cookie apart for each site that embeds this one.
        idle: The session ends after this long without use. Where neither limit is given: 14 days.
        absolute: The session ends this long after it began, however much it is used.
        encrypt: Encrypt the cookie, so that the browser cannot read the content. Needs the extra ``crypto``.
        lock: One request at a time for each session, for counters and the like. Needs a server-side store.
        on_error: While the store does not answer, say ``"503"``, or go on as ``"anonymous"``: with an
            empty session that keeps nothing.
        max_bytes: Longest session in cookies, over several of them; more is a ``SessionTooLargeError``. Servers
            and proxies refuse a request with more than about 8 KiB of cookies.
        clock: Returns the time, in seconds since the epoch.

    Raises:
        ConfigError: A secret that is short, attributes that browsers refuse, an unknown store,
            ``encrypt`` with a store, or ``lock`` without one.
        MissingExtraError: The store's client library is not installed.
    """

    provides = (SESSION,)
    requires = ()
    order = (
        Inside("static", "L110", "a session read for every asset, and Set-Cookie on files that caches keep"),
        Inside("proxy", "L105", "the scheme and the client are known only inside it"),
    )
    streams = True

    #: Why this layer, as it is built, works in one process only; None where any number may share the sessions.
    single_process: str | None

    def __init__(
        self,
        app: WSGIApplication,
        *,
        secret: SecretValue | Sequence[SecretValue],
        store: str | Store = "cookie",
        cookie_name: str = "session",
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        http_only: bool = True,
        same_site: str | None = "Lax",
        partitioned: bool = False,
        idle: Duration | None = None,
        absolute: Duration | None = None,
        encrypt: bool = False,
        lock: bool = False,
        on_error: str = "503",
        max_bytes: Size = _MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        keys = _secrets(secret)
        cookie = CookieFormat(
            cookie_name,
            path=path,
            domain=domain,
            secure=secure,
            http_only=http_only,
            same_site=same_site,
            partitioned=partitioned,
        )
        lifetime = Lifetime(_limit("idle", idle), _limit("absolute", absolute))
        choice("on_error", on_error, ("503", "anonymous"))
        backend: Backend
        release: Callable[[SessionMapping], object] = _nothing
        if store == "cookie":
            if lock:
                raise ConfigError("lock", lock, "false for the cookie store: browsers send requests at the same time")
            sealing = (encrypting if encrypt else signing)(keys, cookie_name)
            backend = CookieBackend(cookie, sealing, lifetime, size("max_bytes", max_bytes), clock)
            self.single_process = _only_here(secret)
        else:
            if encrypt:
                raise ConfigError("encrypt", encrypt, "false for a server-side store: its cookie holds no content")
            server = _server(store, cookie, keys, lifetime, lock=lock, anonymous=on_error == "anonymous", clock=clock)
            backend, reason = server
            self.single_process = reason or _only_here(secret)
            if lock:
                release = backend.release
        self.wsgi_closure = _closure(direct(app), backend, release)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _nothing(session: SessionMapping) -> None:
    """Release a session that no lock holds."""


def _secrets(value: SecretValue | Sequence[SecretValue]) -> list[bytes]:
    """The keys, the one that signs first."""
    if isinstance(value, (str, bytes, Secret)):
        return [secret_bytes("secret", value)]
    if not isinstance(value, (list, tuple)) or not value:
        raise ConfigError("secret", Secret(b""), "a secret, or a list of them: the first signs, all verify")
    return [secret_bytes("secret", item) for item in value]


def _limit(option: str, value: Duration | None) -> float | None:
    """A lifetime, which is longer than nothing."""
    seconds = None if value is None else duration(option, value)
    if seconds is not None and seconds <= 0:
        raise ConfigError(option, value, 'a duration over zero, such as "30m"')
    return seconds


def _only_here(secret: object) -> str | None:
    """Why other processes would not know the secret, where its source tells."""
    for item in secret if isinstance(secret, (list, tuple)) else (secret,):
        if isinstance(item, Secret) and item.source.startswith(("insecure", "random", "literal")):
            return f"its secret is {item.source.split()[0]}; use {{ env = … }} or {{ file = … }}"
    return None


def _server(
    store: object,
    cookie: CookieFormat,
    keys: list[bytes],
    lifetime: Lifetime,
    *,
    lock: bool,
    anonymous: bool,
    clock: Callable[[], float],
) -> tuple[StoreBackend, str | None]:
    """The backend of a server-side store, and why it is right in one process only."""
    from ._session_server import StoreBackend
    from ._session_store import open_store

    found: Any = open_store(store, clock) if isinstance(store, str) else store
    if not hasattr(found, "commit"):
        raise ConfigError("store", store, "a URL, or an object with the methods of a store")
    backend = StoreBackend(found, cookie, keys, lifetime, lock=lock, anonymous=anonymous, clock=clock)
    return backend, found.single_process


# --- one request --------------------------------------------------------------------------------


def _closure(inner: WSGIApplication, backend: Backend, release: Callable[[SessionMapping], object]) -> WSGIApplication:
    """The layer's work.

    ``start_response`` is held until the app returns (or, where it starts late, until its first
    block): what it reads until then still gets its ``Vary``. The commit comes before.
    """
    key = SESSION.name
    session_class = type("SessionMapping", (SessionMapping,), {"_backend": backend, "__slots__": ()})

    def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        fresh: Any = session_class()
        fresh.header = environ.get("HTTP_COOKIE", "")
        fresh._data = fresh.held = fresh.failure = None
        fresh.sealed = fresh.sent = False
        session: SessionMapping = fresh
        environ[key] = session

        def start(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
            if not session.sealed:
                session.sealed = True
                if session._data is not None and (session.attention or session._dirty or session._given):
                    _commit(backend, session)
            if session.sent or (session.held is not None and exc_info is None):
                return _restart(session, start_response, status, headers, exc_info)
            session.held = (status, headers, exc_info)
            return write

        def write(data: bytes, /) -> object:
            if session.held is not None:
                _send(session, start_response)
            return None if session.failure is not None else session.write(data)

        try:
            body = inner(environ, start)
        except SessionUnavailableError:
            release(session)
            if session.failure is None or session.sent:
                raise
            _send(session, start_response)
            return _finished((), session, environ)
        except BaseException:
            release(session)
            raise
        held = session.held
        if held is None:
            if session.sent:
                return _finished(body, session, environ)
            return _LateBody(body, session, start_response, release, environ)
        try:
            if session._data is None and session.failure is None:
                session.held = None
                session.sent = True
                status, headers, exc_info = held
                if exc_info is None:
                    session.write = start_response(status, headers)
                else:
                    session.write = start_response(status, headers, exc_info)
                return body
            _send(session, start_response)
        except BaseException:  # the server refuses the headers, and will never see the body
            close(body)
            raise
        if session.failure is None and session._given is None:
            return body
        return _finished(body, session, environ)

    return wsgi_closure


def _commit(backend: Backend, session: SessionMapping) -> None:
    """Keep the session; what cannot be kept is dropped, so that an error page gets through."""
    try:
        session.lines = backend.commit(session)
    except SessionUnavailableError:
        return  # noted in session.failure: the answer becomes a 503
    except BaseException:
        session.abandon()
        raise
    session.freeze()


def _send(session: SessionMapping, start_response: StartResponse) -> None:
    """Send the headers that were held, with what the session adds; a 503 where the store did not answer."""
    if session.failure is not None:
        status, headers, exc_info = "503 Service Unavailable", list(_UNAVAILABLE_HEADERS), None
    else:
        status, headers, exc_info = session.held or ("", [], None)
        if session._data is not None:
            headers = _edited(headers, session.lines)
    session.held = None
    session.sent = True
    session.write = start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)


def _restart(
    session: SessionMapping, start_response: StartResponse, status: str, headers: Headers, exc_info: Any
) -> Callable[[bytes], object]:
    """Hand a second call on: with ``exc_info`` the server may still change its mind, without it says no."""
    if session.held is not None:
        _send(session, start_response)
    if session._data is not None:
        headers = _edited(headers, session.lines)
    return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)


def _edited(headers: Headers, lines: Iterable[str]) -> Headers:
    """A copy of *headers* that keeps shared caches away (RFC 9111 section 5.2.2.7), and sets cookies."""
    edited = [*headers]
    varies = controlled = False
    for name, _ in headers:
        # By length first: a call of lower() for each header costs more than all the rest of this function.
        if len(name) == 4:
            varies = varies or name.lower() == "vary"
        elif len(name) == 13:
            controlled = controlled or name.lower() == "cache-control"
    if varies:
        edited = add_vary(edited, "Cookie")
    else:
        edited.append(_VARY)
    if controlled:
        edited = _made_private(edited)
    else:
        edited.append(_PRIVATE)
    for line in lines:
        edited.append(("Set-Cookie", line))
    return edited


def _made_private(headers: Headers) -> Headers:
    """Merge ``private`` into the Cache-Control that is there: never weaker, and nothing for shared caches left."""
    text = ", ".join(value for name, value in headers if name.lower() == "cache-control")
    pieces = split_quoted(text, ",")
    kept = []
    for piece in pieces if pieces is not None else ("no-store",):
        directive = piece.partition("=")[0].strip().lower()
        # private="field" speaks of a field; public, s-maxage and proxy-revalidate of shared caches.
        if piece and directive not in ("public", "s-maxage", "proxy-revalidate", "private"):
            kept.append(piece)
    if not any(piece.lower() == "no-store" for piece in kept):
        kept.append("private")
    edited = [header for header in headers if header[0].lower() != "cache-control"]
    edited.append(("Cache-Control", ", ".join(kept)))
    return edited


# --- bodies -------------------------------------------------------------------------------------


def _finished(body: Iterable[bytes], session: SessionMapping, environ: WSGIEnvironment) -> Iterable[bytes]:
    """The body of an answer whose headers are out."""
    if session.failure is not None:
        close(body)
        return [_UNAVAILABLE] if has_body("503", environ.get("REQUEST_METHOD", "GET")) else [b""]
    if session._data is None or session._given is None:
        return body
    return on_close(environ, body, lambda finished: session.check_unchanged())


class _LateBody:
    """The body of an app that had not started when it returned.

    Args:
        body: What the app returned.
        session: The request's.
        start_response: The outer one.
        release: Lets a lock go that no commit released.
        environ: The request.
    """

    __slots__ = ("_body", "_closed", "_environ", "_iterator", "_release", "_session", "_start_response")

    def __init__(
        self,
        body: Iterable[bytes],
        session: SessionMapping,
        start_response: StartResponse,
        release: Callable[[SessionMapping], object],
        environ: WSGIEnvironment,
    ) -> None:
        self._body = body
        self._session = session
        self._start_response = start_response
        self._release = release
        self._environ = environ
        self._iterator: Iterator[bytes] | None = None
        self._closed = False

    def __iter__(self) -> _LateBody:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._body)
        session = self._session
        if session.sent and session.held is None:
            return next(self._iterator)
        try:
            block = next(self._iterator)
        except StopIteration:
            if session.held is None:
                raise
            _send(session, self._start_response)
            if session.failure is None:
                raise
        except SessionUnavailableError:
            if session.failure is None or session.sent:
                raise
            _send(session, self._start_response)
        else:
            if session.held is None:
                return block
            _send(session, self._start_response)
            if session.failure is None:
                return block
        self._body = _finished(self._body, session, self._environ)
        self._iterator = iter(self._body)
        return next(self._iterator)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            close(self._body)
        finally:
            self._release(self._session)
            self._session.check_unchanged()
