"""The environ keys that layers speak to each other through, and what they hold.

PEP 3333 asks server- and middleware-defined keys for lower case, dots and a unique
prefix; ours is ``lamella.``. ``docs/environ.md`` is the table of this module.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from .errors import MissingLayerError
from .records import Record

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from .static_urls import StaticUrls

__all__ = [
    "CLIENT",
    "CSP_NONCE",
    "CSRF",
    "EXCEPTION",
    "IDENTITY",
    "JSON",
    "MOUNT",
    "RECORD",
    "REQUEST_ID",
    "ROUTE",
    "SESSION",
    "STATIC",
    "TRACE",
    "Client",
    "CsrfToken",
    "EnvironKey",
    "Identity",
    "Route",
    "Session",
    "Trace",
    "record",
]

T = TypeVar("T")

#: Holds what was set inside, by name: one dict a request, shared by every copy of its environ.
RECORD = "lamella.record"

#: A JSON value, as RFC 8259 has them.
JSON: TypeAlias = "None | bool | int | float | str | list[JSON] | dict[str, JSON]"


class EnvironKey(Generic[T]):
    """One environ key and the type of what it holds.

    Args:
        name: The key, with the prefix ``lamella.``.
        layer: Short name of the layers that set it, for the error message.
    """

    __slots__ = ("layer", "name")

    def __init__(self, name: str, layer: str = "") -> None:
        self.name = name
        self.layer = layer

    def get(self, environ: WSGIEnvironment) -> T | None:
        """Return the value, or None where no layer set it."""
        value: T | None = environ.get(self.name)
        return value

    def require(self, environ: WSGIEnvironment) -> T:
        """Return the value.

        Raises:
            MissingLayerError: No layer outside set it; the message names the layer to add.
        """
        try:
            value: T = environ[self.name]
        except KeyError:
            raise MissingLayerError(self.name, self.layer) from None
        return value

    def set(self, environ: WSGIEnvironment, value: T) -> None:
        """Set the value for everything inside, and for a layer outside that keeps a :func:`record`."""
        environ[self.name] = value
        record = environ.get(RECORD)
        if record is not None:
            record[self.name] = value

    def seen(self, environ: WSGIEnvironment) -> T | None:
        """Return what was set last for this request, also inside and on a copy of the environ.

        For layers that look back when the answer is there (logs, metrics): dispatch hands a
        copy of the environ on, so that what is set behind it never shows in theirs. Call
        :func:`record` on the way in.
        """
        record = environ.get(RECORD)
        if record is not None and self.name in record:
            value: T | None = record[self.name]
            return value
        return self.get(environ)

    def __repr__(self) -> str:
        return f"EnvironKey({self.name!r})"


def record(environ: WSGIEnvironment) -> dict[str, Any]:
    """Return the request's record, and begin it where no layer outside did.

    :meth:`EnvironKey.set` writes to it too. A shallow copy of the environ shares it. Keep the
    dict where the app might clear its environ.
    """
    kept: dict[str, Any] | None = environ.get(RECORD)
    if kept is None:
        kept = environ[RECORD] = {}
    return kept


class Client(Record):
    """Who asks and what they asked for, as the trusted proxies tell it."""

    #: ``http`` or ``https``.
    scheme: str
    #: Host and optional port, as the client typed it.
    host: str
    #: Textual IP address, or ``unix`` for a peer on a unix socket.
    address: str


class Identity(Record):
    """Who is asking, established by an auth layer."""

    #: Unique name of the user; also ``REMOTE_USER``.
    user: str
    #: ``basic``, ``bearer``, ``session``, ``oidc``; also ``AUTH_TYPE``.
    scheme: str
    #: What the credential says of the user (JWT claims and the like), never the credential.
    claims: Mapping[str, Any] = {}
    #: Names that the rules of ``access`` allow.
    roles: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Identity(user={self.user!r}, scheme={self.scheme!r}, roles={sorted(self.roles)!r})"


class Route(Record):
    """The route that matched."""

    #: The rule as written, such as ``/notes/<int:id>``.
    pattern: str
    #: Name of the view.
    endpoint: str
    #: Converted parameters.
    parameters: Mapping[str, Any]


class Trace(Record):
    """Where the request is in a distributed trace (W3C Trace Context, level 1)."""

    #: 32 hexadecimal digits: the whole trace.
    trace_id: str
    #: 16 hexadecimal digits: this request.
    span_id: str
    #: 16 hexadecimal digits: what the trusted client was doing; empty where the trace begins here.
    parent_id: str
    #: Whether the caller may have recorded it.
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The header for requests made on behalf of this one."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


class Session(MutableMapping[str, "JSON"]):
    """What ``lamella.session`` holds: a mapping that is loaded on first use.

    Nested values may be changed in place; the change is noticed. Reading adds
    ``Vary: Cookie`` to the answer, changing stores it before the headers go out.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def created(self) -> float:
        """When the session began: seconds since the epoch."""

    @property
    @abstractmethod
    def is_new(self) -> bool:
        """Whether the client sent no valid session."""

    @property
    @abstractmethod
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser's own session."""

    @permanent.setter
    @abstractmethod
    def permanent(self, value: bool) -> None: ...

    @abstractmethod
    def rotate(self) -> None:
        """Give the session a new id; the old one is dead. Call it when rights change (login)."""

    @abstractmethod
    def invalidate(self) -> None:
        """Forget everything, in the store and in the browser (logout)."""

    @abstractmethod
    def flash(self, message: str, category: str = "message") -> None:
        """Keep *message* until it is shown once."""

    @abstractmethod
    def flashes(self) -> list[tuple[str, str]]:
        """Return (category, message) pairs not shown yet, and forget them."""


