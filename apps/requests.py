"""The request that views get: WebOb's, in which nothing a client sends raises anything but a 400.

WebOb reads lazily, and 14 of its attributes raise on bytes that any client can send (a path
that is not UTF-8, ``?a=%ff``, ``Range: bytes=-``, deeply nested JSON, a client that leaves).
Here each of them raises :class:`~lamella.stack.kernel.errors.BadRequestError`, which the
router answers with 400.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar

import webob
from webob.multidict import GetDict, MultiDict, NestedMultiDict, NoVars

from lamella.stack.kernel.errors import BadRequestError, LamellaError
from lamella.stack.kernel.keys import ROUTE
from lamella.stack.kernel.late import late_pattern

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from lamella.stack.kernel.keys import JSON, Route

    from .router import Router

__all__ = ["MissingKeyError", "Request", "safe_filename"]

# What WebOb, cgi and codecs raise on hostile bytes. DeprecationWarning is how WebOb refuses a charset,
# OSError how it, or the server, says that the client left.
_HOSTILE = (
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
    TypeError,
    AttributeError,
    AssertionError,
    DeprecationWarning,
    OSError,
    EOFError,
)
# Attributes that only look a key up, and so need no guard.
_PLAIN = frozenset(
    {
        "body_file_raw",
        "content_type",
        "headers",
        "host",
        "http_version",
        "is_body_seekable",
        "is_xhr",
        "method",
        "pragma",
        "query_string",
        "referer",
        "referrer",
        "remote_addr",
        "remote_host",
        "remote_user",
        "scheme",
        "server_name",
        "url_encoding",
        "user_agent",
    }
)
_METHODS = ("decode", "relative_url", "path_info_pop", "path_info_peek", "copy", "copy_body", "make_body_seekable")

Value = TypeVar("Value")
# WebOb has no annotations.
_webob: Any = webob.Request


class MissingKeyError(BadRequestError, KeyError):
    """The form or the query lacks a field that the view asked for."""

    def __init__(self, key: object) -> None:
        super().__init__("a field is missing")
        self.key = key

    def __str__(self) -> str:
        return f"{self.reason}: {self.key!r}"


class _Strict:
    """A missing key is the client's mistake."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        try:
            return super().__getitem__(key)  # type: ignore[misc]
        except KeyError:
            raise MissingKeyError(key) from None

    def getone(self, key: str) -> Any:
        """Return the one value of *key*; none, or several, are the client's mistake."""
        try:
            return super().getone(key)  # type: ignore[misc]
        except KeyError:
            raise MissingKeyError(key) from None


class _Query(_Strict, GetDict):
    """The query: changes go into ``QUERY_STRING``."""


class _Form(_Strict, MultiDict):
    """A form."""


class _NoForm(_Strict, NoVars):
    """The form of a request that sent none."""


class _Params(_Strict, NestedMultiDict):
    """Query and form together."""


_params: Any = _Params
_STRICT: dict[type, type] = {GetDict: _Query, MultiDict: _Form, NoVars: _NoForm}


def _strict(found: Any) -> Any:
    """Make a missing key of WebOb's own dictionary a 400; what the two hold stays the same."""
    kind = _STRICT.get(type(found))
    if kind is None:
        return found
    strict: Any = object.__new__(kind)
    strict.__dict__ = found.__dict__
    return strict


def _refused(name: str) -> BadRequestError:
    return BadRequestError(f"the request is malformed ({name})")


