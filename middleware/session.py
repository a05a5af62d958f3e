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
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.cookies import CookieFormat
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import SESSION
from lamella.stack.kernel.options import Duration, Secret, SecretValue, Size, choice, duration, flag, size
from lamella.stack.kernel.options import secret as secret_bytes
from lamella.stack.kernel.order import Inside
from lamella.stack.kernel.response import close

from ._session_answer import Answer, LateBody, edited_headers, finished
from ._session_cookie import CookieBackend, Lifetime, encrypting, signing
from ._session_errors import SessionError, SessionTooLargeError, SessionUnavailableError, SessionWriteError
from ._session_mapping import Backend, SessionMapping

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
        flag("encrypt", encrypt)
        flag("lock", lock)
        most = size("max_bytes", max_bytes)
        if not callable(clock):
            raise ConfigError("clock", clock, "a callable that returns seconds since the epoch")
        backend: Backend
        release: Callable[[SessionMapping], object] = _nothing
        if store == "cookie":
            if lock:
                raise ConfigError("lock", lock, "false for the cookie store: browsers send requests at the same time")
            sealing = (encrypting if encrypt else signing)(keys, cookie_name)
            backend = CookieBackend(cookie, sealing, lifetime, most, clock)
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


# What a store must have; see the protocol.
_STORE = ("load", "create", "commit", "delete", "touch", "acquire", "release", "single_process")


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
    if any(not hasattr(found, name) for name in _STORE):
        raise ConfigError("store", type(store).__name__, f"a URL, or an object with {', '.join(_STORE)}")
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
        fresh._data = fresh.failure = None
        fresh.sealed = fresh.sent = False
        session: SessionMapping = fresh
        environ[key] = session
        answer = Answer()
        answer.session = session
        answer._outer = start_response
        answer.held = False
        try:
            body = inner(environ, answer.start)
        except SessionUnavailableError:
            release(session)
            if session.failure is None or session.sent:
                raise
            answer.send()
            return finished((), session, environ)
        except BaseException:
            release(session)
            raise
        if not answer.held:
            if session.sent:
                return finished(body, session, environ)
            return LateBody(body, answer, release, environ)
        try:
            if session.failure is None and answer._exc_info is None:  # answer.send(), without the call
                headers = answer._headers
                if session._data is not None:
                    headers = edited_headers(headers, session.lines)
                answer.held = False
                session.sent = True
                answer._write = start_response(answer._status, headers)
                if session._data is None or session._given is None:
                    return body
            else:
                answer.send()
        except BaseException:  # the server refuses the headers, and will never see the body
            close(body)
            raise
        return finished(body, session, environ)

    return wsgi_closure