class CsrfToken(Protocol):
    """What ``lamella.csrf`` holds: makes the token that a form sends back."""

    #: Name of the form field that carries the token.
    field: str
    #: Name of the header that carries it instead.
    header: str

    def token(self) -> str:
        """Return a token for this session, masked anew at each call."""


#: str: identifies the request in logs and answers. Set by ``request_id``.
REQUEST_ID: EnvironKey[str] = EnvironKey("lamella.request_id", "request_id")
#: Client: scheme, host and address. Set by ``proxy``.
CLIENT: EnvironKey[Client] = EnvironKey("lamella.client", "proxy")
#: Session: loaded on first use. Set by ``session``.
SESSION: EnvironKey[Session] = EnvironKey("lamella.session", "session")
#: Identity: who is asking. Set by ``basic_auth``, ``bearer_auth``, ``login``, ``oidc``.
IDENTITY: EnvironKey[Identity] = EnvironKey("lamella.identity", "basic_auth, bearer_auth, login or oidc")
#: CsrfToken: the token source. Set by ``csrf``.
CSRF: EnvironKey[CsrfToken] = EnvironKey("lamella.csrf", "csrf")
#: str: the nonce of this answer's Content-Security-Policy. Set by ``security_headers``.
CSP_NONCE: EnvironKey[str] = EnvironKey("lamella.csp_nonce", "security_headers")
#: Route: the matched route; also ``wsgiorg.routing_args``. Set by the router.
ROUTE: EnvironKey[Route] = EnvironKey("lamella.route", "lamella.apps.router")
#: str: the prefix or host that matched. Set by ``dispatch``.
MOUNT: EnvironKey[str] = EnvironKey("lamella.mount", "dispatch")
#: Trace: the trace context. Set by ``request_id``.
TRACE: EnvironKey[Trace] = EnvironKey("lamella.trace", "request_id")
#: str: name of the class of the exception that became an error page. Set by ``errors``.
EXCEPTION: EnvironKey[str] = EnvironKey("lamella.exception", "errors")
#: StaticUrls: makes the addresses of static files, hashed names included. Set by ``static`` with a manifest.
STATIC: EnvironKey[StaticUrls] = EnvironKey("lamella.static", "static")