class Request(webob.Request):
    """One request.

    All of ``webob.Request``; besides, :attr:`router`, :attr:`route` and :meth:`url_for`.
    Decide nothing on ``request.url`` (its host is what the client wrote) or ``client_addr``
    (it believes any ``X-Forwarded-For``).
    """

    #: The router that serves the request; None outside of one.
    router: Router | None = None

    if TYPE_CHECKING:  # WebOb has no annotations

        def __init__(self, environ: WSGIEnvironment, **options: Any) -> None: ...
        def copy_get(self) -> Request: ...

    @property
    def route(self) -> Route | None:
        """The route that matched."""
        return ROUTE.get(self.environ)

    @property
    def GET(self) -> Any:  # noqa: N802 - WebOb's name
        """The query, a MultiDict; a missing key is a 400."""
        return _strict(_get_query(self))

    @property
    def POST(self) -> Any:  # noqa: N802 - WebOb's name
        """The form, a MultiDict; a missing key is a 400. A file has ``filename``, ``file`` and ``type``."""
        return _strict(_get_form(self))

    @property
    def params(self) -> Any:
        """Query and form together; a missing key is a 400."""
        return _params(self.GET, self.POST)

    @property
    def json(self) -> JSON:
        """The content as JSON, strictly as RFC 8259 has it: UTF-8, no NaN, no lone surrogates."""
        try:
            value: JSON = _msgspec_json().decode(self.body)
        except (ValueError, RecursionError):
            raise BadRequestError("the content is not JSON") from None
        return value

    @json.setter
    def json(self, value: JSON) -> None:
        self.body = _msgspec_json().encode(value)

    json_body = json

    def url_for(
        self,
        name: str,
        /,
        *,
        external: bool = False,
        scheme: str | None = None,
        anchor: str | None = None,
        **values: object,
    ) -> str:
        """Return the URL of a view; see :meth:`lamella.apps.router.Router.url_for`.

        A name that starts with a dot is relative to the sub-router of this request's view.
        """
        if self.router is None:
            raise LamellaError("the request came through no router; call the router's own url_for")
        return self.router.url_for(name, self, external=external, scheme=scheme, anchor=anchor, **values)

    def __repr__(self) -> str:
        return f"<Request {self.environ.get('REQUEST_METHOD')} {self.environ.get('PATH_INFO')!r}>"


def _guard(name: str, function: Callable[..., Value]) -> Callable[..., Value]:
    """Return *function*, with what it raises on hostile bytes as a 400."""

    def guarded(*arguments: Any, **named: Any) -> Value:
        try:
            return function(*arguments, **named)
        except BadRequestError:
            raise
        except _HOSTILE as error:
            raise _refused(name) from error

    return guarded


def _guard_all() -> None:
    """Guard every property of WebOb's request that does more than look a key up."""
    own = vars(Request)
    for name in dir(webob.Request):
        found = getattr(webob.Request, name)
        if name in own or name in _PLAIN or name.startswith("__"):
            continue
        if isinstance(found, property) and found.fget is not None:
            guarded = property(_guard(name, found.fget), found.fset, found.fdel, found.__doc__)
            setattr(Request, name, guarded)
        elif name in _METHODS:
            setattr(Request, name, update_wrapper(_guard(name, found), found))


_get_query = _guard("GET", _webob.GET.fget)
_get_form = _guard("POST", _webob.POST.fget)
_guard_all()


# What a file system, a shell or a header could take for more than a name; Windows' rules on every system.
_UNSAFE = late_pattern(r"[\x00-\x1f\x7f-\x9f/\\:*?\"<>|]+")
_DEVICE = late_pattern(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)


def safe_filename(name: str, default: str = "file") -> str:
    """Return the last part of a file name a client sent, fit for a folder of yours.

    Args:
        name: Such as ``request.POST["photo"].filename``.
        default: Returned where nothing is left.
    """
    name = name.encode("utf-8", "ignore").decode().replace("\\", "/").rpartition("/")[2]
    name = _UNSAFE.sub("_", name).strip(" .")
    if _DEVICE.fullmatch(name):
        name = f"_{name}"
    while len(name.encode()) > 200:  # most file systems take 255 bytes; room for a suffix of your own
        name = name[:-1]
    return name or default


def _msgspec_json() -> Any:
    """Return ``msgspec.json``, imported with the first JSON: it takes 30 of the 85 ms of the whole router."""
    from msgspec import json

    return json
